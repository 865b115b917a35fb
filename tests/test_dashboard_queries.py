"""Every PromQL query of the Grafana files, run on real Prometheus that scrapes the real service.

The service gets no requests, a counted mix of good, slow and failing ones, and none again.
"""

import math
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests

from tests.backend import ITEMS, running_backend
from tests.dashboards import ALL, METRICS, TARGET_LABELS, Query, queries
from tests.prometheus import Prometheus, Series, running_prometheus
from tests.running import wait_until

ITEM = f"{ITEMS}/{{item_id}}"
RATE_WINDOW = "4s"  # Grafana's rule: four scrapes
# Prometheus extrapolates from the first and last sample to the ends of the window.
NEARLY = 0.15

PROMQL = [query for query in queries() if query.language == "promql"]
each_expression = pytest.mark.parametrize("query", PROMQL, ids=lambda query: query.name)

# Method, endpoint and status of a request.
Key = tuple[str, str, int]


@dataclass
class Observed:
    """A service, the Prometheus that scrapes it, and the requests between two times."""

    url: str
    prometheus: Prometheus
    counted: Counter[Key] = field(default_factory=Counter)
    started: float = 0.0
    ended: float = 0.0

    def make(self, path: str, key: Key, body: object = None, **parameters: float) -> None:
        """Make one request and count it."""
        self.ask(path, key, body, **parameters)
        self.counted[key] += 1

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
        """Return what a panel's query gives when it looks back over all of this time at once."""
        (query,) = (query for query in PROMQL if query.name == f"backend-service / {name}")
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
    """Make good, wrong, slow and failing requests."""
    for _ in range(times):
        number = observed.counted["POST", ITEMS, 201]
        observed.make(ITEMS, ("POST", ITEMS, 201), {"name": f"item {number}"})
        observed.make(ITEMS, ("POST", ITEMS, 409), {"name": f"item {number}"})
        observed.make(f"{ITEMS}/1", ("GET", ITEM, 200))
        observed.make(ITEMS, ("GET", ITEMS, 200))
        observed.make("/nowhere", ("GET", "unmatched", 404))
        observed.make("/extra/slow", ("GET", "/extra/slow", 200), seconds=0)
    observed.make("/extra/raise", ("GET", "/extra/raise", 500))
    observed.make("/extra/stream", ("GET", "/extra/stream", 200), chunks=1, seconds=0)


def drive_slow(observed: Observed, number: int) -> None:
    """Make requests at the same time that take longer than a scrape interval."""
    key = ("GET", "/extra/slow", 200)
    with ThreadPoolExecutor(number) as pool:
        list(pool.map(lambda _: observed.ask(key[1], key, seconds=1.2), range(number)))
    observed.counted[key] += number


@contextmanager
def observed_service(project: Path, folder: Path) -> Iterator[Observed]:
    """Run the service and a Prometheus that scrapes it."""
    with (
        running_backend(project, folder / "app.db") as backend,
        running_prometheus(backend.url.removeprefix("http://"), folder) as prometheus,
    ):
        yield Observed(backend.url, prometheus)


