"""Spans of the real service: TraceQL queries of real Tempo, PromQL queries of its metrics, and links.

Tempo writes the metrics that it generates from spans to real Prometheus.
"""

import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.backend import ITEMS
from tests.support.dashboards import GENERATED, Query, datasources, queries
from tests.support.loki_and_tempo import Tempo, attributes, running_tempo
from tests.support.observed_service import (
    ITEM,
    RATE_WINDOW,
    TOLERANCE,
    Observed,
    make_requests,
    make_slow_requests,
    observed_service,
)
from tests.support.ports import free_port
from tests.support.waiting import wait_until

QUERIES = {query.name: query for query in queries()}
PROMQL = [query for query in QUERIES.values() if query.from_spans]
TRACEQL = [query for query in QUERIES.values() if query.language == "traceql"]
REQUESTS = QUERIES["trace-explorer / Requests (table) A"]
RECENT = QUERIES["backend-service / Recent traces (table) A"]
HEAT_MAP = QUERIES["trace-explorer / Latency of requests (heatmap) A"]
LATENCY = QUERIES["backend-service / Latency (timeseries) C"]
SERVER_CALLS = 'sum(traces_spanmetrics_calls_total{span_kind="SPAN_KIND_SERVER"})'
EDGES = "traces_service_graph_request_total"


@dataclass
class Traced:
    """A service, and the Tempo that has its spans."""

    observed: Observed
    tempo: Tempo

    def statuses(self, **values: str) -> Counter[int]:
        """Return the number of requests of each status in the table of the dashboard."""
        spans = self.tempo.search(REQUESTS.rendered(**values))
        return Counter(int(attributes(span)["http.response.status_code"]) for span in spans)

    def sent(self, endpoint: str | None = None) -> Counter[int]:
        """Return the number of requests of each status that were sent."""
        found: Counter[int] = Counter()
        for (_, each, status), number in self.observed.everything.items():
            if endpoint in (None, each):
                found[status] += number
        return found

    def routes(self, panel: str, ref: str) -> dict[str, float]:
        """Return the value of each route in a table."""
        found = self.observed.result(f"trace-explorer / {panel} (table) {ref}")
        return {series["metric"]["span_name"]: float(series["value"][1]) for series in found}


def wait_for_spans(observed: Observed) -> None:
    """Wait until Tempo has written the metrics of all requests, after about 15 seconds."""
    sent = observed.everything.total()
    wait_until(lambda: observed.prometheus.number(SERVER_CALLS) == sent, "all spans", timeout=60)


