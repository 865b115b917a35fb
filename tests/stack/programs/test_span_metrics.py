"""PromQL queries on series that the test itself exposes: those that Tempo makes of spans, and rates of 0.

They need no Tempo. tests/stack/programs/test_traceql.py runs the same queries on the series of real Tempo.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from tests.support.dashboards import GENERATED, Query, each_query, queries
from tests.support.observed_service import Observed, gives_nothing_without_requests
from tests.support.prometheus import running_prometheus

# For 5 minutes after a request these are not 0, so that tests/stack/programs/test_promql.py would have to wait.
RATES = ("endpoint:http_requests:rate5m", "endpoint:slo_errors:rate5m")
PROMQL = [query for query in queries() if query.language == "promql"]
OF_SPANS = [query for query in PROMQL if query.from_spans]
OF_RATES = [query for query in PROMQL if RATES[0] in query.text and query.is_quotient]
FAILED = {
    "service": "backend",
    "span_name": "GET /extra/raise",
    "span_kind": "SPAN_KIND_SERVER",
    "status_code": "STATUS_CODE_ERROR",
}


@pytest.fixture(scope="module")
def spans(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """Return a Prometheus that has the series of one failed request."""
    registry = CollectorRegistry()
    requested = failed_request(registry)
    for name in RATES:
        rate = Gauge(name, name, ["endpoint", "slo"], registry=registry)
        for slo in ("availability", "latency") if name == RATES[1] else ("",):
            rate.labels("/never", slo).set(0)
    server, thread = start_http_server(0, "127.0.0.1", registry)
    target = f"127.0.0.1:{server.server_port}"
    try:
        with running_prometheus(target, tmp_path_factory.mktemp("spans")) as prometheus:
            prometheus.wait_for_scrapes(3)
            started = time.time() - 3  # so that the time has a sample before the request
            for add in requested:
                add()
            prometheus.wait_for_scrapes(3)
            yield Observed(target, prometheus, started=started, ended=time.time())
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def failed_request(registry: CollectorRegistry) -> list[Callable[[], None]]:
    """Register the metrics that Tempo makes, and return what adds a failed request to each."""
    added: list[Callable[[], None]] = []
    for name, labels in GENERATED.items():
        names = [label for label in sorted(labels - {"le"}) if not label.startswith("__")]
        values = [FAILED.get(label, label) for label in names]
        if name.endswith("_total"):
            counter = Counter(name, name, names, registry=registry)
            added.append(counter.labels(*values).inc)
        elif name.endswith("_bucket"):  # which brings its _sum
            histogram = Histogram(name.removesuffix("_bucket"), name, names, registry=registry)
            added.append(partial(histogram.labels(*values).observe, 0.2))
    return added


@pytest.fixture(scope="module")
def quiet(spans: Observed) -> Observed:
    """Return the same when the request is longer ago than the rates look back."""
    spans.prometheus.wait_for_scrapes(8)
    now = time.time()
    return replace(spans, started=now - 2, ended=now)


@each_query(OF_SPANS)
def test_query_gives_numbers_after_requests(spans: Observed, query: Query) -> None:
    found = spans.samples(query)
    assert found
    assert all(map(math.isfinite, found))


@each_query([*(query for query in OF_SPANS if query.is_quotient), *OF_RATES])
def test_quotient_or_quantile_gives_nothing_without_requests(quiet: Observed, query: Query) -> None:
    assert gives_nothing_without_requests(quiet, query)
