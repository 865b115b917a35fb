"""Every PromQL query of the Grafana files, run on real Prometheus that scrapes the real service.

The service receives no requests, then a counted mix of good, slow and failing requests, then none.
test_traceql.py runs the queries of metrics that Tempo generates from spans, and test_span_metrics.py
runs them without Tempo.
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
    RATE_WINDOW,
    TOLERANCE,
    Key,
    Observed,
    is_empty_without_requests,
    make_requests,
    make_slow_requests,
    observed_service,
)
from tests.support.waiting import wait_until

PROMQL = [query for query in queries() if query.language == "promql"]
SERVICE_QUERIES = [query for query in PROMQL if not query.from_spans]
SLO = "slo-overview /"
SLOW = 10  # enough that one more, by chance, is within the tolerance
SHOWN_WITHOUT_REQUESTS = {
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
    """Return a service without requests."""
    with observed_service(yes_project, tmp_path_factory.mktemp("idle")) as observed:
        observed.started = time.time()
        observed.prometheus.wait_for_scrapes(5)
        observed.ended = time.time()
        yield observed


@pytest.fixture(scope="module")
def busy(yes_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """Return a service after a mix of requests."""
    with observed_service(yes_project, tmp_path_factory.mktemp("busy")) as observed:
        make_requests(observed, 1)  # the first value of a counter is not an increase
        observed.wait_until_scraped()
        # A new series has a 0 at its created timestamp, shortly before its first scrape.
        observed.prometheus.wait_for_scrapes(1)
        before = Counter(observed.counted)
        observed.started = observed.prometheus.number("max(timestamp(http_requests_total))")
        make_requests(observed, 15)
        make_slow_requests(observed, SLOW)
        observed.wait_until_scraped()
        observed.prometheus.wait_for_scrapes(8)  # a longer window has less extrapolation
        observed.ended = time.time()
        observed.counted -= before
        yield observed


@pytest.fixture(scope="module")
def quiet(busy: Observed) -> Observed:
    """Return the service after its requests have left the windows of the rates."""
    return replace(busy, started=busy.ended - 2)


# --- No requests -------------------------------------------------------------------------------


def test_only_panels_that_require_no_requests_have_data_before_the_first(
    idle: Observed,
) -> None:
    found = {query.name: idle.samples(query) for query in SERVICE_QUERIES}
    assert {name for name, samples in found.items() if samples} == SHOWN_WITHOUT_REQUESTS
    assert all(map(math.isfinite, chain(*found.values())))


@each_query(
    [query for query in SERVICE_QUERIES if query.is_quotient and "rate5m" not in query.text]
)
def test_quotient_or_quantile_is_empty_after_the_last_request(
    quiet: Observed, query: Query
) -> None:
    assert is_empty_without_requests(quiet, query)


# --- After a mix of requests -------------------------------------------------------------------


def test_every_query_returns_numbers_after_requests(busy: Observed) -> None:
    samples = {query.name: busy.samples(query) for query in SERVICE_QUERIES}
    wrong = {name: s for name, s in samples.items() if not s or not all(map(math.isfinite, s))}
    assert wrong == {}


def test_metrics_have_the_documented_labels(busy: Observed) -> None:
    for metric, expected in {**SCRAPED, **RECORDED}.items():
        found = [s["metric"].keys() - {"__name__"} for s in busy.prometheus.series(metric)]
        assert found, metric
        assert all(labels == expected for labels in found), metric


def test_latency_objective_is_a_bucket_boundary(busy: Observed) -> None:
    assert busy.prometheus.series('http_request_duration_seconds_bucket{le="0.5"}')


def test_exemplars_have_trace_ids(busy: Observed) -> None:
    (query,) = (query for query in SERVICE_QUERIES if query.exemplar)
    text = query.rendered(__rate_interval=RATE_WINDOW)
    found = busy.prometheus.get("query_exemplars", query=text, start=busy.started, end=busy.ended)
    ids = {exemplar["labels"]["trace_id"] for each in found for exemplar in each["exemplars"]}
    assert ids
    assert all(len(trace_id) == 32 and int(trace_id, 16) for trace_id in ids)


def error_ratio(counted: Counter[Key]) -> float:
    """Return the ratio of requests with status 5xx."""
    return sum(number for key, number in counted.items() if key[2] >= 500) / counted.total()


def test_one_instance_is_up(busy: Observed) -> None:
    assert busy.value("Instances up (stat) A") == 1


def test_request_count_is_the_number_of_requests(busy: Observed) -> None:
    sent = busy.counted.total()
    assert busy.value("Requests (stat) A") == pytest.approx(sent, rel=TOLERANCE)


def test_error_ratio_is_the_ratio_of_5xx(busy: Observed) -> None:
    expected = pytest.approx(error_ratio(busy.counted), rel=TOLERANCE)
    assert busy.value("Error ratio (stat) A") == expected
    assert busy.value("Error ratio (timeseries) A") == expected


def test_error_ratio_of_a_route_without_errors_is_0(busy: Observed) -> None:
    assert busy.value("Error ratio (stat) A", ITEMS) == 0
    assert busy.value("Error ratio (timeseries) A", ITEMS) == 0


def test_request_rate_is_split_by_class_of_status(busy: Observed) -> None:
    sent: Counter[str] = Counter()
    for (_, _, status), number in busy.counted.items():
        sent[f"{status // 100}xx"] += number
    found = busy.result("Request rate (timeseries) A")
    rates = {series["metric"]["class"]: float(series["value"][1]) for series in found}
    seconds = busy.ended - busy.started + 0.5
    assert rates == pytest.approx({k: n / seconds for k, n in sent.items()}, rel=TOLERANCE)


def test_slow_requests_raise_only_the_highest_quantiles(busy: Observed) -> None:
    median, p99 = (busy.value(f"Latency (timeseries) {ref}") for ref in "AC")
    assert median < 0.5 < 1 < p99 < 2.5


def test_requests_in_progress_is_the_number_of_concurrent_requests(busy: Observed) -> None:
    assert busy.value("Requests in progress (timeseries) A") == SLOW


def test_table_has_a_row_per_route_with_its_rate_errors_and_latency(busy: Observed) -> None:
    sent: dict[tuple[str, str], Counter[Key]] = {}
    for key, number in busy.counted.items():
        sent.setdefault(key[:2], Counter())[key] = number
    rate, errors, p95 = (
        {
            (series["metric"]["method"], series["metric"]["endpoint"]): float(series["value"][1])
            for series in busy.result(f"Endpoints (table) {ref}")
        }
        for ref in "ABC"
    )
    seconds = busy.ended - busy.started + 0.5
    counted = {route: keys.total() / seconds for route, keys in sent.items()}
    assert rate == pytest.approx(counted, rel=TOLERANCE)
    failed = {route: error_ratio(keys) for route, keys in sent.items()}
    assert errors == pytest.approx(failed, rel=TOLERANCE)
    assert max(p95, key=p95.__getitem__) == ("GET", "/extra/slow")


def test_first_error_of_a_route_is_an_increase(idle: Observed) -> None:
    idle.prometheus.wait_for_scrapes(1)  # a series that is created during a scrape has no 0
    idle.send("/extra/raise", ("GET", "/extra/raise", 500))
    failures = 'http_requests_total{endpoint="/extra/raise",status="500"}'
    scrape = wait_until(lambda: idle.prometheus.number(f"timestamp({failures})"), "a scrape")
    # At the time of a sample, nothing is extrapolated beyond it.
    assert idle.prometheus.number(f"increase({failures}[1m])", time=scrape) == 1


def test_created_timestamps_are_not_series(idle: Observed) -> None:
    idle.prometheus.wait_for_scrapes(1)
    assert not idle.prometheus.series('{__name__=~".+_created"}')


# --- Objectives --------------------------------------------------------------------------------


def bad_ratio(slo: str, observed: Observed) -> float:
    """Return the ratio of bad requests, of all requests to routes since the start of the service."""
    routed = Counter(observed.everything)
    del routed["GET", "unmatched", 404]
    bad = {"Availability": error_ratio(routed), "Latency": observed.slow / routed.total()}
    return bad[slo]


@each_slo
def test_objective_is_1_minus_the_budget(busy: Observed, slo: str, budget: float) -> None:
    assert busy.value(f"{SLO} {slo} objective (stat) A") == pytest.approx(1 - budget)


@each_slo
def test_burn_rate_is_the_ratio_of_bad_requests_divided_by_the_budget(
    busy: Observed, slo: str, budget: float
) -> None:
    expected = pytest.approx(bad_ratio(slo, busy) / budget, rel=TOLERANCE)
    assert busy.value(f"{SLO} {slo} burn rate now (stat) A") == expected
    assert busy.value(f"{SLO} {slo} burn rate (timeseries) A") == expected


@each_slo
def test_remaining_budget_is_what_bad_requests_did_not_use_up(
    busy: Observed, slo: str, budget: float
) -> None:
    good = busy.value(f"{SLO} {slo}, 30 days (stat) A")
    # The long windows average over the time since the start, in which the ratio changed.
    assert 0 < 1 - good < 3 * bad_ratio(slo, busy)
    left = pytest.approx(1 - (1 - good) / budget)
    assert busy.value(f"{SLO} {slo} error budget left (stat) A") == left
    assert busy.value(f"{SLO} {slo} error budget left (timeseries) A") == left


def test_table_of_objectives_shows_which_endpoints_fail_and_are_slow(
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
    assert {endpoint for endpoint, ratio in good.items() if ratio < 0.995} == {"/extra/raise"}
    assert good["/extra/raise"] == pytest.approx(0, abs=0.05)  # a scrape may come between two rules
    assert min(fast, key=fast.__getitem__) == "/extra/slow"
    assert fast["/extra/slow"] < 0.95
