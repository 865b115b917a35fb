"""Skip a test if one of its prerequisites is missing on this machine."""

import os
from typing import NoReturn

import pytest

from scripts.engine import engine_problem, has_image


def unavailable(reason: str) -> NoReturn:
    """Skip the running test, or fail it if ``E2E_STRICT=1`` is set."""
    if os.environ.get("E2E_STRICT") == "1":
        pytest.fail(f"E2E_STRICT=1, but {reason}", pytrace=False)
    pytest.skip(reason)


def require_docker() -> None:
    """Skip the test if containers cannot be started."""
    if problem := engine_problem():
        unavailable(problem)


def require_image(image: str) -> None:
    """Skip the test if containers cannot be started, or the image cannot be pulled."""
    require_docker()
    if not has_image(image):
        unavailable(f"the image {image} is missing")
