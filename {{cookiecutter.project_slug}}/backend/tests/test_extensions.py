import os
import subprocess
import sys

import pytest
from fastapi import FastAPI

from app.extensions import ExtensionError, extension_arguments, load_extensions
from app.settings import Settings


def add_title(app: FastAPI) -> FastAPI:
    app.title = "extended"
    return app


def test_load_extensions_calls_each_function_with_the_application() -> None:
    app = FastAPI()
    load_extensions(app, [f"{__name__}:add_title"])
    assert app.title == "extended"


@pytest.mark.parametrize(
    ("value", "names"),
    [("", ()), ("a:b", ("a:b",)), (" a:b , c:d,", ("a:b", "c:d"))],
    ids=["none", "one", "two with spaces"],
)
def test_extensions_setting_is_split_at_commas(
    monkeypatch: pytest.MonkeyPatch, value: str, names: tuple[str, ...]
) -> None:
    monkeypatch.setenv("APP_EXTENSIONS", value)
    assert Settings().extensions == names


@pytest.mark.parametrize(
    "name", ["app.absent:setup", "app.main:absent", "app:", "os:sep", "not a name"]
)
def test_load_extensions_rejects_an_invalid_name(name: str) -> None:
    with pytest.raises(ExtensionError, match="APP_EXTENSIONS") as exc_info:
        load_extensions(FastAPI(), [name])
    assert repr(name) in str(exc_info.value)


def test_invalid_extension_prevents_start_up() -> None:
    process = subprocess.run(
        [sys.executable, "-c", "import app.main"],
        env=os.environ | {"APP_EXTENSIONS": "app.absent:setup"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode != 0
    assert "APP_EXTENSIONS: cannot load 'app.absent:setup'" in process.stderr


def fastapi_arguments() -> dict[str, object]:
    return {"title": "contributed"}


def test_extension_adds_arguments_to_the_application() -> None:
    assert extension_arguments([f"{__name__}:add_title"]) == {"title": "contributed"}


def test_extension_without_arguments_adds_none() -> None:
    assert extension_arguments(["app.main:answer_invalid"]) == {}
