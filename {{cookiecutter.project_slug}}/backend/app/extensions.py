"""Loads the functions named in ``APP_EXTENSIONS`` and calls them with the application."""

import pkgutil
from collections.abc import Iterable

from fastapi import FastAPI


class ExtensionError(RuntimeError):
    """A name in ``APP_EXTENSIONS`` cannot be used; the service does not start."""


def load_extensions(app: FastAPI, names: Iterable[str]) -> None:
    """Call each named function with ``app``, in the order given.

    Args:
        app: The application, with its routes.
        names: ``module:function``, as `pkgutil.resolve_name` takes them.

    Raises:
        ExtensionError: a name does not lead to something that can be called.
    """
    for name in names:
        try:
            setup = pkgutil.resolve_name(name)
        except (ValueError, ImportError, AttributeError) as error:
            raise ExtensionError(_explain(name, str(error))) from error
        if not callable(setup):
            raise ExtensionError(_explain(name, "it is not a function"))
        setup(app)


def _explain(name: str, problem: str) -> str:
    return (
        f"APP_EXTENSIONS: cannot use {name!r}: {problem}."
        " Allowed: importable functions as module:function, separated by commas."
    )
