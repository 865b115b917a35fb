"""Starts programs, keeps their output, and stops them."""

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
