"""Waits for a condition, with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.1


def wait_until(fn: Callable[[], T], description: str, timeout: float = 30.0) -> T:
    """Call ``fn`` until it returns a true value, and return that value.

    Args:
        fn: An `OSError` or `AssertionError` counts as a false value.
        description: What it waits for, for the error message.
        timeout: Seconds.

    Raises:
        TimeoutError: the time is over; the message has the last value or error.
    """
    deadline = time.monotonic() + timeout
    while True:
        last: object
        try:
            if answer := fn():
                return answer
            last = answer
        except (OSError, AssertionError) as error:
            last = error
        if time.monotonic() >= deadline:
            raise TimeoutError(
                f"timed out after {timeout:g} s waiting for {description}; last answer: {last!r}"
            )
        time.sleep(POLL_SECONDS)