@pytest.fixture(scope="module")
def traced(yes_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    """Return a service after a mix of requests, with all its spans in Tempo."""
    folder = tmp_path_factory.mktemp("traced")
    otlp_port, port = free_port(), free_port()
    endpoint = f"http://127.0.0.1:{otlp_port}"
    with (
        running_tempo(folder, otlp_port, port) as tempo,
        observed_service(yes_project, folder, endpoint, port) as observed,
    ):
        prometheus = observed.prometheus
        # The first value of a counter is not an increase, and its exemplars are lost.
        make_requests(observed, 1)
        wait_for_spans(observed)
        observed.started = time.time() - 3  # includes a sample before the requests
        make_requests(observed, 8)
        make_slow_requests(observed, 5)
        wait_for_spans(observed)
        sent = observed.everything.total()
        edges = f"sum({EDGES})"
        wait_until(lambda: prometheus.number(edges) == sent, "the service graph", timeout=60)
        prometheus.wait_for_scrapes(4)
        observed.ended = time.time()
        yield Traced(observed, tempo)


# --- TraceQL -----------------------------------------------------------------------------------


@pytest.mark.parametrize("query", TRACEQL, ids=lambda query: query.name)
def test_query_finds_traces(traced: Traced, query: Query) -> None:
    assert traced.tempo.search(query.rendered())


def test_table_lists_all_requests_with_their_status(traced: Traced) -> None:
    assert traced.statuses() == traced.sent()


@pytest.mark.parametrize("endpoint", [ITEMS, ITEM])
def test_table_lists_only_the_requests_of_the_selected_endpoint(
    traced: Traced, endpoint: str
) -> None:
    assert traced.statuses(endpoint=endpoint) == traced.sent(endpoint)


@pytest.mark.parametrize("endpoint", [ITEMS, ITEMS.removeprefix("/api/v1")])
def test_recent_traces_match_the_whole_endpoint(traced: Traced, endpoint: str) -> None:
    found = traced.tempo.search(RECENT.rendered(endpoint=endpoint))
    assert len(found) == traced.sent(endpoint).total()


def test_two_endpoints_can_be_selected(traced: Traced) -> None:
    both = traced.sent(ITEMS) + traced.sent(ITEM)
    assert traced.statuses(endpoint=f"{ITEMS}|{ITEM}") == both


@pytest.mark.parametrize(
    ("show", "expected"), [("status = error", {500: 2}), ("duration > 1500ms", {200: 5})]
)
def test_failed_and_slow_requests_can_be_selected(
    traced: Traced, show: str, expected: dict[int, int]
) -> None:
    assert traced.statuses(show=show) == expected


def test_traceql_condition_can_be_added(traced: Traced) -> None:
    expected = {404: traced.sent()[404]}
    assert traced.statuses(condition="span.http.response.status_code = 404") == expected


# --- PromQL ------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", PROMQL, ids=lambda query: query.name)
def test_query_returns_numbers_after_requests(traced: Traced, query: Query) -> None:
    found = traced.observed.samples(query)
    assert found
    assert all(map(math.isfinite, found))


@pytest.mark.parametrize("metric", GENERATED)
def test_metric_has_the_documented_labels(traced: Traced, metric: str) -> None:
    series = traced.observed.prometheus.series(metric)
    found = [each["metric"].keys() - {"__name__"} for each in series]
    assert set().union(*found) == GENERATED[metric]


def test_failing_routes_are_those_with_errors(traced: Traced) -> None:
    failed = traced.routes("Failing routes", "A")
    assert failed == {"GET /extra/raise": pytest.approx(1, rel=2 * TOLERANCE)}
    assert traced.routes("Failing routes", "B") == {"GET /extra/raise": pytest.approx(1)}


def test_slow_route_has_the_highest_latency_and_all_routes_are_listed(traced: Traced) -> None:
    median, p95 = (traced.routes("Slowest routes", ref) for ref in "AB")
    assert max(p95, key=p95.__getitem__) == "GET /extra/slow"
    requested = {f"{key[0]} {key[1]}" for key in traced.observed.everything}
    assert median.keys() == p95.keys() == requested - {"GET unmatched"}


def test_span_name_of_a_route_ends_with_its_endpoint(traced: Traced) -> None:
    found = traced.observed.result("trace-explorer / Slowest routes (table) B")
    assert found
    for series in found:
        assert series["metric"]["span_name"].endswith(f" {series['metric']['endpoint']}")


def test_service_graph_has_clients_and_calls_between_services(traced: Traced) -> None:
    series = traced.observed.prometheus.series(EDGES)
    calls = {
        (each["metric"]["client"], each["metric"]["server"]): float(each["value"][1])
        for each in series
    }
    sent = traced.observed.everything.total()
    assert calls == {("backend", "backend"): 2, ("user", "backend"): sent - 2}


# --- Links -------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", [LATENCY, HEAT_MAP], ids=lambda query: query.name)
def test_exemplars_link_to_traces_in_tempo(traced: Traced, query: Query) -> None:
    observed = traced.observed
    (prometheus,) = (source for source in datasources() if source["type"] == "prometheus")
    known = {link["name"] for link in prometheus["jsonData"]["exemplarTraceIdDestinations"]}
    found = observed.prometheus.get(
        "query_exemplars",
        query=query.rendered(__rate_interval=RATE_WINDOW),
        start=observed.started,
        end=observed.ended,
    )
    exemplars = [exemplar["labels"] for each in found for exemplar in each["exemplars"]]
    assert exemplars
    for labels in exemplars:
        (trace_id,) = (value for label, value in labels.items() if label in known)
        assert traced.tempo.spans(trace_id)


def test_span_links_to_the_metrics_of_its_route_and_the_logs_of_its_service(
    traced: Traced,
) -> None:
    (settings,) = (source["jsonData"] for source in datasources() if source["type"] == "tempo")
    (failed, _) = traced.tempo.search("{ status = error }")
    (span,) = traced.tempo.spans(failed["traceID"])
    values = attributes(span) | attributes(span["resource"])
    to_metrics, to_logs = (
        {tag["value"]: values[tag["key"]] for tag in settings[link]["tags"]}
        for link in ("tracesToMetrics", "tracesToLogsV2")
    )
    assert to_metrics == {"method": "GET", "endpoint": "/extra/raise"}
    assert to_logs == {"service": "backend"}
    tags = ", ".join(f'{label}="{value}"' for label, value in to_metrics.items())
    links = [query for name, query in QUERIES.items() if "tracesToMetrics" in name]
    assert len(links) == 2
    for link in links:
        text = link.rendered(__tags=tags, __rate_interval=traced.observed.window)
        assert traced.observed.prometheus.series(text, time=traced.observed.ended)
