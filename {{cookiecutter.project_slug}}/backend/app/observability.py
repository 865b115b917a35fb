"""Metrics, traces and logs that share one trace id, added to the finished application.

Switched on by ``APP_EXTENSIONS=app.observability:setup_observability`` under
``opentelemetry-instrument``, which configures the tracer provider from ``OTEL_*`` before the
application is imported. FastAPI itself then makes one server span per request.
"""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Request, Response
from fastapi._body_limit import get_body_limit_error
from fastapi.responses import JSONResponse
from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace
from prometheus_client import REGISTRY
from pydantic import BeforeValidator, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect
from uvicorn.protocols.utils import ClientDisconnected

from app.observability_logs import (
    configure_logging,
    log_access,
    log_exception,
    logs_access,
    trace_ids,
)
from app.observability_metrics import (
    UNMATCHED,
    RequestMetrics,
    bearer,
    known_method,
    read_metrics,
    request_metrics,
)
from app.observability_redaction import SECRET_NAMES, Redactor, secret_names
from app.observability_traces import (
    TELEMETRY_KEY,
    Telemetry,
    check_sampler,
    record_error,
    set_up_provider,
    with_flush,
)
from app.settings import VARIABLES, settings

METRICS_PATH = "/metrics"
CLIENT_CLOSED = 499  # as nginx has it: the client went away before it was answered
LOGGED_PATH_MAX = 512  # characters; a caller decides how long a path is
TRACE_HEADER = "x-trace-id"

Level = Literal["NOTSET", "DEBUG", "INFO", "WARN", "WARNING", "ERROR", "FATAL", "CRITICAL"]


class ObservabilitySettings(BaseSettings):
    """What can be told from outside, by variables that start with ``APP_``.

    Raises:
        pydantic.ValidationError: a variable has a value that is not allowed; the error names both.
    """

    model_config = VARIABLES

    log_level: Annotated[Level, BeforeValidator(str.upper)] = "INFO"
    print_spans: bool = False  # one JSON line per span on stdout, for work without a trace store
    metrics_token: SecretStr = SecretStr("")  # asked for by GET /metrics, unless it is empty
    # Requests per second that are traced because their callers say so.
    traced_callers: Annotated[float, Field(ge=0)] = 10
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
    check_sampler()
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
    allowed = [Depends(bearer(options.metrics_token))]
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
        if telemetry is None:
            await self._next(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await self._pass_websocket(scope, receive, send)
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
            # Nobody is left to be answered, but the server would report an error of the service.
            if not status:
                await Response(status_code=CLIENT_CLOSED)(scope, receive, observed_send)
        except Exception as error:
            if get_body_limit_error(error):  # FastAPI answers outside of this
                status = 413
                raise
            status = 500  # a response that breaks off is a failure, whatever its first line said
            self._report_error(known_method(scope["method"]), scope, error)
            raise
        finally:
            end()

    async def _pass_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._next(scope, receive, send)
        except WebSocketDisconnect:  # as above
            return
        except ClientDisconnected:  # before it was accepted; the server knows
            raise
        except Exception as error:
            self._report_error("WS", scope, error)
            raise

    def _report_error(self, method: str, scope: Scope, error: Exception) -> None:
        record_error(error, self.redactor)
        log_exception(method, scope["path"][:LOGGED_PATH_MAX], error)

    def _report(
        self,
        scope: Scope,
        endpoint: str,
        status: int,
        seconds: float,
        ids: dict[str, str],
        sampled: bool,
    ) -> None:
        method = known_method(scope["method"])
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
