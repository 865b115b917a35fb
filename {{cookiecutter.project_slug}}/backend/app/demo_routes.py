"""Routes that are slow, fail or call another instance, to show data in the dashboards.

Added only if ``DEMO_ROUTES`` is set in .env. `make obs-traffic` sends requests to them.
"""

import asyncio
from typing import Annotated

from fastapi import APIRouter, FastAPI, Query, Request

from app.settings import settings

router = APIRouter(prefix=f"{settings.api_prefix}/demo", tags=["demo"])

Seconds = Annotated[float, Query(ge=0, le=2)]


@router.get("/slow")
async def be_slow(seconds: Seconds = 1.0) -> float:
    """Respond after the given number of seconds."""
    await asyncio.sleep(seconds)
    return seconds


@router.get("/fail")
async def fail() -> None:
    """Raise an unhandled exception."""
    raise RuntimeError("This error is part of the demo")


@router.get("/nested")
async def call_others(request: Request) -> int:
    """Call two routes of the upstream instance in turn; return its number of items."""
    client = request.state.upstream
    await client.get("/demo/slow", params={"seconds": 0.05})
    return len((await client.get("/items")).json())


def add_demo_routes(app: FastAPI) -> FastAPI:
    """Add the routes to the application."""
    app.include_router(router)
    return app
