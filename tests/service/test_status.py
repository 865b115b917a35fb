"""The status in metrics, logs and spans equals the status of the response."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.applications import application
from tests.support.backend import Backend
from tests.support.otlp_receiver import Receiver, attributes
from tests.support.waiting import wait_until

SERVER = Span.SPAN_KIND_SERVER

ROUTES = """
from fastapi import BackgroundTasks

class Custom(Exception): pass

@app.exception_handler(Custom)
async def handle_custom(request, error): return Response(status_code=503)

@app.get("/custom")
async def raise_custom(): raise Custom

@app.get("/unavailable")
async def raise_http(): raise HTTPException(503)

@app.get("/cancelled")
async def cancel(): raise asyncio.CancelledError

@app.get("/group")
async def raise_group(): raise ExceptionGroup("several", [ValueError("boom in a group")])

@app.post("/body")
async def read(request: Request): return len(await request.body())

@app.get("/task")
async def start(tasks: BackgroundTasks):
    def work(): raise RuntimeError("boom in a task")
    tasks.add_task(work)
    return "later"

class Middleware:
    def __init__(self, app): self.app = app
    async def __call__(self, scope, receive, send):
        if scope.get("path") == "/middleware": raise RuntimeError("boom in a middleware")
        await self.app(scope, receive, send)

app.add_middleware(Middleware)
"""
HANDLER = (
    "@app.exception_handler({0})\nasync def handle(request, error): return Response('handled', 503)"
)
APPLICATIONS = {
    "plain": {"body": ROUTES},
    "handler of Exception": {"body": ROUTES + HANDLER.format("Exception")},
    "handler of 500": {"body": ROUTES + HANDLER.format("500")},
    "debug": {"body": ROUTES, "arguments": "debug=True"},
    "limited bodies": {"body": ROUTES, "arguments": "max_body_size=5"},
}
PATHS = {  # path -> status, status with a custom handler, number of logged errors
    "/fail": (500, 503, 1),
    "/group": (500, 503, 1),
    "/middleware": (500, 503, 1),
    "/cancelled": (500, 500, 1),
    "/custom": (503, 503, 0),
    "/unavailable": (503, 503, 0),
    "/task": (200, 200, 1),
    "/nowhere": (404, 404, 0),
}


@pytest.fixture(scope="module", params=APPLICATIONS)
def backend(
    request: pytest.FixtureRequest,
    yes_project: Path,
    tempo: Receiver,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, Backend]]:
    folder, options = tmp_path_factory.mktemp("application"), {"endpoint": tempo.endpoint}
    parts: Any = APPLICATIONS[request.param]
    with application(yes_project, folder, options=options, **parts) as running:
        yield request.param, running


def server_span(tempo: Receiver, trace_id: str) -> Span:
    """Wait for the server span of a request; a trace can also have FastAPI's internal spans."""
    return wait_until(
        lambda: [each for each in tempo.wait_for_trace(trace_id) if each.kind == SERVER],
        "the server span",
    )[0]


@pytest.mark.parametrize("path", PATHS)
def test_metric_log_line_and_span_have_the_status_of_the_response(
    backend: tuple[str, Backend], tempo: Receiver, path: str
) -> None:
    name, service = backend
    default, handled, errors = PATHS[path]
    status = handled if name.startswith("handler") else default
    trace_id = uuid.uuid4().hex
    traced = {"traceparent": f"00-{trace_id}-{'1' * 16}-01"}
    before = service.value("http_requests_total", status=str(status))
    response = service.get(path, headers=traced)
    assert (response.status_code, response.headers["x-trace-id"]) == (status, trace_id)
    assert service.wait_for_log(logger="app.access", trace_id=trace_id)["status"] == status
    assert service.value("http_requests_total", status=str(status)) == before + 1
    span = server_span(tempo, trace_id)
    assert attributes(span)["http.response.status_code"] == status
    if errors:
        service.wait_for_log(logger="app.error", trace_id=trace_id)
    assert len(service.log(logger="app.error", trace_id=trace_id)) == errors
    assert bool([event for event in span.events if event.name == "exception"]) == (status >= 500)


def test_request_body_that_is_too_large_has_status_413_everywhere(
    yes_project: Path, tempo: Receiver, tmp_path: Path
) -> None:
    options: Any = {"endpoint": tempo.endpoint}
    parts: Any = APPLICATIONS["limited bodies"]
    with application(yes_project, tmp_path, options=options, **parts) as service:
        response = requests.post(f"{service.url}/body", data="a long body", timeout=30)
        trace_id = response.headers["x-trace-id"]
        line = service.wait_for_log(logger="app.access", trace_id=trace_id)
        span = server_span(tempo, trace_id)
        counted = service.value("http_requests_total", status="413", endpoint="/body")
        assert (response.status_code, line["status"], counted) == (413, 413, 1)
        assert attributes(span)["http.response.status_code"] == 413
        assert service.log(level="error") == []
