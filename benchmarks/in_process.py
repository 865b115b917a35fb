"""Time per request inside one process, without a network: ``make bench``.

Each variant runs in a process of its own. Rounds are interleaved, so that what the machine does
meanwhile hits all of them alike; what counts is the difference to the bare service of the same run.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from cookiecutter.main import cookiecutter

from benchmarks.variants import COMPLETE, METRICS, VARIANTS, path, service

ROOT = Path(__file__).parent.parent
ROUNDS = 20
REQUESTS = 200  # in a round
WARM_UP = 200
NOT_SAMPLED = (b"traceparent", b"00-" + b"ab" * 16 + b"-" + b"cd" * 8 + b"-00")


@dataclass(frozen=True)
class Case:
    """One measured process.

    Attributes:
        variant: Name in `VARIANTS`.
        sampled: Whether the caller's trace is kept.
        routes: Number of routes of the service.
        nesting: Depth of the routers around them.
    """

    variant: str
    sampled: bool = True
    routes: int = 10
    nesting: int = 1

    @property
    def name(self) -> str:
        """Return the variant with what differs from the usual."""
        parts = [self.variant]
        parts += [] if self.sampled else ["unsampled"]
        parts += [f"{self.routes} routes"] if self.routes != 10 else []
        parts += [f"nested {self.nesting}"] if self.nesting != 1 else []
        return ", ".join(parts)


CASES = [
    *(Case(variant.__name__) for variant in dict.fromkeys([*METRICS, *COMPLETE])),
    Case("ours", sampled=False),
    Case("contrib", sampled=False),
]
GROWTH = [
    Case(variant, routes=routes, nesting=nesting)
    for routes, nesting in [(100, 1), (10, 5)]
    for variant in ("bare", "ours_metrics")
]


def measure(cases: Sequence[Case], project: Path) -> dict[str, list[float]]:
    """Return the microseconds per request of each round of each case.

    Args:
        cases: What to measure.
        project: A generated project, whose extension is measured.
    """
    with ExitStack() as stack:
        workers = {case.name: stack.enter_context(worker(case, project)) for case in cases}
        rounds: dict[str, list[float]] = {name: [] for name in workers}
        for _ in range(ROUNDS):
            for name, process in workers.items():
                rounds[name].append(ask(process))
        return rounds


@contextmanager
def worker(case: Case, project: Path) -> Iterator[subprocess.Popen[str]]:
    """Start the process of a case, wait until it is warm, and end it at the end of the block."""
    command = [sys.executable, "-m", "benchmarks.in_process", json.dumps(vars(case)), str(project)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def ask(process: subprocess.Popen[str]) -> float:
    """Have a process run one round, and return its microseconds per request."""
    if process.stdin is None or process.stdout is None:
        raise ValueError("the process has no pipes")
    process.stdin.write("\n")
    return float(process.stdout.readline())


async def serve(case: Case, answers: IO[str]) -> None:
    """Be the process of a case: run a round for each line on standard input."""
    app = VARIANTS[case.variant](service(case.routes, case.nesting))
    headers = [(b"host", b"localhost"), *([] if case.sampled else [NOT_SAMPLED])]
    target = path(case.routes, case.nesting)
    await run(app, target, headers, WARM_UP)
    for _ in sys.stdin:
        seconds = await run(app, target, headers, REQUESTS)
        print(seconds / REQUESTS * 1e6, file=answers, flush=True)


async def run(app: Any, target: str, headers: list[tuple[bytes, bytes]], number: int) -> float:
    """Make so many requests, one after the other, and return the seconds."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start" and message["status"] != 200:
            raise RuntimeError(f"{target} answered {message['status']}")

    started = time.perf_counter()
    for _ in range(number):
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "GET",
            "path": target,
            "raw_path": target.encode(),
            "root_path": "",
            "scheme": "http",
            "query_string": b"",
            "headers": headers,
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8000),
            "state": {},
        }
        await app(scope, receive, send)
    return time.perf_counter() - started


def main() -> None:
    """Measure everything, or be the process of one case."""
    if len(sys.argv) == 3:
        sys.path.insert(0, str(Path(sys.argv[2], "backend")))
        asyncio.run(serve(Case(**json.loads(sys.argv[1])), sys.stdout))
        return
    with tempfile.TemporaryDirectory() as folder:
        project = cookiecutter(str(ROOT), no_input=True, default_config=True, output_dir=folder)
        medians = {
            name: statistics.median(rounds)
            for cases in (CASES, GROWTH)
            for name, rounds in measure(cases, Path(project)).items()
        }
    for case in [*CASES, *GROWTH]:
        bare = medians[replace(case, variant="bare", sampled=True).name]
        median = medians[case.name]
        print(f"{median:9.1f} us {median - bare:+8.1f} us {median / bare:6.2f}x  {case.name}")


if __name__ == "__main__":
    main()
