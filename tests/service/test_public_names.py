"""The observability package is small and uses only public names of its dependencies."""

import ast
import re
from collections.abc import Iterator

import pytest

from tests.support.template import TEMPLATE

PACKAGE = TEMPLATE / "backend" / "app" / "observability"
# At most two, each with a reason and a check that fails if the name is removed.
EXCEPTIONS = {
    # Only this state has the full route of a request to a mounted application:
    # https://github.com/fastapi/fastapi/blob/0.165.0/fastapi/telemetry/_asgi.py
    # Without it the service does not start: test_other_instrumentation.py.
    "'fastapi.telemetry'",
}
PRIVATE = re.compile(r"_(?!_)\w*|__\w*(?<!__)")  # _name or __name, but not __name__
# Undocumented keys of the ASGI scope, such as fastapi.telemetry
SCOPE_KEY = re.compile(r"(fastapi|starlette|uvicorn)\.\w+")
BY_NAME = {"getattr", "setattr", "hasattr", "delattr", "attrgetter", "vars"}


def private_names(source: str) -> Iterator[str]:
    """Yield each private name of another package that Python code uses."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ImportFrom(module=module, names=names):
                yield from private_parts(*(f"{module}.{each.name}" for each in names))
            case ast.Import(names=names):
                yield from private_parts(*(each.name for each in names))
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute(attr=name) if PRIVATE.fullmatch(name):
                yield name
            case ast.Call(func=ast.Name(id=function), args=args) if function in BY_NAME:
                texts = [each.value for each in args if isinstance(each, ast.Constant)]
                yield from (str(text) for text in texts if PRIVATE.fullmatch(str(text)))
            case ast.Subscript(slice=ast.Constant(value=str(name))) if PRIVATE.fullmatch(name):
                yield name
            case ast.Constant(value=str(text)) if SCOPE_KEY.fullmatch(text):
                yield repr(text)


def private_parts(*paths: str) -> Iterator[str]:
    """Yield each dotted path that contains a private name."""
    yield from (path for path in paths if any(map(PRIVATE.fullmatch, path.split("."))))


def test_package_uses_only_public_names() -> None:
    found = {
        name: file.name for file in PACKAGE.glob("*.py") for name in names_in(file.read_text())
    }
    assert found.keys() - EXCEPTIONS == set(), found
    assert found.keys() >= EXCEPTIONS, "an exception is not needed any more"
    assert len(EXCEPTIONS) <= 2


def names_in(source: str) -> list[str]:
    """Return the private names, without names of loggers, which look like scope keys."""
    loggers = {"'uvicorn.error'", "'uvicorn.access'"}
    return [name for name in private_names(source) if name not in loggers]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("from fastapi._body_limit import get_body_limit_error", "fastapi._body_limit"),
        ("from fastapi.telemetry._api import X", "fastapi.telemetry._api.X"),
        ("from a import _b", "a._b"),
        ("import a._b", "a._b"),
        ("span._attributes", "_attributes"),
        ("def _on_ending(self): self.span._status = 1", "_status"),
        ("getattr(span, '_events')", "_events"),
        ("vars(span)['_dict']", "_dict"),
        ("scope['fastapi.middleware']", "'fastapi.middleware'"),
    ],
)
def test_private_name_is_found(source: str, name: str) -> None:
    assert any(name in each for each in private_names(source))


@pytest.mark.parametrize(
    "source",
    ["self._left = cls._right", "a.__wrapped__", "from __future__ import b", "def _c(): 0"],
)
def test_own_and_special_names_are_allowed(source: str) -> None:
    assert list(private_names(source)) == []


def test_package_is_small() -> None:
    """Users of the template maintain this code."""
    lines = {file.name: file.read_text().splitlines() for file in PACKAGE.glob("*.py")}
    assert max(map(len, lines.values())) <= 250
    code = [line for each in lines.values() for line in each if not re.match(r"\s*(#|$)", line)]
    assert len(code) <= 700
