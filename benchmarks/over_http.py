"""Requests over HTTP to uvicorn: how long they take at a fixed pace, and how many fit in a second."""

import statistics
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.load import missing_wrk, paced, saturated
from benchmarks.routes import NOTHING
from benchmarks.servers import ITEM, OBSERVED, SERVERS, SILENT, Server, server, span_receiver
from benchmarks.statistic import percentile

ROUNDS, SATURATED_ROUNDS = 4, 7  # a short burst differs more from the next one
PACED_SECONDS = 4.0
SATURATED_SECONDS = 2.0
PACES = (200, 1000)  # requests per second
# The observed server with less, so that each difference is the cost of one thing; and with other settings.
NO_SPAN, NO_LINE, NO_EXPORT = (
    {"OTEL_TRACES_SAMPLER_ARG": "0"},
    {"APP_LOG_LEVEL": "WARNING"},
    {"OTEL_TRACES_EXPORTER": "none"},
)
LESS = {
    "only counted": NO_SPAN | NO_LINE,
    "and with its span": NO_EXPORT | NO_LINE,
    "and with its line": NO_EXPORT,
    "a tenth of the traces": {"OTEL_TRACES_SAMPLER_ARG": "0.1"},
    "batches of 512": {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "512"},
    "all garbage searched": {"BENCH_UNFROZEN": "1"},
}
PATHS = {"item": ITEM, "nothing": NOTHING}

Rows = dict[str, dict[str, float]]


def measure(project: Path) -> dict[str, Any]:
    """Compare the servers: first all of them at a fixed pace, then saturated, in rounds."""
    with ExitStack() as stack:
        endpoint = stack.enter_context(span_receiver())
        servers = {name: stack.enter_context(server(project, name, endpoint)) for name in SERVERS}
        found: dict[str, Any] = {
            f"{pace} per second": at_pace(servers, pace, ITEM if pace < 500 else NOTHING)
            for pace in PACES
        }
        for name, variables in LESS.items():
            servers[name] = stack.enter_context(server(project, OBSERVED, endpoint, **variables))
        for name, path in PATHS.items():
            found[f"saturated, {name}"] = missing_wrk() or at_once(servers, path)
        return found


def at_pace(servers: dict[str, Server], pace: float, path: str) -> Rows:
    """Return the latency of each server's requests in milliseconds, and what is more than bare."""
    rounds: dict[str, list[list[float]]] = {name: [] for name in servers}
    for _ in range(ROUNDS):
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
    """Return how many requests each server answers in a second, and the share of bare."""
    rounds: dict[str, list[tuple[float, float, float]]] = {name: [] for name in servers}
    for _ in range(SATURATED_ROUNDS):
        for name, each in servers.items():
            before = each.cpu_seconds()
            rate, p99 = saturated(each.url + path, SATURATED_SECONDS)
            cpu = (each.cpu_seconds() - before) / (rate * SATURATED_SECONDS)
            rounds[name].append((rate, cpu * 1e6, p99))
    bare = rounds[SILENT]
    return {
        name: {
            "per_second": statistics.median(rate for rate, _, _ in found),
            "cpu_us": statistics.median(cpu for _, cpu, _ in found),
            "p99_ms": statistics.median(p99 for _, _, p99 in found),
            "ratio": statistics.median(
                rate / other for (rate, *_), (other, *_) in zip(found, bare, strict=True)
            ),
        }
        for name, found in rounds.items()
    }
