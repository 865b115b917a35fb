"""Wait for a condition with a timeout."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.1


def wait_until(fn: Callable[[], T], description: str, timeout: float = 30.0) -> T:
    """Call ``fn`` until it returns a true value, and return that value.

    Args:
        fn: The condition. `OSError` and `AssertionError` count as a false value.
        description: The awaited condition, for the error message.
        timeout: Timeout in seconds.

    Raises:
        TimeoutError: no true value in time; the message contains the last value or error.
    """
    deadline = time.monotonic() + timeout
    while True:
        last: object
        try:
            if value := fn():
                return value
            last = value
        except (OSError, AssertionError) as error:
            last = error
        if time.monotonic() >= deadline:
            raise TimeoutError(
                f"timed out after {timeout:g} s waiting for {description}; last value: {last!r}"
            )
        time.sleep(POLL_SECONDS)
