"""The variants that are compared in process: one small service with different instrumentation."""

import logging
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import FastAPI, Request, Response
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased

from tests.support.bytecode import observe

ENDPOINT = "BENCH_ENDPOINT"  # environment variable: OTLP endpoint of the span receiver


def configure_tracing() -> None:
    """Sample every request unless the caller's trace is not sampled; export batches as in the overlay."""
    provider = TracerProvider(sampler=ParentBased(ALWAYS_ON))
    exporter = OTLPSpanExporter(endpoint=os.environ[ENDPOINT], insecure=True)
    batches = BatchSpanProcessor(exporter, schedule_delay_millis=500, max_export_batch_size=64)
    provider.add_span_processor(batches)
    trace.set_tracer_provider(provider)


def baseline(app: FastAPI) -> FastAPI:
    """No instrumentation."""
    return app


def ours_metrics(app: FastAPI) -> FastAPI:
    """Metrics only."""
    return observe(app, "WARNING")


def ours_no_log(app: FastAPI) -> FastAPI:
    """Metrics and traces."""
    configure_tracing()
    return observe(app, "WARNING")


def ours(app: FastAPI) -> FastAPI:
    """Metrics, traces and access log."""
    configure_tracing()
    return observe(app, "INFO")


def instrumentator(app: FastAPI) -> FastAPI:
    """Metrics by prometheus-fastapi-instrumentator."""
    from prometheus_fastapi_instrumentator import Instrumentator

    Instrumentator().instrument(app)
    return app


def starlette_exporter(app: FastAPI) -> FastAPI:
    """Metrics by starlette_exporter, labelled by route."""
    from starlette_exporter import PrometheusMiddleware

    app.add_middleware(PrometheusMiddleware, group_paths=True)
    return app


def tutorial(app: FastAPI) -> FastAPI:
    """Metrics by a BaseHTTPMiddleware, as in many tutorials."""
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
    """Traces by the FastAPI instrumentation of opentelemetry-python-contrib; no metrics, no access log."""
    configure_tracing()
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    FastAPIInstrumentor.instrument_app(app)
    return app


def contrib_one_span(app: FastAPI) -> FastAPI:
    """Traces by contrib, without its spans for ASGI messages."""
    configure_tracing()
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    FastAPIInstrumentor.instrument_app(app, exclude_spans=["receive", "send"])
    return app


def contrib_complete(app: FastAPI) -> FastAPI:
    """Traces by contrib, metrics by the instrumentator, access log by the standard library."""
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


METRICS = [baseline, ours_metrics, instrumentator, starlette_exporter, tutorial]
COMPLETE = [baseline, ours_metrics, ours_no_log, ours, contrib, contrib_one_span, contrib_complete]
VARIANTS: dict[str, Callable[[FastAPI], FastAPI]] = {
    variant.__name__: variant for variant in [*METRICS, *COMPLETE]
}
