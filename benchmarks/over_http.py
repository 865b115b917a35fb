"""Requests over HTTP to uvicorn: latency at a fixed rate; throughput and CPU time at saturation."""

import statistics
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.load import missing_wrk, paced, saturated
from benchmarks.routes import EMPTY_ROUTE
from benchmarks.servers import BASELINE, ITEM, OBSERVED, SERVERS, Server, server, span_receiver
from tests.support.percentile import percentile

# Many short rounds: the speed of a shared machine drifts, and ratios are computed within a round.
PACED_ROUNDS, PACED_SECONDS = 8, 1.5
SATURATED_ROUNDS, SATURATED_SECONDS = 7, 2.0
# Requests per second. At 1,000, the assembled service is saturated: its latency would be the queueing time.
RATES = {200: ITEM, 500: EMPTY_ROUTE}
# The observed server with single features disabled, so that each difference is the overhead of one feature; and with
# other settings. Measured on the empty route only, where the database does not hide the differences.
NO_SPAN, NO_LOG, NO_EXPORT = (
    {"OTEL_TRACES_SAMPLER_ARG": "0"},
    {"APP_LOG_LEVEL": "WARNING"},
    {"OTEL_TRACES_EXPORTER": "none"},
)
VARIATIONS = {
    "metrics only": NO_SPAN | NO_LOG,
    "metrics, span": NO_EXPORT | NO_LOG,
    "metrics, span, access log": NO_EXPORT,
    "sampling ratio 0.1": {"OTEL_TRACES_SAMPLER_ARG": "0.1"},
    "export batches of 512": {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "512"},
    "without gc.freeze": {"BENCH_NO_FREEZE": "1"},
}

Rows = dict[str, dict[str, float]]


def measure(project: Path) -> dict[str, Any]:
    """Compare the servers in alternating rounds: at a fixed rate, then saturated."""
    with ExitStack() as stack:
        endpoint = stack.enter_context(span_receiver())
        servers = {name: stack.enter_context(server(project, name, endpoint)) for name in SERVERS}
        found: dict[str, Any] = {
            f"{rate} requests per second": at_rate(servers, rate, path)
            for rate, path in RATES.items()
        }
        found["saturated, example resource"] = missing_wrk() or at_saturation(servers, ITEM)
        for name, variables in VARIATIONS.items():
            servers[name] = stack.enter_context(server(project, OBSERVED, endpoint, **variables))
        found["saturated, empty route"] = missing_wrk() or at_saturation(servers, EMPTY_ROUTE)
        return found


def at_rate(servers: dict[str, Server], rate: float, path: str) -> Rows:
    """Return the latency of each server in milliseconds, and its ratio to the baseline."""
    rounds: dict[str, list[list[float]]] = {name: [] for name in servers}
    for _ in range(PACED_ROUNDS):
        for name, each in servers.items():
            timed = paced(each.url + path, rate, PACED_SECONDS)
            rounds[name].append([request.seconds * 1000 for request in timed])
    baseline = [statistics.median(times) for times in rounds[BASELINE]]
    return {
        name: {
            "median_ms": statistics.median(statistics.median(times) for times in found),
            "p99_ms": statistics.median(percentile(times, 99) for times in found),
            "ratio": statistics.median(
                statistics.median(times) / other
                for times, other in zip(found, baseline, strict=True)
            ),
        }
        for name, found in rounds.items()
    }


def at_saturation(servers: dict[str, Server], path: str) -> Rows:
    """Return throughput, latency and CPU time of each saturated server.

    CPU time includes the span export. The overhead (``overhead_us``) is the median difference to
    the baseline of the same round.
    """
    rounds: dict[str, list[tuple[float, float, float]]] = {name: [] for name in servers}
    for _ in range(SATURATED_ROUNDS):
        for name, each in servers.items():
            before = each.cpu_seconds()
            requests, rate, p99 = saturated(each.url + path, SATURATED_SECONDS)
            seconds = each.cpu_seconds_when_idle() - before
            rounds[name].append((rate, p99, seconds / requests * 1e6))
    return {name: _summary(found, rounds[BASELINE]) for name, found in rounds.items()}


def _summary(
    rounds: list[tuple[float, float, float]], baseline: list[tuple[float, float, float]]
) -> dict[str, float]:
    rate, p99, cpu = (statistics.median(column) for column in zip(*rounds, strict=True))
    pairs = list(zip(rounds, baseline, strict=True))
    return {
        "requests_per_second": rate,
        "ratio": statistics.median(each[0] / other[0] for each, other in pairs),
        "p99_ms": p99,
        "cpu_us": cpu,
        "overhead_us": statistics.median(each[2] - other[2] for each, other in pairs),
    }
