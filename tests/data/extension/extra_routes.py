"""Additional routes for the tests: slow, failing, streaming, mounted, WebSocket."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator

import httpx2
from fastapi import APIRouter, BackgroundTasks, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from opentelemetry import trace
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

router = APIRouter()
logger = logging.getLogger("app.extra")


@router.get("/slow")
async def slow(seconds: float) -> str:
    """Respond after a delay."""
    await asyncio.sleep(seconds)
    return "slow"


@router.get("/raise")
async def fail(message: str = "boom") -> None:
    """Raise an unhandled exception."""
    raise RuntimeError(message)


@router.get("/log")
async def log(message: str) -> None:
    """Log a warning with extra fields."""
    logger.warning("%s", message, extra={"trace_id": "forged", "order": 7})


@router.get("/secrets")
async def log_secrets(request: Request) -> None:
    """Log all headers and the URL, as a careless developer might."""
    headers = dict(request.headers)
    logger.warning(
        "%s %s", headers, request.url, extra={"headers": headers, "raw": request.headers.raw}
    )


@router.get("/unloggable")
async def log_unserializable() -> None:
    """Log a cyclic value, and a message whose arguments do not match its format."""
    cyclic: dict[str, object] = {}
    cyclic["self"] = cyclic
    logger.warning("cyclic", extra={"order": cyclic})
    logger.warning("%d", "no number")


@router.get("/span")
async def make_span(secret: str) -> None:
    """Raise an exception in a custom span that has secrets in all its fields."""
    with trace.get_tracer(__name__).start_as_current_span("custom") as span:
        span.set_attribute("password", secret)
        span.add_event("requested", {"url": f"/?token={secret}"})
        raise RuntimeError(f"Bearer {secret}")


@router.get("/call")
async def call(secret: str, path: str = "/api/v1/items") -> None:
    """Call this service with a secret in the URL."""
    async with httpx2.AsyncClient(base_url=os.environ["APP_UPSTREAM_URL"]) as client:
        await client.get(path, params={"api_key": secret, "limit": 1})


@router.get("/stream")
async def stream(chunks: int, seconds: float, fail_after: int = -1) -> StreamingResponse:
    """Stream chunks, and raise an exception after ``fail_after`` of them."""

    async def body() -> AsyncIterator[bytes]:
        for number in range(chunks):
            if number == fail_after:
                raise RuntimeError("broken stream")
            yield b"x" * 1000
            await asyncio.sleep(seconds)

    return StreamingResponse(body())


@router.post("/upload")
async def upload(request: Request) -> int:
    """Return the number of bytes in the body."""
    return sum([len(chunk) async for chunk in request.stream()])


@router.get("/background")
async def background(tasks: BackgroundTasks, seconds: float) -> str:
    """Respond at once and run a background task."""
    tasks.add_task(asyncio.sleep, seconds)
    return "later"


@router.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    """Send one message back."""
    await websocket.accept()
    await websocket.send_text(await websocket.receive_text())
    await websocket.close()


@router.websocket("/late")
async def accept_late(websocket: WebSocket, seconds: float) -> None:
    """Accept the connection after a delay."""
    await asyncio.sleep(seconds)
    await websocket.accept()


@router.websocket("/broken")
async def fail_after_accept(websocket: WebSocket) -> None:
    """Raise an exception on an open connection."""
    await websocket.accept()
    raise RuntimeError("broken socket")


async def plain(request: Request) -> PlainTextResponse:
    """Respond from a Starlette route, which is not a FastAPI route."""
    return PlainTextResponse(request.path_params["name"])


def add_routes(app: FastAPI) -> FastAPI:
    """Add the routes: directly, below two version prefixes, and in a mounted application."""
    app.include_router(router, prefix="/extra")
    for version in ("v1", "v2"):
        things = APIRouter()
        things.add_api_route("/things/{thing_id}", lambda thing_id: thing_id)
        app.include_router(things, prefix=f"/{version}")
    mounted = FastAPI()
    mounted.include_router(router)
    app.mount("/mounted/{tenant}", mounted)
    app.router.routes.append(Route("/plain/{name}", plain))
    return app
