"""Starts real programs for tests, waits for what they do, and ends them again."""

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest

T = TypeVar("T")

POLL_SECONDS = 0.1
STOP_SECONDS = 15.0


def unavailable(reason: str) -> NoReturn:
    """Skip the running test, or fail it where everything must be there (``E2E_STRICT=1``)."""
    if os.environ.get("E2E_STRICT") == "1":
        pytest.fail(f"E2E_STRICT=1, and {reason}", pytrace=False)
    pytest.skip(reason)


def free_port() -> int:
    """Return a loopback port that nothing listened on a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_until(fn: Callable[[], T], description: str, timeout: float = 30.0) -> T:
    """Call ``fn`` until its answer is true in the sense of ``bool``, and return that answer.

    Args:
        fn: Asked again and again. An `OSError` or `AssertionError` counts as "not yet".
        description: What is waited for, as the end of "waited 30 s for ...".
        timeout: Seconds after which to give up.

    Raises:
        TimeoutError: the time is over; the message has the last answer or error.
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
            raise TimeoutError(f"waited {timeout:g} s for {description}; last answer: {last!r}")
        time.sleep(POLL_SECONDS)


@dataclass
class Running:
    """A program that was started, with the file that takes all it prints."""

    process: subprocess.Popen[bytes]
    log: Path

    def output(self) -> str:
        """Return what the program has printed so far, on both its streams."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_until(self, fn: Callable[[], T], description: str, timeout: float = 30.0) -> T:
        """Do as `wait_until`, but give up at once, with the output, when the program has ended."""

        def alive_and_asked() -> T:
            if (code := self.process.poll()) is not None:
                raise RuntimeError(f"ended with {code} before {description}:\n{self.output()}")
            return fn()

        try:
            return wait_until(alive_and_asked, description, timeout)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.output()}") from error


@contextmanager
def start_process(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Iterator[Running]:
    """Run ``command`` while the block runs; then end this process, and no other.

    Args:
        command: Program and arguments.
        env: Variables that are added to those of this process.
        cwd: Folder to run in.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "output")
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd,
            )
        try:
            yield Running(process, log)
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> int:
    """Ask the process to end, insist after a while, and return its exit code."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()
