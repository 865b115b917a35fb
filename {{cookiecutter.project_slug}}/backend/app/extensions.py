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
        names: As in `load_extensions`. A function ``fastapi_arguments`` in the module of an
            extension returns its arguments by name.

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
        names: ``module:function``, the format of `pkgutil.resolve_name`.

    Raises:
        ExtensionError: a name cannot be imported or is not callable.
    """
    for name in names:
        _load(name)(app)


def _load(name: str) -> Callable[[FastAPI], object]:
    try:
        setup = pkgutil.resolve_name(name)
    except (ValueError, ImportError, AttributeError) as error:
        raise ExtensionError(_explain(name, str(error))) from error
    if not callable(setup):
        raise ExtensionError(_explain(name, "it is not callable"))
    found: Callable[[FastAPI], object] = setup
    return found


def _explain(name: str, problem: str) -> str:
    return (
        f"APP_EXTENSIONS: cannot load {name!r}: {problem}."
        " Must be importable functions as module:function, separated by commas."
    )
