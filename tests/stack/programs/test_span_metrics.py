"""PromQL queries on synthetic series: those that Tempo generates from spans, and rates of 0.

test_traceql.py runs the same queries on the series of real Tempo.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from tests.support.dashboards import GENERATED, Query, each_query, queries
from tests.support.observed_service import Observed, is_empty_without_requests
from tests.support.prometheus import running_prometheus

# Exposed here because they would become 0 only 5 minutes after the last request of test_promql.py.
RATES = ("endpoint:http_requests:rate5m", "endpoint:slo_errors:rate5m")
PROMQL = [query for query in queries() if query.language == "promql"]
SPAN_QUERIES = [query for query in PROMQL if query.from_spans]
RATE_QUERIES = [query for query in PROMQL if RATES[0] in query.text and query.is_quotient]
FAILED = {
    "service": "backend",
    "span_name": "GET /extra/raise",
    "span_kind": "SPAN_KIND_SERVER",
    "status_code": "STATUS_CODE_ERROR",
}


@pytest.fixture(scope="module")
def spans(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """Run a Prometheus that scrapes the series of one failed request."""
    registry = CollectorRegistry()
    increments = failed_request(registry)
    for name in RATES:
        rate = Gauge(name, name, ["endpoint", "slo"], registry=registry)
        for slo in ("availability", "latency") if name == RATES[1] else ("",):
            rate.labels("/never", slo).set(0)
    server, thread = start_http_server(0, "127.0.0.1", registry)
    target = f"127.0.0.1:{server.server_port}"
    try:
        with running_prometheus(target, tmp_path_factory.mktemp("spans")) as prometheus:
            prometheus.wait_for_scrapes(3)
            started = time.time() - 3  # includes a sample before the request
            for increment in increments:
                increment()
            prometheus.wait_for_scrapes(3)
            yield Observed(target, prometheus, started=started, ended=time.time())
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def failed_request(registry: CollectorRegistry) -> list[Callable[[], None]]:
    """Register the metrics of Tempo, and return functions that add a failed request to each."""
    increments: list[Callable[[], None]] = []
    for name, labels in GENERATED.items():
        names = [label for label in sorted(labels - {"le"}) if not label.startswith("__")]
        values = [FAILED.get(label, label) for label in names]
        if name.endswith("_total"):
            counter = Counter(name, name, names, registry=registry)
            increments.append(counter.labels(*values).inc)
        elif name.endswith("_bucket"):  # the histogram also has the _sum
            histogram = Histogram(name.removesuffix("_bucket"), name, names, registry=registry)
            increments.append(partial(histogram.labels(*values).observe, 0.2))
    return increments


@pytest.fixture(scope="module")
def quiet(spans: Observed) -> Observed:
    """Return the series after the request has left the windows of the rates."""
    spans.prometheus.wait_for_scrapes(8)
    now = time.time()
    return replace(spans, started=now - 2, ended=now)


@each_query(SPAN_QUERIES)
def test_query_returns_numbers_after_requests(spans: Observed, query: Query) -> None:
    found = spans.samples(query)
    assert found
    assert all(map(math.isfinite, found))


@each_query([*(query for query in SPAN_QUERIES if query.is_quotient), *RATE_QUERIES])
def test_quotient_or_quantile_is_empty_without_requests(quiet: Observed, query: Query) -> None:
    assert is_empty_without_requests(quiet, query)
