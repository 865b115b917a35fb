"""Metrics, traces and JSON logs that share the trace id of each request.

Enabled by ``APP_EXTENSIONS=app.observability:setup_observability`` under
``opentelemetry-instrument``, which creates the tracer provider before the application is imported.
"""

import os
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import FastAPI
from pydantic import BeforeValidator, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode
from starlette.types import ASGIApp

from app.observability import logs, metrics, middleware, traces
from app.observability.redaction import SECRET_NAMES, Redactor, secret_names
from app.settings import ENV_CONFIG

Level = Literal["NOTSET", "DEBUG", "INFO", "WARN", "WARNING", "ERROR", "FATAL", "CRITICAL"]


class ObservabilitySettings(BaseSettings):
    """Environment variables. A pydantic.ValidationError names the variable and its invalid value."""

    model_config = ENV_CONFIG

    log_level: Annotated[Level, BeforeValidator(str.upper)] = "INFO"
    print_spans: bool = False  # one JSON line per span on stdout, to develop without a trace store
    metrics_token: SecretStr = SecretStr("")  # unless empty, GET /metrics requires it
    # Maximum requests per second that are sampled because the caller set the sampled flag.
    traced_callers: Annotated[float, Field(ge=0)] = 10
    redacted_parameters: Annotated[tuple[str, ...], NoDecode] = SECRET_NAMES
    # TRACE_SAMPLE_RATIO in .env. With an invalid value the SDK would sample every trace.
    sampling_ratio: Annotated[float, Field(ge=0, le=1, alias="OTEL_TRACES_SAMPLER_ARG")] = 1

    @field_validator("redacted_parameters", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        return secret_names(value) if isinstance(value, str) else value

    @field_validator("sampling_ratio", mode="before")
    @classmethod
    def _ignore_for_other_samplers(cls, value: object) -> object:
        is_ratio = os.environ.get("OTEL_TRACES_SAMPLER", "").endswith("traceidratio")
        return value if value and is_ratio else 1


def fastapi_arguments() -> dict[str, Any]:
    """Return the arguments for ``FastAPI()``: server spans only, and none for health checks."""
    telemetry = {"operation_spans": False, "metrics": False, "logs": False}
    return {"telemetry": {**telemetry, "exclude": middleware.is_unobserved}}


def setup_observability(app: FastAPI) -> FastAPI:
    """Add metrics, tracing, JSON logs and ``GET /metrics`` to ``app``, before it starts."""
    options = ObservabilitySettings()
    redactor = Redactor(options.redacted_parameters)
    logs.configure_logging(options.log_level, redactor)
    set_up = partial(traces.set_up_provider, redactor, options.traced_callers, options.print_spans)
    set_up()
    build = app.build_middleware_stack

    async def start() -> None:
        set_up()  # the application may have created a provider during start-up
        traces.ensure_provider()
        await middleware.require_server_spans(app)
        metrics.remove_dead_workers()
        logs.redirect_libraries()
        logs.replace_console_handlers()
        for notice in sorted(logs.notices | metrics.notices()):
            logs.logger.warning(notice)

    def build_observed() -> ASGIApp:
        # Do not replace the application's own handler.
        if not {500, Exception} & app.exception_handlers.keys():
            app.exception_handlers[Exception] = middleware.answer_error
        inner, token = build(), options.metrics_token.get_secret_value()
        loaded_twice = isinstance(inner, middleware.Observer)
        return inner if loaded_twice else middleware.Observer(inner, token, start)

    app.build_middleware_stack = build_observed  # type: ignore[method-assign]
    return app
