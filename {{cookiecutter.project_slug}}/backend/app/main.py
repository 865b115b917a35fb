"""The ASGI application: ``uvicorn app.main:app``."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from app.api.router import api_router
from app.api.upstream import open_client
from app.database import create_tables
from app.extensions import extension_arguments, load_extensions
from app.settings import settings


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Create what requests need; the yielded dict becomes ``request.state``."""
    create_tables(settings.database_path)
    async with open_client() as upstream:
        yield {"upstream": upstream}


async def answer_invalid(_: Request, error: RequestValidationError) -> JSONResponse:
    """Respond with 422 without the input, which JSON may not be able to represent, such as NaN."""
    detail = [{name: each[name] for name in ("type", "loc", "msg")} for each in error.errors()]
    return JSONResponse({"detail": detail}, status.HTTP_422_UNPROCESSABLE_CONTENT)


app = FastAPI(
    title=settings.project_name,
    description=settings.description,
    lifespan=lifespan,
    **extension_arguments(settings.extensions),
)
app.exception_handlers[RequestValidationError] = answer_invalid
app.include_router(api_router, prefix=settings.api_prefix)
load_extensions(app, settings.extensions)
