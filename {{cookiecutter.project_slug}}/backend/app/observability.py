"""Metrics, traces and logs that share one trace id, added to the finished application.

Switched on by ``APP_EXTENSIONS=app.observability:setup_observability`` under
``opentelemetry-instrument``, which configures the tracer provider from ``OTEL_*`` before the
application is imported. FastAPI itself then makes one server span per request.
"""

import asyncio
import gc
import hmac
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from time import perf_counter
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace
from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
)
from prometheus_client.exposition import choose_encoder
from pydantic import SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

from app.observability_logs import (
    configure_logging,
    log_access,
    log_exception,
    logs_access,
    trace_ids,
)
from app.observability_redaction import SECRET_NAMES, Redactor, secret_names
from app.observability_traces import (
    TELEMETRY_KEY,
    Telemetry,
    record_error,
    set_up_provider,
    with_flush,
)
from app.settings import settings

METRICS_PATH = "/metrics"
UNMATCHED = "unmatched"  # endpoint of every request that no route took
OTHER_METHOD = "_OTHER"  # as in OpenTelemetry's http.request.method
CLIENT_CLOSED = 499  # as nginx has it: the client went away before it was answered
METHODS = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)
# Seconds; OpenTelemetry's advice for HTTP servers, which has the 500 ms of the latency objective.
# https://opentelemetry.io/docs/specs/semconv/http/http-metrics/#metric-httpserverrequestduration
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
LOGGED_PATH_MAX = 512  # characters; a caller decides how long a path is
TRACE_HEADER = "x-trace-id"
TURN_SECONDS = 0.0002  # that a scrape runs while a request waits


