"""Requests over HTTP to uvicorn: latency at a fixed rate; throughput and processor time at saturation."""

import statistics
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.load import missing_wrk, paced, saturated
from benchmarks.routes import NOTHING
from benchmarks.servers import ITEM, OBSERVED, SERVERS, SILENT, Server, server, span_receiver
from tests.support.percentile import percentile

# Many short rounds: the speed of a machine that others use drifts, and a ratio is within one round.
PACED_ROUNDS, PACED_SECONDS = 8, 1.5
SATURATED_ROUNDS, SATURATED_SECONDS = 7, 2.0
# Requests per second. The assembled service cannot answer 1,000: its latency would be that of a queue.
PACES = {200: ITEM, 500: NOTHING}
# The observed server with one thing less, so that each difference is the cost of one thing; and with other
# settings. Measured on the empty route only, where the database does not hide the differences.
NO_SPAN, NO_LOG, NO_EXPORT = (
    {"OTEL_TRACES_SAMPLER_ARG": "0"},
    {"APP_LOG_LEVEL": "WARNING"},
    {"OTEL_TRACES_EXPORTER": "none"},
)
LESS = {
    "metrics only": NO_SPAN | NO_LOG,
    "metrics, span": NO_EXPORT | NO_LOG,
    "metrics, span, access log": NO_EXPORT,
    "sampling ratio 0.1": {"OTEL_TRACES_SAMPLER_ARG": "0.1"},
    "export batches of 512": {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "512"},
    "without gc.freeze": {"BENCH_UNFROZEN": "1"},
}

Rows = dict[str, dict[str, float]]


def measure(project: Path) -> dict[str, Any]:
    """Compare the servers in rounds: at a fixed rate, then saturated."""
    with ExitStack() as stack:
        endpoint = stack.enter_context(span_receiver())
        servers = {name: stack.enter_context(server(project, name, endpoint)) for name in SERVERS}
        found: dict[str, Any] = {
            f"{pace} per second": at_pace(servers, pace, path) for pace, path in PACES.items()
        }
        found["saturated, item"] = missing_wrk() or at_once(servers, ITEM)
        for name, variables in LESS.items():
            servers[name] = stack.enter_context(server(project, OBSERVED, endpoint, **variables))
        found["saturated, nothing"] = missing_wrk() or at_once(servers, NOTHING)
        return found


def at_pace(servers: dict[str, Server], pace: float, path: str) -> Rows:
    """Return the latency of each server's requests in milliseconds, and its ratio to bare."""
    rounds: dict[str, list[list[float]]] = {name: [] for name in servers}
    for _ in range(PACED_ROUNDS):
        for name, each in servers.items():
            timed = paced(each.url + path, pace, PACED_SECONDS)
            rounds[name].append([request.seconds * 1000 for request in timed])
    bare = [statistics.median(times) for times in rounds[SILENT]]
    return {
        name: {
            "median_ms": statistics.median(statistics.median(times) for times in found),
            "p99_ms": statistics.median(percentile(times, 99) for times in found),
            "ratio": statistics.median(
                statistics.median(times) / other for times, other in zip(found, bare, strict=True)
            ),
        }
        for name, found in rounds.items()
    }


def at_once(servers: dict[str, Server], path: str) -> Rows:
    """Return requests per second, latency and processor time of each saturated server.

    The processor time of a request includes the export of its spans. What it adds to a request
    (``added_us``) is the median difference to the bare server of the same round.
    """
    rounds: dict[str, list[tuple[float, float, float]]] = {name: [] for name in servers}
    for _ in range(SATURATED_ROUNDS):
        for name, each in servers.items():
            before = each.cpu_seconds()
            requests, rate, p99 = saturated(each.url + path, SATURATED_SECONDS)
            seconds = each.cpu_seconds_when_idle() - before
            rounds[name].append((rate, p99, seconds / requests * 1e6))
    return {name: _summary(found, rounds[SILENT]) for name, found in rounds.items()}


def _summary(
    rounds: list[tuple[float, float, float]], bare: list[tuple[float, float, float]]
) -> dict[str, float]:
    rate, p99, cpu = (statistics.median(column) for column in zip(*rounds, strict=True))
    pairs = list(zip(rounds, bare, strict=True))
    return {
        "per_second": rate,
        "ratio": statistics.median(each[0] / other[0] for each, other in pairs),
        "p99_ms": p99,
        "cpu_us": cpu,
        "added_us": statistics.median(each[2] - other[2] for each, other in pairs),
    }
