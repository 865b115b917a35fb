"""The service, the Prometheus that scrapes it, and the requests that a test makes and counts."""

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

GUARD = re.compile(r" >=? 0\b")  # ` > 0` of `a / (b > 0)`, ` >= 0` after a quantile

ITEM = f"{ITEMS}/{{item_id}}"
UPSTREAM_ITEM = f"{API}/upstream/items/{{item_id}}"
RATE_WINDOW = "4s"  # Grafana's rule: four scrapes
# Prometheus extrapolates from the first and last sample to the ends of the window.
NEARLY = 0.15
ALL = ".*"
UNHURRIED = {"OTEL_EXPORTER_OTLP_TIMEOUT": "10"}  # a batch that is sent again is counted twice

# Method, endpoint and status of a request.
Key = tuple[str, str, int]


@dataclass
class Observed:
    """A service, the Prometheus that scrapes it, and the requests between two times."""

    url: str
    prometheus: Prometheus
    counted: Counter[Key] = field(default_factory=Counter)
    everything: Counter[Key] = field(default_factory=Counter)  # also before the first time
    slow: int = 0
    started: float = 0.0
    ended: float = 0.0

    def make(self, path: str, key: Key, body: object = None, **parameters: float) -> None:
        """Make one request and count it."""
        self.ask(path, key, body, **parameters)
        self.count(key)

    def count(self, key: Key, number: int = 1) -> None:
        """Count requests that were made."""
        self.counted[key] += number
        self.everything[key] += number

    def ask(self, path: str, key: Key, body: object = None, **parameters: float) -> None:
        """Make one request, whose answer must be the one in ``key``."""
        url = self.url + path
        answer = requests.request(key[0], url, params=parameters, json=body, timeout=10)
        assert answer.status_code == key[2]

    def wait_until_scraped(self) -> None:
        """Wait until Prometheus has seen exactly the requests that were made."""

        def scraped() -> bool:
            found = self.prometheus.series("http_requests_total")
            assert {_key(series): float(series["value"][1]) for series in found} == self.counted
            return True

        wait_until(scraped, "Prometheus to have seen every request")

    @property
    def window(self) -> str:
        """The time of the requests and a little before, so that it has the sample at its start."""
        return f"{round((self.ended - self.started) * 1000) + 500}ms"

    def samples(self, query: Query) -> list[float]:
        """Return every number that Grafana gets for a query when it shows this time."""
        text = query.rendered(__range=self.window, __rate_interval=RATE_WINDOW)
        if query.instant:
            found = self.prometheus.series(text, time=self.ended)
            return [float(series["value"][1]) for series in found]
        return self.prometheus.numbers(text, self.started, self.ended)

    def result(self, name: str, endpoint: str = ALL) -> list[Series]:
        """Return what a panel's query gives when it looks back over all of this time at once.

        Args:
            name: Of the query; the dashboard in front may be left out if it is the first one.
            endpoint: Chosen in the dashboard.
        """
        names = {name, f"backend-service / {name}"}
        (query,) = (query for query in queries() if query.name in names)
        whole = {"__range": self.window, "__rate_interval": self.window}
        text = query.rendered(**whole, endpoint=endpoint)
        return self.prometheus.series(text, time=self.ended)

    def figure(self, name: str, endpoint: str = ALL) -> float:
        """Return the one number of a panel."""
        (series,) = self.result(name, endpoint)
        return float(series["value"][1])


def _key(series: Series) -> Key:
    labels = series["metric"]
    return labels["method"], labels["endpoint"], int(labels["status"])


def drive(observed: Observed, times: int) -> None:
    """Make good, wrong and failing requests, and some to another service."""
    for _ in range(times):
        number = observed.counted["POST", ITEMS, 201]
        observed.make(ITEMS, ("POST", ITEMS, 201), {"name": f"item {number}"})
        observed.make(ITEMS, ("POST", ITEMS, 409), {"name": f"item {number}"})
        observed.make(f"{ITEMS}/1", ("GET", ITEM, 200))
        observed.make(ITEMS, ("GET", ITEMS, 200))
        observed.make("/nowhere", ("GET", "unmatched", 404))
        observed.make("/extra/slow", ("GET", "/extra/slow", 200), seconds=0)
    observed.make("/extra/raise", ("GET", "/extra/raise", 500))
    observed.make(f"{API}/upstream/items/1", ("GET", UPSTREAM_ITEM, 200))
    observed.count(("GET", ITEM, 200))  # the service called itself
    observed.make("/extra/stream", ("GET", "/extra/stream", 200), chunks=1, seconds=0)


def drive_slow(observed: Observed, number: int) -> None:
    """Make requests at the same time that take much longer than a scrape interval."""
    key = ("GET", "/extra/slow", 200)
    with ThreadPoolExecutor(number) as pool:
        list(pool.map(lambda _: observed.ask(key[1], key, seconds=1.8), range(number)))
    observed.count(key, number)
    observed.slow += number


@contextmanager
def observed_service(
    project: Path, folder: Path, endpoint: str | None = None, port: int | None = None
) -> Iterator[Observed]:
    """Run the service and a Prometheus that scrapes it.

    Args:
        project: The generated project.
        folder: An empty one.
        endpoint: Where the service sends its spans; nowhere if None.
        port: Where Prometheus listens; any if None.
    """
    with (
        running_backend(project, folder / "app.db", endpoint=endpoint, **UNHURRIED) as backend,
        running_prometheus(backend.url.removeprefix("http://"), folder, port) as prometheus,
    ):
        prometheus.wait_for_scrapes(1)  # a series that begins while it is scraped has no zero
        yield Observed(backend.url, prometheus)


def gives_nothing_without_requests(quiet: Observed, query: Query) -> bool:
    """Tell whether a query gives nothing only because of its guard: without it, NaN must be there."""
    unguarded = quiet.samples(replace(query, text=GUARD.sub("", query.text)))
    assert any(map(math.isnan, unguarded))
    return quiet.samples(query) == []
