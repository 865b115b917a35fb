"""CPU and wall-clock time per request inside one process, without a network.

Each case runs in its own process. Rounds alternate between the cases, so that other load on the
machine affects all of them; the result is the difference to the baseline of the same round.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from benchmarks.servers import span_receiver
from benchmarks.variants import COMPLETE, ENDPOINT, METRICS, VARIANTS
from tests.support.bytecode import NOT_SAMPLED, arguments, path, request, service
from tests.support.percentile import percentile

ROOT = Path(__file__).parent.parent
ROUNDS = 30
ROUND_REQUESTS = 200
WARM_UP_REQUESTS = 300
# Number of routes, number of nested routers.
SIZES = [(10, 1), (100, 1), (1000, 1), (10, 3), (10, 5)]

Row = dict[str, float]


@dataclass(frozen=True)
class Case:
    """One process to measure.

    Attributes:
        variant: Name in `VARIANTS`.
        sampled: Whether the caller's trace is sampled.
    """

    variant: str
    sampled: bool = True

    @property
    def name(self) -> str:
        """Return the name of its row."""
        return self.variant if self.sampled else f"{self.variant}_not_sampled"


def metrics(project: Path) -> dict[str, Row]:
    """Compare libraries for metrics."""
    return compare([Case(variant.__name__) for variant in METRICS], project)


def complete(project: Path) -> dict[str, Row]:
    """Compare libraries for traces, alone and with metrics and access log."""
    cases = [Case(variant.__name__) for variant in COMPLETE]
    return compare([*cases, Case("ours", sampled=False), Case("contrib", sampled=False)], project)


def growth(project: Path) -> dict[str, dict[str, int]]:
    """Count the bytecode instructions of a request for different numbers of routes; times vary too much."""
    found = {}
    for routes, nesting in SIZES:
        counts: dict[str, int] = {}
        for traced in ("untraced", "traced"):
            command = [sys.executable, "-m", "tests.support.bytecode", str(project)]
            command += [str(routes), str(nesting), traced]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
            counts |= json.loads(done.stdout)
        found[f"{routes} routes, nesting {nesting}"] = counts
    return found


def compare(cases: Sequence[Case], project: Path) -> dict[str, Row]:
    """Measure cases in alternating rounds; the first one is the baseline.

    Args:
        cases: What to measure.
        project: A generated project, whose extension is measured.

    Returns:
        For each case, per request: the wall-clock time (``wall_us``) and its 99th percentile, the
        CPU time of all threads including the span export (``cpu_us``), and the CPU time minus that
        of the baseline in the same round (``overhead_us``, with quartiles); and the memory (RSS).
    """
    with ExitStack() as stack:
        endpoint = stack.enter_context(span_receiver())
        workers = {c.name: stack.enter_context(worker(c, project, endpoint)) for c in cases}
        rounds: dict[str, list[Row]] = {name: [] for name in workers}
        for process in workers.values():
            run_round(process)  # warm-up
        order = list(workers.items())
        for _ in range(ROUNDS):
            order.append(order.pop(0))  # so that no position favours a case
            for name, process in order:
                rounds[name].append(run_round(process))
    baseline = rounds[cases[0].name]
    return {name: summary(rows, baseline) for name, rows in rounds.items()}


def summary(rows: list[Row], baseline: list[Row]) -> Row:
    """Return the medians of all rounds, and the quartiles of the overhead."""
    medians = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    overhead = [row["cpu_us"] - other["cpu_us"] for row, other in zip(rows, baseline, strict=True)]
    q1, median, q3 = statistics.quantiles(overhead, n=4)
    return medians | {"overhead_us": median, "overhead_q1_us": q1, "overhead_q3_us": q3}


@contextmanager
def worker(case: Case, project: Path, endpoint: str) -> Iterator[subprocess.Popen[str]]:
    """Start the process of a case; terminate it at the end of the block."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.in_process",
        json.dumps(asdict(case)),
        str(project),
    ]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, ENDPOINT: endpoint},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def run_round(process: subprocess.Popen[str]) -> Row:
    """Run one round in a worker process, and return its result."""
    if process.stdin is None or process.stdout is None:
        raise ValueError("the process has no pipes")
    process.stdin.write("\n")
    row: Row = json.loads(process.stdout.readline())
    return row


async def serve(case: Case, output: IO[str]) -> None:
    """Run a round for each line on standard input; the main function of a worker process."""
    ours = case.variant.startswith("ours")
    app = VARIANTS[case.variant](service(**arguments() if ours else {}))
    headers = [] if case.sampled else [NOT_SAMPLED]
    target = path()
    await run(app, target, headers, WARM_UP_REQUESTS)
    for _ in sys.stdin:
        print(json.dumps(await run(app, target, headers, ROUND_REQUESTS)), file=output, flush=True)


async def run(app: Any, target: str, headers: list[tuple[bytes, bytes]], number: int) -> Row:
    """Make a number of sequential requests, and return their times in microseconds."""
    seconds = []
    cpu, started = time.process_time(), time.perf_counter()
    for _ in range(number):
        before = time.perf_counter()
        await request(app, target, headers)
        seconds.append(time.perf_counter() - before)
    total = time.perf_counter() - started
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider) and not provider.force_flush():
        raise RuntimeError("spans were not exported")
    cpu = time.process_time() - cpu
    return {
        "wall_us": total / number * 1e6,
        "cpu_us": cpu / number * 1e6,
        "p99_us": percentile(seconds, 99) * 1e6,
        "rss_mb": rss_bytes() / 1e6,
    }


def rss_bytes() -> int:
    """Return the resident set size of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    standard_output = sys.stdout  # the application may redirect it
    sys.path.insert(0, str(Path(sys.argv[2], "backend")))
    asyncio.run(serve(Case(**json.loads(sys.argv[1])), standard_output))
