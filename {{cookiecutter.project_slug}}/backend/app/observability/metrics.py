"""HTTP server metrics and the ``GET /metrics`` response."""

import asyncio
import hmac
import multiprocessing
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

METRICS_PATH = "/metrics"
UNMATCHED = "unmatched"  # endpoint of requests with an unknown path
OTHER_METHOD = "_OTHER"  # from OpenTelemetry's http.request.method
METHODS = {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
# Seconds; recommended by OpenTelemetry. The latency objective requires the bucket of 0.5 s.
# https://opentelemetry.io/docs/specs/semconv/http/http-metrics/#metric-httpserverrequestduration
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
# Multiprocess mode has no exemplars: https://prometheus.github.io/client_python/multiprocess/
MULTIPROC_DIR = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
if MULTIPROC_DIR:
    Path(MULTIPROC_DIR).mkdir(parents=True, exist_ok=True)
# Label values are bounded: routes, known methods, status codes.
REQUESTS = Counter("http_requests", "Requests answered.", ("method", "endpoint", "status"))
_DOC = "Time from a request's start to the last byte of its response."
DURATION = Histogram("http_request_duration_seconds", _DOC, ("method", "endpoint"), buckets=BUCKETS)
ACTIVE = Gauge("active_requests", "Requests being answered now.", multiprocess_mode="livesum")
SPANS = Counter("trace_spans", "Sampled spans that ended.")


@cache
def series(method: str, endpoint: str, status: int) -> tuple[Counter, Histogram]:
    """Return the request counter and the duration histogram for these labels."""
    return REQUESTS.labels(method, endpoint, status), DURATION.labels(method, endpoint)


async def answer_scrape(request: Request, token: str) -> Response:
    """Return all metrics, as OpenMetrics with exemplars if the scraper accepts that format.

    Unless ``token`` is empty, the request must send it as ``Authorization: Bearer`` (RFC 6750).
    """
    header = request.headers.get("authorization", "").encode("latin-1")
    if token and not hmac.compare_digest(header, f"Bearer {token}".encode()):
        return PlainTextResponse("Bearer token needed", 401, {"WWW-Authenticate": "Bearer"})
    registry = REGISTRY
    if MULTIPROC_DIR:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    # Not in FastAPI's thread pool, which may be exhausted.
    body = await asyncio.to_thread(_render, encode, registry)
    return Response(body, headers={"content-type": content_type})


def _render(encode: Callable[[CollectorRegistry], bytes], registry: CollectorRegistry) -> bytes:
    """Encode with a thread switch interval of 0.2 ms, not 5 ms, so that requests wait less."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0002)  # seconds
    try:
        return encode(registry)
    finally:
        sys.setswitchinterval(interval)


def remove_dead_workers() -> None:
    """Remove the series of ``active_requests`` of workers that were killed."""
    for file in Path(MULTIPROC_DIR).glob("gauge_live*_*.db") if MULTIPROC_DIR else ():
        pid = int(file.stem.rpartition("_")[2])  # gauge_livesum_42.db
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid)  # type: ignore[no-untyped-call]


def notices() -> set[str]:
    """Return a warning if several workers may run without sharing their metrics."""
    second = multiprocessing.current_process().name == "SpawnProcess-2"  # from uvicorn --workers
    several = second and "--reload" not in sys.argv
    if "gunicorn" in sys.modules:
        children = Path(f"/proc/{os.getppid()}/task/{os.getppid()}/children")  # only on Linux
        several = not children.exists() or len(children.read_text().split()) > 1
    advice = "run one worker per container, or set PROMETHEUS_MULTIPROC_DIR to an empty folder"
    notice = f"/metrics has the requests of one worker only: {advice}"
    return {notice} if several and not MULTIPROC_DIR else set()
