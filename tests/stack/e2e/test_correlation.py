"""Links between the signals of one request: metric, trace, log lines, and back to the metric.

The queries are those of Grafana's provisioned data sources, with their variables replaced.
"""

import time
import uuid
from typing import Any

import pytest
import requests

from tests.support.backend import API, ITEMS
from tests.support.compose_stack import FRESH_SECONDS, Stack
from tests.support.dashboards import Query, queries
from tests.support.waiting import wait_until

UPSTREAM = f"{API}/upstream/items/{{item_id}}"
SPANS = [f"GET {UPSTREAM}", "GET", f"GET {ITEMS}/{{item_id}}"]
LOGS = ("loki", "promtail", "docker-proxy")


def link(name: str) -> Query:
    """Return the query of a link between data sources."""
    (query,) = (query for query in queries() if query.name == f"datasources / {name}")
    return query


@pytest.fixture(scope="module")
def trace_id(stack: Stack) -> str:
    """Create an item, request it through the upstream route, and return that request's trace id."""
    url = stack.url("backend")
    item = requests.post(url + ITEMS, json={"name": uuid.uuid4().hex}, timeout=10).json()
    response = requests.get(f"{url}{API}/upstream/items/{item['id']}", timeout=10)
    assert response.json() == item
    return response.headers["x-trace-id"]


def test_exemplar_links_to_its_trace(stack: Stack, trace_id: str) -> None:
    def exemplars() -> list[dict[str, Any]]:
        query = f'http_request_duration_seconds_bucket{{endpoint="{UPSTREAM}"}}'
        times = {"start": f"{time.time() - 600}", "end": f"{time.time()}"}
        series = stack.get("prometheus", "/api/v1/query_exemplars", query=query, **times)["data"]
        return [exemplar for each in series for exemplar in each["exemplars"]]

    (exemplar,) = wait_until(exemplars, "the exemplar in Prometheus", timeout=FRESH_SECONDS)
    assert exemplar["labels"]["trace_id"] == trace_id
    stack.require("tempo")
    wait_until(lambda: stack.span_names(trace_id) == SPANS, "the trace", timeout=FRESH_SECONDS)


def test_spans_of_the_trace_form_one_chain(stack: Stack, trace_id: str) -> None:
    stack.require("tempo")
    caller, call, called = wait_until(
        lambda: stack.spans(trace_id) if len(stack.spans(trace_id)) == 3 else [], "three spans"
    )
    assert "parentSpanId" not in caller
    assert call["parentSpanId"] == caller["spanId"]
    assert called["parentSpanId"] == call["spanId"]


def test_trace_links_to_its_log_lines(stack: Stack, trace_id: str) -> None:
    stack.require(*LOGS)
    logql = link("tracesToLogsV2").rendered(**{"__trace.traceId": trace_id})
    expected = {UPSTREAM, f"{ITEMS}/{{item_id}}"}

    def endpoints() -> set[str | None]:
        return {stream["stream"].get("endpoint") for stream in stack.streams(logql)}

    wait_until(lambda: expected <= endpoints(), "both log lines", timeout=FRESH_SECONDS)
    assert [line for line in stack.lines(logql) if line.startswith("{")] == []


def test_log_line_links_to_its_trace(stack: Stack, trace_id: str) -> None:
    stack.require(*LOGS, "tempo")
    logql = f'{{service="backend"}} | trace_id != "" |= "{UPSTREAM}"'
    streams = wait_until(lambda: stack.streams(logql), "the log line", timeout=FRESH_SECONDS)
    assert {stream["stream"]["trace_id"] for stream in streams} == {trace_id}
    found = streams[0]["stream"]["trace_id"]
    wait_until(lambda: stack.span_names(found) == SPANS, "the trace", timeout=FRESH_SECONDS)


@pytest.mark.parametrize("name", ["Request rate", "Latency p95"])
def test_trace_links_to_its_metrics(stack: Stack, trace_id: str, name: str) -> None:
    tags = f'method="GET", endpoint="{UPSTREAM}"'
    query = link(f"tracesToMetrics {name}").rendered(__tags=tags, __rate_interval="5m")
    figures = wait_until(lambda: stack.query(query), "the metric", timeout=FRESH_SECONDS)
    assert all(figure > 0 for figure in figures.values())


def test_service_graph_has_an_edge_for_the_call(stack: Stack, trace_id: str) -> None:
    stack.require("tempo")
    edge = 'traces_service_graph_request_total{client="backend",server="backend"}'
    found = wait_until(lambda: stack.query(edge), "the edge in Prometheus", timeout=90)
    assert sum(found.values()) >= 1


def test_span_metrics_are_labelled_by_route(stack: Stack, trace_id: str) -> None:
    stack.require("tempo")
    calls = f'traces_spanmetrics_calls_total{{service="backend",span_name="GET {UPSTREAM}"}}'
    found = wait_until(lambda: stack.query(calls), "span metrics in Prometheus", timeout=90)
    assert sum(found.values()) >= 1
