"""Settings, read from environment variables that start with ``APP_``."""

from pathlib import Path
from typing import Annotated

from pydantic import field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

# With an alias, a validation error names the environment variable.
ENV_CONFIG = SettingsConfigDict(
    env_prefix="APP_", alias_generator=lambda name: f"APP_{name.upper()}", populate_by_name=True
)


class Settings(BaseSettings):
    """Environment variables. A pydantic.ValidationError names the variable and its invalid value."""

    model_config = ENV_CONFIG

    project_name: str = "{{ cookiecutter.project_name }}"
    description: str = "{{ cookiecutter.description }}"
    api_prefix: str = "{{ cookiecutter.backend_api_prefix }}"
    database_path: Path = Path("data/app.db")
    # Another instance of this service; by default the service calls itself.
    upstream_url: str = "http://127.0.0.1:8000"
    upstream_timeout: float = 2.0  # seconds
    # Functions to call with the application: "module:function", separated by commas.
    extensions: Annotated[tuple[str, ...], NoDecode] = ()

    @field_validator("extensions", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(name for part in value.split(",") if (name := part.strip()))
        return value

    @property
    def health_path(self) -> str:
        """Path of the health check."""
        return f"{self.api_prefix}/health"


settings = Settings()
