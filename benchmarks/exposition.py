"""Scrapes: duration, size, and the delay of concurrent requests."""

import http.client
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from benchmarks.load import Timed, paced
from benchmarks.routes import EMPTY_ROUTE, series_paths
from benchmarks.servers import OBSERVED, ROOT, server, span_receiver
from tests.support.percentile import percentile

SERIES = (30, 300, 3000)
SCRAPES = 100
PAUSE_SECONDS = 0.2
PER_SECOND = 500
# The Accept header of Prometheus 3.16.
ACCEPT = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)

Scrape = tuple[float, float, int, int]  # start, end, bytes, series


def measure(project: Path) -> dict[str, Any]:
    """Scrape servers with different numbers of series under load at a fixed rate."""
    with span_receiver() as endpoint:
        found = {str(series): _scraped(project, endpoint, series) for series in SERIES}
        default = _scraped(project, endpoint, SERIES[-1], BENCH_DEFAULT_SWITCH_INTERVAL="1")
        return found | {f"{SERIES[-1]}, switch interval 5 ms": default}


def _scraped(project: Path, endpoint: str, series: int, **variables: str) -> dict[str, float]:
    with server(project, OBSERVED, endpoint, BENCH_SERIES=str(series), **variables) as running:
        for path in series_paths(series):
            requests.get(running.url + path, timeout=10).raise_for_status()
        scraper = _start_scraper(running.url)
        timed = paced(running.url + EMPTY_ROUTE, PER_SECOND, (PAUSE_SECONDS + 0.06) * SCRAPES)
        scrapes = _wait_for(scraper)
    delays = [_longest(timed, start, end) for start, end, *_ in scrapes]
    # The same interval halfway between two scrapes: delays that have another cause.
    baseline = [
        _longest(timed, start - PAUSE_SECONDS / 2, end - PAUSE_SECONDS / 2)
        for start, end, *_ in scrapes
    ]
    latency = statistics.median(request.seconds for request in timed)
    return {
        "series": scrapes[-1][3],
        "bytes": scrapes[-1][2],
        "scrape_ms": statistics.median(end - start for start, end, *_ in scrapes) * 1000,
        "latency_ms": latency * 1000,
        **_delays(delays, latency, "delay"),
        **_delays(baseline, latency, "baseline_delay"),
    }


def _delays(longest: list[float | None], latency: float, name: str) -> dict[str, float]:
    found = [(seconds - latency) * 1000 for seconds in longest if seconds is not None]
    return {
        f"{name}_ms": statistics.median(found),
        f"{name}_p95_ms": percentile(found, 95),
        f"{name}_max_ms": max(found),
    }


def _longest(timed: list[Timed], start: float, end: float) -> float | None:
    """Return the latency of the slowest request that overlaps this interval, in seconds."""
    during = [each.seconds for each in timed if each.due < end and each.due + each.seconds > start]
    return max(during, default=None)


def _start_scraper(url: str) -> "subprocess.Popen[str]":
    """Start a process that scrapes, so that parsing does not disturb the timing of the requests."""
    command = [sys.executable, "-m", "benchmarks.exposition", url]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _wait_for(scraper: "subprocess.Popen[str]") -> list[Scrape]:
    output, _ = scraper.communicate()
    if scraper.returncode:
        raise RuntimeError("a scrape failed")
    return [tuple(json.loads(line)) for line in output.splitlines()]


def _scrape(url: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    for _ in range(SCRAPES):
        time.sleep(PAUSE_SECONDS)
        start = time.perf_counter()
        connection.request("GET", "/metrics", headers={"accept": ACCEPT})
        text = connection.getresponse().read()
        end = time.perf_counter()
        series = sum(not line.startswith(b"#") for line in text.splitlines())
        print(json.dumps((start, end, len(text), series)), flush=True)


if __name__ == "__main__":
    _scrape(sys.argv[1])
