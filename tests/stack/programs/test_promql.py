"""Every PromQL query of the Grafana files, run on real Prometheus that scrapes the real service.

The service gets no requests, a counted mix of good, slow and failing ones, and none again. The queries of what Tempo
derives from spans are in tests/stack/programs/test_traceql.py and, without Tempo, in tests/stack/programs/test_span_metrics.py.
"""

import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest

from tests.support.backend import ITEMS
from tests.support.dashboards import RECORDED, SCRAPED, Query, each_query, queries
from tests.support.observed_service import (
    NEARLY,
    RATE_WINDOW,
    Key,
    Observed,
    drive,
    drive_slow,
    gives_nothing_without_requests,
    observed_service,
)
from tests.support.waiting import wait_until

PROMQL = [query for query in queries() if query.language == "promql"]
OF_SPANS = [query for query in PROMQL if query.from_spans]
OF_THE_SERVICE = [query for query in PROMQL if not query.from_spans]
SLO = "slo-overview /"
SLOW = 10  # so many that one more, by chance, is nearly as many
NEED_NO_REQUEST = {
    "backend-service / $instance",
    "backend-service / Instances up (stat) A",
    "backend-service / Requests in progress (timeseries) A",
    "backend-service / CPU (timeseries) A",
    "backend-service / Memory (timeseries) A",
    f"{SLO} Availability objective (stat) A",
    f"{SLO} Latency objective (stat) A",
}

each_slo = pytest.mark.parametrize(
    ("slo", "budget"), [("Availability", 0.005), ("Latency", 0.05)], ids=str
)


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
        # A new series has a 0 at its start, shortly before its first scrape.
        observed.prometheus.wait_for_scrapes(1)
        before = Counter(observed.counted)
        observed.started = observed.prometheus.number("max(timestamp(http_requests_total))")
        drive(observed, 15)
        drive_slow(observed, SLOW)
        observed.wait_until_scraped()
        observed.prometheus.wait_for_scrapes(8)  # a longer window: less to extrapolate
        observed.ended = time.time()
        observed.counted -= before
        yield observed


@pytest.fixture(scope="module")
def quiet(busy: Observed) -> Observed:
    """Return the same when all requests are longer ago than the rates look back."""
    return replace(busy, started=busy.ended - 2)


# --- No requests -------------------------------------------------------------------------------


def test_only_what_needs_no_request_is_shown_before_the_first(idle: Observed) -> None:
    found = {query.name: idle.samples(query) for query in OF_THE_SERVICE}
    assert {name for name, samples in found.items() if samples} == NEED_NO_REQUEST
    assert all(map(math.isfinite, chain(*found.values())))


@each_query([query for query in OF_THE_SERVICE if query.is_quotient and "rate5m" not in query.text])
def test_quotient_or_quantile_gives_nothing_after_the_last_request(
    quiet: Observed, query: Query
) -> None:
    assert gives_nothing_without_requests(quiet, query)


# --- After a mix of requests -------------------------------------------------------------------


@each_query(OF_THE_SERVICE)
def test_query_gives_numbers_after_requests(busy: Observed, query: Query) -> None:
    found = busy.samples(query)
    assert found
    assert all(map(math.isfinite, found))


@pytest.mark.parametrize("metric", [*SCRAPED, *RECORDED])
def test_metric_has_the_labels_of_the_table(busy: Observed, metric: str) -> None:
    found = [series["metric"].keys() - {"__name__"} for series in busy.prometheus.series(metric)]
    assert found
    assert all(labels == {**SCRAPED, **RECORDED}[metric] for labels in found)


def test_the_latency_objective_is_a_bucket_boundary(busy: Observed) -> None:
    assert busy.prometheus.series('http_request_duration_seconds_bucket{le="0.5"}')


def test_exemplars_lead_to_traces(busy: Observed) -> None:
    (query,) = (query for query in OF_THE_SERVICE if query.exemplar)
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
    assert busy.figure("Requests in progress (timeseries) A") == SLOW


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
    assert max(p95, key=p95.__getitem__) == ("GET", "/extra/slow")


def test_the_first_error_of_a_route_is_an_increase(idle: Observed) -> None:
    idle.prometheus.wait_for_scrapes(1)  # a series that begins while it is scraped has no zero
    idle.ask("/extra/raise", ("GET", "/extra/raise", 500))
    failures = 'http_requests_total{endpoint="/extra/raise",status="500"}'
    scrape = wait_until(lambda: idle.prometheus.number(f"timestamp({failures})"), "a scrape")
    # Asked for at the time of a sample, it is not extrapolated beyond it.
    assert idle.prometheus.number(f"increase({failures}[1m])", time=scrape) == 1


def test_the_time_of_a_counters_start_is_no_series(idle: Observed) -> None:
    idle.prometheus.wait_for_scrapes(1)
    assert not idle.prometheus.series('{__name__=~".+_created"}')


# --- Objectives --------------------------------------------------------------------------------


def share_of_bad(slo: str, observed: Observed) -> float:
    """Return the share of all requests to routes, since the start of the service, that were bad."""
    every = Counter(observed.everything)
    del every["GET", "unmatched", 404]
    bad = {"Availability": share_of_failures(every), "Latency": observed.slow / every.total()}
    return bad[slo]


@each_slo
def test_objective_leaves_the_budget(busy: Observed, slo: str, budget: float) -> None:
    assert busy.figure(f"{SLO} {slo} objective (stat) A") == pytest.approx(1 - budget)


@each_slo
def test_burn_rate_of_the_last_hour_is_the_share_of_bad_requests_over_the_budget(
    busy: Observed, slo: str, budget: float
) -> None:
    expected = pytest.approx(share_of_bad(slo, busy) / budget, rel=NEARLY)
    assert busy.figure(f"{SLO} {slo} burn rate now (stat) A") == expected
    assert busy.figure(f"{SLO} {slo} burn rate (timeseries) A") == expected


@each_slo
def test_what_is_left_of_the_budget_is_what_the_bad_requests_did_not_use(
    busy: Observed, slo: str, budget: float
) -> None:
    good = busy.figure(f"{SLO} {slo}, 30 days (stat) A")
    # The long windows weigh each moment since the start, in which the shares were others.
    assert 0 < 1 - good < 3 * share_of_bad(slo, busy)
    left = pytest.approx(1 - (1 - good) / budget)
    assert busy.figure(f"{SLO} {slo} error budget left (stat) A") == left
    assert busy.figure(f"{SLO} {slo} error budget left (timeseries) A") == left


def test_table_of_objectives_tells_the_endpoints_that_fail_and_that_are_slow(
    busy: Observed,
) -> None:
    rate, good, fast = (
        {
            series["metric"]["endpoint"]: float(series["value"][1])
            for series in busy.result(f"{SLO} Objectives by endpoint (table) {ref}")
        }
        for ref in "ABC"
    )
    assert rate.keys() == good.keys() == fast.keys() == {key[1] for key in busy.counted}
    assert {endpoint for endpoint, share in good.items() if share < 0.995} == {"/extra/raise"}
    assert good["/extra/raise"] == pytest.approx(0)
    assert min(fast, key=fast.__getitem__) == "/extra/slow"
    assert fast["/extra/slow"] < 0.95
