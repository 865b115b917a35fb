"""Loads the functions named in ``APP_EXTENSIONS``, which complete the application."""

import pkgutil
import sys
from collections.abc import Callable, Iterable
from typing import Any

from fastapi import FastAPI


class ExtensionError(RuntimeError):
    """A name in ``APP_EXTENSIONS`` cannot be used; the service does not start."""


def extension_arguments(names: Iterable[str]) -> dict[str, Any]:
    """Return the arguments that the extensions add to ``FastAPI()``.

    Args:
        names: As in `load_extensions`. An extension with arguments has, in its module, a function
            ``fastapi_arguments`` that returns them by name.

    Raises:
        ExtensionError: as in `load_extensions`.
    """
    arguments: dict[str, Any] = {}
    for name in names:
        module = sys.modules.get(_load(name).__module__)
        arguments |= getattr(module, "fastapi_arguments", dict)()
    return arguments


def load_extensions(app: FastAPI, names: Iterable[str]) -> None:
    """Call each named function with ``app``, in the order given.

    Args:
        app: The application.
        names: ``module:function``, as `pkgutil.resolve_name` takes them.

    Raises:
        ExtensionError: a name does not lead to something that can be called.
    """
    for name in names:
        _load(name)(app)


def _load(name: str) -> Callable[[FastAPI], object]:
    try:
        setup = pkgutil.resolve_name(name)
    except (ValueError, ImportError, AttributeError) as error:
        raise ExtensionError(_explain(name, str(error))) from error
    if not callable(setup):
        raise ExtensionError(_explain(name, "it is not a function"))
    found: Callable[[FastAPI], object] = setup
    return found


def _explain(name: str, problem: str) -> str:
    return (
        f"APP_EXTENSIONS: cannot use {name!r}: {problem}."
        " Allowed: importable functions as module:function, separated by commas."
    )
