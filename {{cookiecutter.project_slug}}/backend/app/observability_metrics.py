"""The metrics of the HTTP server, and ``GET /metrics``; a part of ``app.observability``."""

import asyncio
import gc
import hmac
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache

from fastapi import HTTPException, Request, Response
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from pydantic import SecretStr

UNMATCHED = "unmatched"  # endpoint of every request that no route took
OTHER_METHOD = "_OTHER"  # as in OpenTelemetry's http.request.method
METHODS = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)
# Seconds; OpenTelemetry's advice for HTTP servers, which has the 500 ms of the latency objective.
# https://opentelemetry.io/docs/specs/semconv/http/http-metrics/#metric-httpserverrequestduration
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
TURN_SECONDS = 0.0002  # that a scrape runs while a request waits


def known_method(method: str) -> str:
    """Return the value of the label ``method``, for a caller may send anything."""
    return method if method in METHODS else OTHER_METHOD


@dataclass
class RequestMetrics:
    """The metrics of the HTTP server, with their label children cached.

    The caches are bounded because every label value is: routes, known methods, status codes.
    """

    requests: Counter
    duration: Histogram
    active: Gauge
    _counters: dict[tuple[str, str, int], Counter] = field(default_factory=dict)
    _histograms: dict[tuple[str, str], Histogram] = field(default_factory=dict)

    def record(
        self,
        method: str,
        endpoint: str,
        status: int,
        seconds: float,
        exemplar: dict[str, str] | None,
    ) -> None:
        """Count one request that has ended.

        Args:
            method: HTTP method, one of `METHODS` or `OTHER_METHOD`.
            endpoint: Route template, or `UNMATCHED`.
            status: Status code of the response.
            seconds: Time from the request's start to the last byte of the response.
            exemplar: Labels that lead to the trace, if it is kept.
        """
        counter = self._counters.get((method, endpoint, status))
        if counter is None:
            counter = self.requests.labels(method, endpoint, str(status))
            self._counters[method, endpoint, status] = counter
        histogram = self._histograms.get((method, endpoint))
        if histogram is None:
            histogram = self._histograms[method, endpoint] = self.duration.labels(method, endpoint)
        counter.inc()
        histogram.observe(seconds, exemplar)


@cache
def request_metrics(registry: CollectorRegistry) -> RequestMetrics:
    """Return the registry's HTTP metrics; made on the first call, as names are unique in it."""
    labels = ("method", "endpoint")
    return RequestMetrics(
        Counter("http_requests", "Requests answered.", (*labels, "status"), registry=registry),
        Histogram(
            "http_request_duration_seconds",
            "Time from a request's start to the last byte of its response.",
            labels,
            buckets=BUCKETS,
            registry=registry,
        ),
        Gauge("active_requests", "Requests being answered now.", registry=registry),
    )


@cache
def _renderer() -> ThreadPoolExecutor:
    # Not the pool of the application's requests: it may be full just when a scrape matters most.
    return ThreadPoolExecutor(1, "metrics")


def _render(encode: Callable[[CollectorRegistry], bytes]) -> bytes:
    """Encode all metrics in a way that lets requests pass, with thousands of series, too.

    By default a thread may run for 5 ms before another one gets its turn, and a request needs
    several turns. And the many objects made here, none of which stays, would have all objects of
    the process searched for garbage, for tens of milliseconds.
    """
    interval, collects = sys.getswitchinterval(), gc.isenabled()
    sys.setswitchinterval(TURN_SECONDS)
    gc.disable()
    try:
        return encode(REGISTRY)
    finally:
        sys.setswitchinterval(interval)
        if collects:
            gc.enable()


def bearer(token: SecretStr) -> Callable[[Request], Awaitable[None]]:
    """Return a check that a request has the token, if there is one, as ``Authorization: Bearer``."""
    expected = f"Bearer {token.get_secret_value()}".encode()

    async def check(request: Request) -> None:
        given = request.headers.get("authorization", "").encode("latin-1")
        if token.get_secret_value() and not hmac.compare_digest(given, expected):
            raise HTTPException(401, "Bearer token needed", {"WWW-Authenticate": "Bearer"})

    return check


async def read_metrics(request: Request) -> Response:
    """Return all metrics as OpenMetrics if the scraper accepts it, else as Prometheus text.

    Only OpenMetrics carries exemplars: https://prometheus.io/docs/specs/om/open_metrics_spec/
    """
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    body = await asyncio.get_running_loop().run_in_executor(_renderer(), _render, encode)
    return Response(body, headers={"content-type": content_type})
