"""The service that you would assemble yourself: contrib's tracing, the instrumentator, a JSON access log."""

import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request, Response
from opentelemetry import trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from prometheus_fastapi_instrumentator import Instrumentator

logger = logging.getLogger("access")


def assemble(app: FastAPI) -> FastAPI:
    """Instrument the service as each library documents it; for ``APP_EXTENSIONS``.

    FastAPI disables its own tracing when it finds contrib's middleware, so no request is traced twice.
    """
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.StreamHandler(sys.stdout))

    @app.middleware("http")
    async def log(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        started = time.perf_counter()
        response = await call_next(request)
        context = trace.get_current_span().get_span_context()
        entry = {
            "timestamp": time.time(),
            "level": "info",
            "message": f"{request.method} {request.url.path} {response.status_code}",
            "method": request.method,
            "path": request.url.path,
            "status": response.status_code,
            "duration_ms": (time.perf_counter() - started) * 1000,
            "trace_id": trace.format_trace_id(context.trace_id),
        }
        logger.info(json.dumps(entry))
        return response

    Instrumentator().instrument(app).expose(app)
    FastAPIInstrumentor.instrument_app(app)
    return app
