"""Skips a test whose prerequisite is missing on this machine."""

import os
from typing import NoReturn

import pytest

from scripts.engine import engine_problem, has_image


def unavailable(reason: str) -> NoReturn:
    """Skip the running test, or fail it if all prerequisites must exist (``E2E_STRICT=1``)."""
    if os.environ.get("E2E_STRICT") == "1":
        pytest.fail(f"E2E_STRICT=1, and {reason}", pytrace=False)
    pytest.skip(reason)


def need_engine() -> None:
    """Skip the test if containers cannot start on this machine."""
    if problem := engine_problem():
        unavailable(problem)


def need_image(image: str) -> None:
    """Skip the test if containers cannot start, or the image cannot be pulled."""
    need_engine()
    if not has_image(image):
        unavailable(f"the image {image} is missing")
