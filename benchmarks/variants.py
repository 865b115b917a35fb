"""The applications that are compared: one small service, observed in different ways."""

import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request, Response
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased

BATCH_SIZE = 64  # as in the overlay


class NoExporter(SpanExporter):
    """Takes spans and drops them, so that only making them is measured."""

    def export(self, spans: object) -> SpanExportResult:
        """Report success."""
        return SpanExportResult.SUCCESS


def service(routes: int = 10, nesting: int = 1) -> FastAPI:
    """Return a service whose last route, of this many, is nested so deep in routers."""
    app = FastAPI()
    router = APIRouter()

    async def read_item(item_id: int) -> dict[str, int]:
        return {"item_id": item_id}

    for number in range(routes):
        router.add_api_route(f"/r{number}/{{item_id}}", read_item)
    for level in range(nesting):
        outer = APIRouter()
        outer.include_router(router, prefix=f"/level{level}")
        router = outer
    app.include_router(router)
    return app


def path(routes: int = 10, nesting: int = 1) -> str:
    """Return the path of the last route."""
    prefix = "".join(f"/level{level}" for level in reversed(range(nesting)))
    return f"{prefix}/r{routes - 1}/7"


def configure_tracing() -> None:
    """Trace every request whose caller does not say otherwise."""
    provider = TracerProvider(sampler=ParentBased(ALWAYS_ON))
    processor = BatchSpanProcessor(NoExporter(), max_export_batch_size=BATCH_SIZE)
    provider.add_span_processor(processor)
    trace.set_tracer_provider(provider)


def observe(app: FastAPI, log_level: str) -> FastAPI:
    """Add the template's own extension, which is on the path of this process."""
    os.environ["APP_LOG_LEVEL"] = log_level
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 (for the life of the process)
    from app.observability import setup_observability

    return setup_observability(app)


def bare(app: FastAPI) -> FastAPI:
    """Add nothing."""
    return app


def ours_metrics(app: FastAPI) -> FastAPI:
    """Count and time only: no trace is kept, no line written."""
    return observe(app, "WARNING")


def ours(app: FastAPI) -> FastAPI:
    """Count, time, trace and log."""
    configure_tracing()
    return observe(app, "INFO")


def instrumentator(app: FastAPI) -> FastAPI:
    """Add prometheus-fastapi-instrumentator."""
    from prometheus_fastapi_instrumentator import Instrumentator

    Instrumentator().instrument(app)
    return app


def starlette_exporter(app: FastAPI) -> FastAPI:
    """Add starlette_exporter, labelled by route."""
    from starlette_exporter import PrometheusMiddleware

    app.add_middleware(PrometheusMiddleware, group_paths=True)
    return app


def tutorial(app: FastAPI) -> FastAPI:
    """Add a BaseHTTPMiddleware, as tutorials do."""
    from prometheus_client import Counter, Histogram

    requests = Counter("http_requests", "Requests.", ["method", "endpoint", "status"])
    duration = Histogram("http_request_duration_seconds", "Time.", ["method", "endpoint"])

    @app.middleware("http")
    async def measure(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        started = time.perf_counter()
        response = await call_next(request)
        endpoint = request.url.path
        duration.labels(request.method, endpoint).observe(time.perf_counter() - started)
        requests.labels(request.method, endpoint, response.status_code).inc()
        return response

    return app


def contrib(app: FastAPI) -> FastAPI:
    """Trace with the FastAPI instrumentation of opentelemetry-python-contrib; no metrics, no log."""
    configure_tracing()
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    FastAPIInstrumentor.instrument_app(app)
    return app


def contrib_complete(app: FastAPI) -> FastAPI:
    """Trace with contrib, count with the instrumentator, log with the standard library."""
    logger = logging.getLogger("access")
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.StreamHandler(Path(os.devnull).open("w")))  # noqa: SIM115

    @app.middleware("http")
    async def log(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await call_next(request)
        logger.info("%s %s %d", request.method, request.url.path, response.status_code)
        return response

    return contrib(instrumentator(app))


METRICS = [bare, ours_metrics, instrumentator, starlette_exporter, tutorial]
COMPLETE = [bare, ours, contrib, contrib_complete]
VARIANTS: dict[str, Callable[[FastAPI], FastAPI]] = {
    variant.__name__: variant for variant in [*METRICS, *COMPLETE]
}
