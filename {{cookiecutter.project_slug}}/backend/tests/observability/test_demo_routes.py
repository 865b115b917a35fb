from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.demo_routes import add_demo_routes
from app.main import app
from app.settings import settings

PREFIX = f"{settings.api_prefix}/demo"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, httpx2.AsyncClient]]:
    transport, base_url = httpx2.ASGITransport(app), f"http://other{settings.api_prefix}"
    async with httpx2.AsyncClient(transport=transport, base_url=base_url) as client:
        yield {"upstream": client}


def test_demo_routes_respond_slowly_fail_or_call_upstream() -> None:
    demo = add_demo_routes(FastAPI(lifespan=lifespan))
    demo.add_api_route(f"{settings.api_prefix}/items", lambda: ["a", "b"])
    with TestClient(demo, raise_server_exceptions=False) as client:
        assert client.get(f"{PREFIX}/slow?seconds=0").json() == 0
        assert client.get(f"{PREFIX}/slow?seconds=9").status_code == 422
        assert client.get(f"{PREFIX}/fail").status_code == 500
        assert client.get(f"{PREFIX}/nested").json() == 2


def test_demo_routes_are_off_by_default() -> None:
    with TestClient(app) as client:
        assert client.get(f"{PREFIX}/slow").status_code == 404
