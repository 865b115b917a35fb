"""A scrape: its duration, its size, and how much it delays other requests."""

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
from benchmarks.routes import NOTHING, series_paths
from benchmarks.servers import OBSERVED, ROOT, server, span_receiver
from tests.support.percentile import percentile

SERIES = (30, 300, 3000)
SCRAPES = 100
PAUSE_SECONDS = 0.2
PER_SECOND = 500
# The header of Prometheus 3.16.
ACCEPT = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)

Scrape = tuple[float, float, int, int]  # its start and end, its bytes and its series


def measure(project: Path) -> dict[str, Any]:
    """Scrape servers with different numbers of series, while other requests come at a fixed rate."""
    with span_receiver() as endpoint:
        found = {str(series): _scraped(project, endpoint, series) for series in SERIES}
        long = _scraped(project, endpoint, SERIES[-1], BENCH_LONG_TURNS="1")
        return found | {f"{SERIES[-1]}, turns of 5 ms": long}


def _scraped(project: Path, endpoint: str, series: int, **more: str) -> dict[str, float]:
    with server(project, OBSERVED, endpoint, BENCH_SERIES=str(series), **more) as running:
        for path in series_paths(series):
            requests.get(running.url + path, timeout=10).raise_for_status()
        scraper = _scrape_elsewhere(running.url)
        timed = paced(running.url + NOTHING, PER_SECOND, (PAUSE_SECONDS + 0.06) * SCRAPES)
        scrapes = _scrapes(scraper)
    delays = [_longest(timed, start, end) for start, end, *_ in scrapes]
    # The same time span halfway between two scrapes: the delay that has another cause.
    without = [
        _longest(timed, start - PAUSE_SECONDS / 2, end - PAUSE_SECONDS / 2)
        for start, end, *_ in scrapes
    ]
    usual = statistics.median(request.seconds for request in timed)
    return {
        "series": scrapes[-1][3],
        "bytes": scrapes[-1][2],
        "scrape_ms": statistics.median(end - start for start, end, *_ in scrapes) * 1000,
        "usual_ms": usual * 1000,
        **_delays(delays, usual, "delay"),
        **_delays(without, usual, "delay_without"),
    }


def _delays(longest: list[float | None], usual: float, name: str) -> dict[str, float]:
    found = [(seconds - usual) * 1000 for seconds in longest if seconds is not None]
    return {
        f"{name}_ms": statistics.median(found),
        f"{name}_p95_ms": percentile(found, 95),
        f"{name}_max_ms": max(found),
    }


def _longest(timed: list[Timed], start: float, end: float) -> float | None:
    """Return the seconds of the slowest request that overlaps this time span."""
    during = [each.seconds for each in timed if each.due < end and each.due + each.seconds > start]
    return max(during, default=None)


def _scrape_elsewhere(url: str) -> "subprocess.Popen[str]":
    """Scrape in another process, so that parsing does not disturb the timing of the requests."""
    command = [sys.executable, "-m", "benchmarks.exposition", url]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _scrapes(scraper: "subprocess.Popen[str]") -> list[Scrape]:
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