@pytest.fixture(scope="module")
def idle(yes_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """Return a service that has had no request."""
    with observed_service(yes_project, tmp_path_factory.mktemp("idle")) as observed:
        observed.started = time.time()
        observed.prometheus.wait_for_scrapes(5)
        observed.ended = time.time()
        yield observed


@pytest.fixture(scope="module")
def busy(yes_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """Return a service after a mix of requests."""
    with observed_service(yes_project, tmp_path_factory.mktemp("busy")) as observed:
        drive(observed, 1)  # a counter's first value is no increase yet
        observed.wait_until_scraped()
        before = Counter(observed.counted)
        observed.started = observed.prometheus.number("max(timestamp(http_requests_total))")
        drive(observed, 15)
        drive_slow(observed, 5)
        observed.wait_until_scraped()
        observed.prometheus.wait_for_scrapes(8)  # a longer window: less to extrapolate
        observed.ended = time.time()
        observed.counted -= before
        yield observed


# --- No requests -------------------------------------------------------------------------------


@each_expression
def test_query_gives_numbers_or_nothing_before_the_first_request(
    idle: Observed, query: Query
) -> None:
    assert all(map(math.isfinite, idle.samples(query)))


@each_expression
def test_query_gives_numbers_or_nothing_after_the_last_request(
    busy: Observed, query: Query
) -> None:
    rate = f"sum(rate(http_requests_total[{RATE_WINDOW}]))"
    wait_until(lambda: busy.prometheus.number(rate) == 0, "the rate to be 0")
    now = time.time()
    quiet = Observed(busy.url, busy.prometheus, started=now - 3, ended=now)
    assert all(map(math.isfinite, quiet.samples(query)))


# --- After a mix of requests -------------------------------------------------------------------


@each_expression
def test_query_gives_numbers_after_requests(busy: Observed, query: Query) -> None:
    found = busy.samples(query)
    assert found
    assert all(map(math.isfinite, found))


@pytest.mark.parametrize("metric", METRICS)
def test_metric_has_the_labels_of_the_table(busy: Observed, metric: str) -> None:
    found = [series["metric"] for series in busy.prometheus.series(f'{metric}{{job="backend"}}')]
    assert found
    for labels in found:
        assert labels.keys() - {"__name__"} == METRICS[metric] | TARGET_LABELS


def test_the_latency_objective_is_a_bucket_boundary(busy: Observed) -> None:
    assert busy.prometheus.series('http_request_duration_seconds_bucket{le="0.5"}')


def test_exemplars_lead_to_traces(busy: Observed) -> None:
    (query,) = (query for query in PROMQL if query.exemplar)
    text = query.rendered(__rate_interval=RATE_WINDOW)
    found = busy.prometheus.get("query_exemplars", query=text, start=busy.started, end=busy.ended)
    ids = {exemplar["labels"]["trace_id"] for each in found for exemplar in each["exemplars"]}
    assert ids
    assert all(len(trace_id) == 32 and int(trace_id, 16) for trace_id in ids)


def share_of_failures(counted: Counter[Key]) -> float:
    """Return the share of 5xx."""
    return sum(number for key, number in counted.items() if key[2] >= 500) / counted.total()


def test_one_instance_is_up(busy: Observed) -> None:
    assert busy.figure("Instances up (stat) A") == 1


def test_requests_are_those_that_were_made(busy: Observed) -> None:
    made = busy.counted.total()
    assert busy.figure("Requests (stat) A") == pytest.approx(made, rel=NEARLY)


def test_error_ratio_is_the_share_of_5xx(busy: Observed) -> None:
    expected = pytest.approx(share_of_failures(busy.counted), rel=NEARLY)
    assert busy.figure("Error ratio (stat) A") == expected
    assert busy.figure("Error ratio (timeseries) A") == expected


def test_error_ratio_of_a_route_that_never_failed_is_0(busy: Observed) -> None:
    assert busy.figure("Error ratio (stat) A", ITEMS) == 0
    assert busy.figure("Error ratio (timeseries) A", ITEMS) == 0


def test_request_rate_is_split_by_class_of_status(busy: Observed) -> None:
    made: Counter[str] = Counter()
    for (_, _, status), number in busy.counted.items():
        made[f"{status // 100}xx"] += number
    found = busy.result("Request rate (timeseries) A")
    rates = {series["metric"]["class"]: float(series["value"][1]) for series in found}
    seconds = busy.ended - busy.started + 0.5
    assert rates == pytest.approx({k: n / seconds for k, n in made.items()}, rel=NEARLY)


def test_slow_requests_are_seen_in_the_highest_quantiles(busy: Observed) -> None:
    median, p99 = (busy.figure(f"Latency (timeseries) {ref}") for ref in "AC")
    assert median < 0.5 < 1 < p99 < 2.5


def test_requests_in_progress_are_those_that_ran_together(busy: Observed) -> None:
    assert busy.figure("Requests in progress (timeseries) A") == 5


def test_table_has_a_row_per_route_with_its_rate_errors_and_latency(busy: Observed) -> None:
    made: dict[tuple[str, str], Counter[Key]] = {}
    for key, number in busy.counted.items():
        made.setdefault(key[:2], Counter())[key] = number
    rate, errors, p95 = (
        {
            (series["metric"]["method"], series["metric"]["endpoint"]): float(series["value"][1])
            for series in busy.result(f"Endpoints (table) {ref}")
        }
        for ref in "ABC"
    )
    seconds = busy.ended - busy.started + 0.5
    counted = {route: keys.total() / seconds for route, keys in made.items()}
    assert rate == pytest.approx(counted, rel=NEARLY)
    failed = {route: share_of_failures(keys) for route, keys in made.items()}
    assert errors == pytest.approx(failed, rel=NEARLY)
    assert {route for route, seconds in p95.items() if seconds > 0.5} == {("GET", "/extra/slow")}


def test_the_first_error_of_a_route_is_an_increase(idle: Observed) -> None:
    idle.ask("/extra/raise", ("GET", "/extra/raise", 500))
    first_error = 'increase(http_requests_total{endpoint="/extra/raise",status="500"}[1m])'
    increase = wait_until(lambda: idle.prometheus.number(first_error), "an increase")
    assert increase == pytest.approx(1, rel=0.5)  # extrapolated to a minute


def test_the_time_of_a_counters_start_is_no_series(idle: Observed) -> None:
    idle.prometheus.wait_for_scrapes(1)
    assert not idle.prometheus.series('{__name__=~".+_created"}')
