"""Count the bytecode instructions of a request, which are the same on every machine.

Usage: ``python -m tests.support.bytecode PROJECT ROUTES NESTING traced|untraced``.
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Any

from fastapi import APIRouter, FastAPI

Headers = list[tuple[bytes, bytes]]

# The header of a caller whose trace is not sampled.
NOT_SAMPLED = (b"traceparent", b"00-" + b"ab" * 16 + b"-" + b"cd" * 8 + b"-00")


def service(routes: int = 10, nesting: int = 1, **arguments: Any) -> FastAPI:
    """Return a service with this many routes, nested in this many routers."""
    app = FastAPI(**arguments)
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


async def request(app: Any, target: str, headers: Headers) -> None:
    """Call the application with one request, without a network. The status must be 200."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start" and message["status"] != 200:
            raise RuntimeError(f"{target}: expected status 200, got {message['status']}")

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "path": target,
        "raw_path": target.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), *headers],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }
    await app(scope, receive, send)


async def count(make_request: Callable[[], Awaitable[None]]) -> int:
    """Return the number of bytecode instructions that a request executes in this thread."""
    number = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal number
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        number += event == "opcode"
        return trace

    for _ in range(3):  # fill the caches
        await make_request()
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        await make_request()
    finally:
        sys.settrace(before)
    return number


def sample_every_trace() -> None:
    """Set a tracer provider that samples every trace and exports none."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased

    trace.set_tracer_provider(TracerProvider(sampler=ParentBased(ALWAYS_ON)))


def arguments() -> dict[str, Any]:
    """Return the arguments that the extension requires for ``FastAPI()``."""
    from app.observability import fastapi_arguments

    required: dict[str, Any] = fastapi_arguments()
    return required


def observe(app: FastAPI, level: str) -> FastAPI:
    """Add the generated extension, which must be on the path of this process.

    Args:
        app: The application, created with `arguments`.
        level: The log level. Log lines are written to /dev/null.
    """
    os.environ["APP_LOG_LEVEL"] = level
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 (open until the process ends)
    from app.observability import setup_observability, traces

    observed: FastAPI = setup_observability(app)
    traces.ensure_provider()  # the extension calls this at start-up
    return observed


async def main(routes: int, nesting: int, traced: str) -> dict[str, int]:
    """Count the instructions of the baseline, and of the observed service."""
    target = path(routes, nesting)

    async def instructions(app: FastAPI, *headers: tuple[bytes, bytes]) -> int:
        return await count(lambda: request(app, target, list(headers)))

    from app.observability import middleware

    # Make all durations 0: finding the bucket of the histogram depends on the duration.
    middleware.perf_counter = float
    counts = {"baseline": await instructions(service(routes, nesting))}
    level = "INFO" if traced == "traced" else "WARNING"
    if traced == "traced":
        sample_every_trace()
    app = observe(service(routes, nesting, **arguments()), level)
    if traced == "untraced":
        return counts | {"metrics": await instructions(app)}
    return counts | {
        "everything": await instructions(app),
        "not_sampled": await instructions(app, NOT_SAMPLED),
    }


if __name__ == "__main__":
    standard_output = sys.stdout  # `observe` redirects it
    sys.path.insert(0, str(Path(sys.argv[1], "backend")))
    result = asyncio.run(main(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
    print(json.dumps(result), file=standard_output)
