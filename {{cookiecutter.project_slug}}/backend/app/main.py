"""The ASGI application: ``uvicorn app.main:app``."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from app.api.router import api_router
from app.api.upstream import open_client
from app.database import create_tables
from app.extensions import load_extensions
from app.settings import settings


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Prepare what every request needs; what is yielded becomes ``request.state``."""
    create_tables(settings.database_path)
    async with open_client() as upstream:
        yield {"upstream": upstream}


app = FastAPI(title=settings.project_name, description=settings.description, lifespan=lifespan)
app.include_router(api_router, prefix=settings.api_prefix)
load_extensions(app, settings.extensions)
