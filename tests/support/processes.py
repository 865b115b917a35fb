"""Start programs, capture their output, and stop them."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.support.waiting import wait_until

T = TypeVar("T")

STOP_SECONDS = 15.0


@dataclass
class Running:
    """A started program and the file with its output."""

    process: subprocess.Popen[bytes]
    log: Path

    def output(self) -> str:
        """Return the output so far, both standard output and standard error."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_until(self, fn: Callable[[], T], description: str, timeout: float = 30.0) -> T:
        """Call `wait_until`, but fail at once if the program exits. Errors include its output."""

        def call_if_running() -> T:
            if (code := self.process.poll()) is not None:
                raise RuntimeError(f"exited with {code} before {description}:\n{self.output()}")
            return fn()

        try:
            return wait_until(call_if_running, description, timeout)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.output()}") from error


@contextmanager
def start_process(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Iterator[Running]:
    """Run a command, and stop its process at the end of the block.

    Args:
        command: The program and its arguments.
        env: Additional environment variables.
        cwd: The working directory.
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
    """Terminate the process, kill it after `STOP_SECONDS`, and return its exit code."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()
