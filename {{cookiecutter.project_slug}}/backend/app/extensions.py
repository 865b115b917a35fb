"""Load the functions named in ``APP_EXTENSIONS``, which extend the application."""

import pkgutil
import sys
from collections.abc import Callable, Iterable
from typing import Any

from fastapi import FastAPI


class ExtensionError(RuntimeError):
    """A name in ``APP_EXTENSIONS`` is invalid; the service does not start."""


def extension_arguments(names: Iterable[str]) -> dict[str, Any]:
    """Return the arguments for ``FastAPI()`` that the extensions add.

    Args:
        names: As for `load_extensions`. The module of an extension can define
            ``fastapi_arguments()``, which returns keyword arguments.

    Raises:
        ExtensionError: As for `load_extensions`.
    """
    arguments: dict[str, Any] = {}
    for name in names:
        module = sys.modules.get(_resolve(name).__module__)
        arguments |= getattr(module, "fastapi_arguments", dict)()
    return arguments


def load_extensions(app: FastAPI, names: Iterable[str]) -> None:
    """Call each named function with ``app``, in the order given.

    Args:
        app: The application.
        names: ``module:function``, the format of `pkgutil.resolve_name`.

    Raises:
        ExtensionError: A name cannot be imported or is not callable.
    """
    for name in names:
        _resolve(name)(app)


def _resolve(name: str) -> Callable[[FastAPI], object]:
    try:
        function = pkgutil.resolve_name(name)
    except (ValueError, ImportError, AttributeError) as error:
        raise ExtensionError(_error_message(name, str(error))) from error
    if not callable(function):
        raise ExtensionError(_error_message(name, "it is not callable"))
    extension: Callable[[FastAPI], object] = function
    return extension


def _error_message(name: str, problem: str) -> str:
    return (
        f"APP_EXTENSIONS: cannot load {name!r}: {problem}."
        " Must be importable functions as module:function, separated by commas."
    )
