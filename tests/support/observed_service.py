"""Run the backend and a Prometheus that scrapes it, and count the requests of a test."""

import math
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import requests

from tests.support.backend import API, ITEMS, running_backend
from tests.support.dashboards import Query, queries
from tests.support.prometheus import Prometheus, Series, running_prometheus
from tests.support.waiting import wait_until

GUARD = re.compile(r" >=? 0\b")  # " > 0" in "a / (b > 0)", " >= 0" after a quantile

ITEM = f"{ITEMS}/{{item_id}}"
UPSTREAM_ITEM = f"{API}/upstream/items/{{item_id}}"
RATE_WINDOW = "4s"  # Grafana's $__rate_interval is four scrape intervals
# Relative. Prometheus extrapolates from the first and last sample to the ends of the window.
TOLERANCE = 0.15
ALL = ".*"
# Avoids retries, because spans that are exported twice are counted twice.
LONG_EXPORT_TIMEOUT = {"OTEL_EXPORTER_OTLP_TIMEOUT": "10"}

# Method, endpoint and status of a request.
Key = tuple[str, str, int]


@dataclass
class Observed:
    """A backend, the Prometheus that scrapes it, and the requests from ``started`` to ``ended``."""

    url: str
    prometheus: Prometheus
    counted: Counter[Key] = field(default_factory=Counter)
    everything: Counter[Key] = field(default_factory=Counter)  # also requests before ``started``
    slow: int = 0
    started: float = 0.0
    ended: float = 0.0

    def request(self, path: str, key: Key, body: object = None, **parameters: float) -> None:
        """Send a request and count it."""
        self.send(path, key, body, **parameters)
        self.count(key)

    def count(self, key: Key, number: int = 1) -> None:
        """Count requests that were sent."""
        self.counted[key] += number
        self.everything[key] += number

    def send(self, path: str, key: Key, body: object = None, **parameters: float) -> None:
        """Send a request. Method and expected status are those of ``key``."""
        url = self.url + path
        response = requests.request(key[0], url, params=parameters, json=body, timeout=10)
        assert response.status_code == key[2]

    def wait_until_scraped(self) -> None:
        """Wait until the counters in Prometheus equal the counted requests."""

        def scraped() -> bool:
            found = self.prometheus.series("http_requests_total")
            assert {_key(series): float(series["value"][1]) for series in found} == self.counted
            return True

        wait_until(scraped, "Prometheus to have scraped every request")

    @property
    def window(self) -> str:
        """The duration of the requests, and half a second more to include the first sample."""
        return f"{round((self.ended - self.started) * 1000) + 500}ms"

    def samples(self, query: Query) -> list[float]:
        """Return every value that Grafana gets for a query from ``started`` to ``ended``."""
        text = query.rendered(__range=self.window, __rate_interval=RATE_WINDOW)
        if query.instant:
            found = self.prometheus.series(text, time=self.ended)
            return [float(series["value"][1]) for series in found]
        return self.prometheus.numbers(text, self.started, self.ended)

    def result(self, name: str, endpoint: str = ALL) -> list[Series]:
        """Return the result of a panel's query over the whole time range at once.

        Args:
            name: The name of the query; ``backend-service / `` at its start can be omitted.
            endpoint: The value of the dashboard variable.
        """
        names = {name, f"backend-service / {name}"}
        found = [query for query in queries() if query.name in names]
        assert len(found) == 1, f"no query is named {name}: was the panel renamed?"
        (query,) = found
        whole = {"__range": self.window, "__rate_interval": self.window}
        text = query.rendered(**whole, endpoint=endpoint)
        return self.prometheus.series(text, time=self.ended)

    def value(self, name: str, endpoint: str = ALL) -> float:
        """Return the value of a panel with a single series."""
        (series,) = self.result(name, endpoint)
        return float(series["value"][1])


def _key(series: Series) -> Key:
    labels = series["metric"]
    return labels["method"], labels["endpoint"], int(labels["status"])


def make_requests(observed: Observed, times: int) -> None:
    """Send successful, invalid and failing requests, and one that calls another service."""
    for _ in range(times):
        number = observed.counted["POST", ITEMS, 201]
        observed.request(ITEMS, ("POST", ITEMS, 201), {"name": f"item {number}"})
        observed.request(ITEMS, ("POST", ITEMS, 409), {"name": f"item {number}"})
        observed.request(f"{ITEMS}/1", ("GET", ITEM, 200))
        observed.request(ITEMS, ("GET", ITEMS, 200))
        observed.request("/nowhere", ("GET", "unmatched", 404))
        observed.request("/extra/slow", ("GET", "/extra/slow", 200), seconds=0)
    observed.request("/extra/raise", ("GET", "/extra/raise", 500))
    observed.request(f"{API}/upstream/items/1", ("GET", UPSTREAM_ITEM, 200))
    observed.count(("GET", ITEM, 200))  # the service called itself
    observed.request("/extra/stream", ("GET", "/extra/stream", 200), chunks=1, seconds=0)


def make_slow_requests(observed: Observed, number: int) -> None:
    """Send concurrent requests that take longer than a scrape interval."""
    key = ("GET", "/extra/slow", 200)
    with ThreadPoolExecutor(number) as pool:
        list(pool.map(lambda _: observed.send(key[1], key, seconds=1.8), range(number)))
    observed.count(key, number)
    observed.slow += number


@contextmanager
def observed_service(
    project: Path, folder: Path, endpoint: str | None = None, port: int | None = None
) -> Iterator[Observed]:
    """Run the backend and a Prometheus that scrapes it.

    Args:
        project: The generated project.
        folder: An empty folder for the database and Prometheus.
        endpoint: The OTLP endpoint of the backend; if None, spans are not exported.
        port: The port of Prometheus; if None, a free one.
    """
    with (
        running_backend(
            project, folder / "app.db", endpoint=endpoint, **LONG_EXPORT_TIMEOUT
        ) as backend,
        running_prometheus(backend.url.removeprefix("http://"), folder, port) as prometheus,
    ):
        # Otherwise the first sample of a series could be greater than 0: no increase is visible.
        prometheus.wait_for_scrapes(1)
        yield Observed(backend.url, prometheus)


def is_empty_without_requests(idle: Observed, query: Query) -> bool:
    """Return whether a query has no result. Assert that without its guard the result is NaN."""
    unguarded = idle.samples(replace(query, text=GUARD.sub("", query.text)))
    assert any(map(math.isnan, unguarded))
    return idle.samples(query) == []
