"""Counts the bytecode that a request executes: the same on every machine, unlike its time.

Run as a program, for the service that is generated in a folder:
``python -m tests.support.bytecode FOLDER ROUTES NESTING traced|untraced``.
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

# What is observed of a request. A caller that does not keep its trace says so.
UNKEPT = (b"traceparent", b"00-" + b"ab" * 16 + b"-" + b"cd" * 8 + b"-00")


def service(routes: int = 10, nesting: int = 1, **arguments: Any) -> FastAPI:
    """Return a service whose last route, of this many, is nested so deep in routers."""
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
    """Make one request, which must succeed, inside this process."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start" and message["status"] != 200:
            raise RuntimeError(f"{target} answered {message['status']}")

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
    counted = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal counted
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        counted += event == "opcode"
        return trace

    for _ in range(3):  # caches fill
        await make_request()
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        await make_request()
    finally:
        sys.settrace(before)
    return counted


def trace_everything() -> None:
    """Keep every trace, but export none."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased

    trace.set_tracer_provider(TracerProvider(sampler=ParentBased(ALWAYS_ON)))


def arguments() -> dict[str, Any]:
    """Return what ``FastAPI()`` must be called with for the extension on this process' path."""
    from app.observability import fastapi_arguments

    found: dict[str, Any] = fastapi_arguments()
    return found


def observe(app: FastAPI, level: str) -> FastAPI:
    """Add the template's own extension, which is on the path of this process.

    Args:
        app: What is observed; made with `arguments`.
        level: Of the lines that are written; to nowhere.
    """
    os.environ["APP_LOG_LEVEL"] = level
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 (for the life of the process)
    from app.observability import setup_observability, traces

    observed: FastAPI = setup_observability(app)
    traces.ensure_provider()  # as its start does
    return observed


async def main(routes: int, nesting: int, traced: str) -> dict[str, int]:
    """Count for the service by itself and with all that is added to it, one after the other."""
    target = path(routes, nesting)

    async def counted(app: FastAPI, *headers: tuple[bytes, bytes]) -> int:
        return await count(lambda: request(app, target, list(headers)))

    from app.observability import middleware

    # A histogram looks for the bucket of the time that a request took, which is never the same.
    middleware.perf_counter = float
    counts = {"bare": await counted(service(routes, nesting))}
    level = "INFO" if traced == "traced" else "WARNING"
    if traced == "traced":
        trace_everything()
    app = observe(service(routes, nesting, **arguments()), level)
    if traced == "untraced":
        return counts | {"metrics": await counted(app)}
    return counts | {"everything": await counted(app), "unkept": await counted(app, UNKEPT)}


if __name__ == "__main__":
    answers = sys.stdout
    sys.path.insert(0, str(Path(sys.argv[1], "backend")))
    found = asyncio.run(main(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
    print(json.dumps(found), file=answers)
