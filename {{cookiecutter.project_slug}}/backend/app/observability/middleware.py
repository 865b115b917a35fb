"""The outermost ASGI middleware: metrics, access log and error log of each request."""

import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter
from typing import Any

from fastapi import FastAPI
from opentelemetry import trace
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect
from uvicorn.protocols.utils import ClientDisconnected

from app.observability import logs, metrics, traces
from app.settings import settings

# FastAPI stores the state of its server span under this key of the ASGI scope. Only this state has
# the full route. It has no public name: https://github.com/fastapi/fastapi/blob/0.165.0/fastapi/telemetry/_asgi.py
TELEMETRY = "fastapi.telemetry"
CHECK = "observability.check"  # scope key of the request that `require_server_spans` sends
CLIENT_CLOSED = 499  # as in nginx: the client disconnected before the response
PATH_MAX = 512  # characters of the path in a log line


def is_unobserved(scope: Scope) -> bool:
    """Return whether a request is a health check or a scrape, which are not counted or traced."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    return path in (metrics.METRICS_PATH, settings.health_path)


class Observer:
    """Counts, times and logs each HTTP request inside its server span."""

    def __init__(self, app: ASGIApp, token: str, on_startup: Callable[[], Awaitable[None]]) -> None:
        # Named `inner`, because FastAPI walks the chain of `.app` on each request.
        self.inner, self._token, self._on_startup = app, token, on_startup

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.inner(scope, receive, partial(self._send_lifespan, send))
        elif scope["type"] == "websocket":
            await self._forward_websocket(scope, receive, send)
        elif CHECK in scope:
            scope[CHECK].append(scope.get(TELEMETRY))
            await Response(status_code=204)(scope, receive, send)
        elif not is_unobserved(scope):
            await self._observe(scope, receive, send)
        elif scope["path"].endswith(metrics.METRICS_PATH) and scope["method"] in ("GET", "HEAD"):
            response = await metrics.answer_scrape(Request(scope), self._token)
            await response(scope, receive, send)
        else:
            await self.inner(scope, receive, send)

    async def _send_lifespan(self, send: Send, message: Message) -> None:
        if message["type"] == "lifespan.startup.complete":
            await self._on_startup()
            # Exclude the objects created at start-up from garbage collection, which would
            # pause all requests for tens of milliseconds.
            gc.collect()
            gc.freeze()
        elif message["type"] == "lifespan.shutdown.complete":
            gc.unfreeze()
            await traces.shut_down()
        await send(message)

    async def _forward_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.inner(scope, receive, send)
        except WebSocketDisconnect:
            return  # the server would log the disconnect as an error
        except ClientDisconnected:  # disconnected before accept; uvicorn handles it
            raise
        except Exception as error:
            traces.record_error(error)
            logs.write_error("WS", scope["path"][:PATH_MAX], error)
            raise

    async def _observe(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter()
        method = scope["method"] if scope["method"] in metrics.METHODS else metrics.OTHER_METHOD
        path, telemetry, peer = scope["path"][:PATH_MAX], scope.get(TELEMETRY), scope.get("client")
        client = peer[0][:64] if peer else None  # limited: may be from a proxy header
        context = trace.get_current_span().get_span_context()
        ids = logs.trace_ids(context)
        status, ended = 0, False  # status 0: no response started

        def end() -> None:
            nonlocal ended
            if ended:
                return
            ended, seconds = True, perf_counter() - started
            endpoint = getattr(telemetry, "route", None) or metrics.UNMATCHED
            requests, duration = metrics.series(method, endpoint, status)
            requests.inc()
            duration.observe(seconds, ids if context.trace_flags.sampled else None)
            metrics.ACTIVE.dec()
            request = {"method": method, "path": path, "endpoint": endpoint, "client": client}
            result = {"status": status, "duration_ms": round(seconds * 1000, 3)}
            logs.write_access(f"{method} {path} {status}", request | result)

        async def observed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                # The exception that caused this response: its handler runs inside `except`.
                error = sys.exc_info()[1]
                disconnected = isinstance(error, ClientDisconnect)
                status = CLIENT_CLOSED if disconnected else message["status"]
                if error and status >= 500:
                    traces.record_error(error)
                message = {**message, "status": status}
                if ids:  # for users' bug reports
                    header = (b"x-trace-id", ids["trace_id"].encode())
                    message["headers"] = [*message.get("headers", ()), header]
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                end()  # background tasks are not part of the request

        metrics.ACTIVE.inc()
        try:
            await self.inner(scope, receive, observed_send)
        except ClientDisconnect:
            pass  # no client to respond to
        except (Exception, asyncio.CancelledError) as error:
            logs.write_error(method, path, error)
            if not status:
                response = await answer_error(Request(scope), error)
                await response(scope, receive, observed_send)
            elif not ended:  # the response is incomplete
                status = 500
                traces.record_error(error)
            raise
        finally:
            status = status or 500  # the server sends 500 if the application sends nothing
            end()


async def answer_error(_request: Request, _error: BaseException) -> Response:
    """Respond to an unhandled exception with the trace id and without internal details."""
    trace_id = logs.trace_ids(trace.get_current_span().get_span_context()).get("trace_id")
    return JSONResponse({"detail": "Internal Server Error", "trace_id": trace_id}, 500)


async def require_server_spans(app: FastAPI) -> None:
    """Send a request in process; raise RuntimeError if FastAPI creates no server span for it."""
    unsampled = (b"traceparent", b"00-%b-%b-00" % (b"1" * 32, b"1" * 16))
    found: list[Any] = []

    async def ignore(*_: Any) -> Any: ...

    scope = {"type": "http", "method": "GET", "path": "/check", "raw_path": b"/check", CHECK: found}
    scope |= {"http_version": "1.1", "scheme": "http", "query_string": b"", "headers": [unsampled]}
    await app(scope, ignore, ignore)
    layers = [app.middleware_stack]
    while (layer := getattr(layers[-1], "app", getattr(layers[-1], "inner", None))) is not None:
        layers.append(layer)
    contrib = [each for each in layers if type(each).__name__ == "OpenTelemetryMiddleware"]
    if contrib or not all(hasattr(telemetry, "route") for telemetry in found or [None]):
        raise RuntimeError(
            "app.observability: FastAPI creates no server spans, so the routes are unknown. Remove"
            " FastAPIInstrumentor and telemetry={'tracing': False}, or downgrade FastAPI"
        )