class ObservabilitySettings(BaseSettings):
    """What can be told from outside, by variables that start with ``APP_``."""

    model_config = SettingsConfigDict(env_prefix="APP_")

    log_level: str = "INFO"
    print_spans: bool = False  # one JSON line per span on stdout, for work without a trace store
    metrics_token: SecretStr = SecretStr("")  # asked for by GET /metrics, unless it is empty
    traced_callers: float = 10  # requests per second that are traced because their callers say so
    redacted_parameters: Annotated[tuple[str, ...], NoDecode] = SECRET_NAMES

    @field_validator("redacted_parameters", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        return secret_names(value) if isinstance(value, str) else value


def setup_observability(app: FastAPI) -> FastAPI:
    """Add metrics, tracing, JSON logs and ``GET /metrics`` to ``app``.

    Args:
        app: The application, not yet started.

    Returns:
        The same application.
    """
    options = ObservabilitySettings()
    redactor = Redactor(options.redacted_parameters)
    configure_logging(options.log_level, redactor)
    provider = set_up_provider(redactor, options.traced_callers, options.print_spans)
    unobserved = {METRICS_PATH, settings.health_path}
    telemetry = TelemetryConfig(
        tracer_provider=provider,
        operation_spans=False,
        metrics=False,
        logs=False,
        exclude=lambda scope: scope["path"].removeprefix(scope.get("root_path", "")) in unobserved,
    )
    # FastAPI takes these as constructor arguments only, and this application is already made.
    app._telemetry.update(telemetry)
    app._native_telemetry = Telemetry(app._telemetry, provider)
    if not {500, Exception} & app.exception_handlers.keys():  # the application's own stays
        app.exception_handlers[Exception] = answer_error
    app.add_middleware(RequestObserver, metrics=request_metrics(REGISTRY), redactor=redactor)
    allowed = [Depends(_bearer(options.metrics_token))]
    app.add_api_route(METRICS_PATH, read_metrics, include_in_schema=False, dependencies=allowed)
    lifespan = with_flush(app.router.lifespan_context, provider)
    app.router.lifespan_context = _with_short_collections(lifespan)
    return app


def _with_short_collections(lifespan: Lifespan[FastAPI]) -> Lifespan[FastAPI]:
    """Return ``lifespan`` with all objects of its start left out of the search for garbage.

    Every ten thousand requests or so that search stops the process. Through the modules of
    application and instrumentation, none of which ever ends, it takes tens of milliseconds.
    https://docs.python.org/3/library/gc.html#gc.freeze
    """

    @asynccontextmanager
    async def frozen_lifespan(app: FastAPI) -> AsyncIterator[Any]:
        async with lifespan(app) as state:
            gc.collect()
            gc.freeze()
            try:
                yield state
            finally:
                gc.unfreeze()

    return frozen_lifespan


# --- Metrics ---------------------------------------------------------------------------------


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


def _bearer(token: SecretStr) -> Callable[[Request], Awaitable[None]]:
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


class RequestObserver:
    """ASGI middleware: counts, times and logs each HTTP request inside its span.

    FastAPI puts what it knows of a traced request into the scope, the full route template among
    it; a request without that is one that setup_observability excluded, and passes untouched.
    """

    def __init__(self, app: ASGIApp, metrics: RequestMetrics, redactor: Redactor) -> None:
        # Not as `app`: for each request FastAPI walks down the middleware by that name, to find
        # another instrumentation, for a fifth of what this one costs.
        self._next = app
        self.metrics = metrics
        self.redactor = redactor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        telemetry = scope.get(TELEMETRY_KEY)
        if scope["type"] != "http" or telemetry is None:
            await self._next(scope, receive, send)
            return
        started = perf_counter()
        context = trace.get_current_span().get_span_context()
        ids = trace_ids(context)
        sampled = context.trace_flags.sampled
        status = 0  # until a response starts
        ended = False

        def end() -> None:
            nonlocal ended
            if not ended:
                ended = True
                self.metrics.active.dec()
                # 500 is what the server answers when the application answers nothing.
                code, seconds = status or 500, perf_counter() - started
                self._report(scope, telemetry.route or UNMATCHED, code, seconds, ids, sampled)

        async def observed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = _with_trace_header(message, ids)
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                end()  # background tasks, which run later, are not part of the request's time

        self.metrics.active.inc()
        try:
            await self._next(scope, receive, observed_send)
        except ClientDisconnect:
            status = status or CLIENT_CLOSED
            raise
        except Exception as error:
            status = 500  # a response that breaks off is a failure, whatever its first line said
            record_error(error, self.redactor)
            log_exception(_known(scope["method"]), scope["path"][:LOGGED_PATH_MAX], error)
            raise
        finally:
            end()

    def _report(
        self,
        scope: Scope,
        endpoint: str,
        status: int,
        seconds: float,
        ids: dict[str, str],
        sampled: bool,
    ) -> None:
        method = _known(scope["method"])
        self.metrics.record(method, endpoint, status, seconds, ids if sampled else None)
        if not logs_access():
            return
        path = self.redactor.text(scope["path"][:LOGGED_PATH_MAX])
        client = scope.get("client")
        log_access(
            f"{method} {path} {status}",
            {
                **ids,
                "method": method,
                "path": path,
                "endpoint": endpoint,
                "status": status,
                "duration_ms": round(seconds * 1000, 3),
                "client": client[0][:64] if client else None,  # a proxy may say anything
            },
        )


def _known(method: str) -> str:
    return method if method in METHODS else OTHER_METHOD


async def answer_error(_request: Request, _error: Exception) -> Response:
    """Answer an error that nobody handled: the trace id leads to it, nothing inside is told."""
    trace_id = trace_ids(trace.get_current_span().get_span_context()).get("trace_id")
    headers = {TRACE_HEADER: trace_id} if trace_id else None
    body = {"detail": "Internal Server Error", "trace_id": trace_id}
    return JSONResponse(body, status_code=500, headers=headers)


def _with_trace_header(start: Message, ids: dict[str, str]) -> Message:
    """Return the response's first message with the trace id, for whoever reports a problem."""
    if not ids:
        return start
    header = (TRACE_HEADER.encode(), ids["trace_id"].encode())
    return {**start, "headers": [*start.get("headers", ()), header]}
