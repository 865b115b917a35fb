"""Run differently written applications with the generated extension."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.backend import Backend, running_backend

WORK_TRACE_ID, FAIL_TRACE_ID = "ab" * 16, "cd" * 16
MAIN = """\
import asyncio
import logging
import logging.config
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, HTTPException, Request, Response

from app.extensions import load_extensions
from app.settings import settings

{before}


@asynccontextmanager
async def lifespan(app):
    {lifespan}
    yield


app = FastAPI(lifespan=lifespan, {arguments})
{first}


@app.get(settings.health_path)
def health() -> str:
    return "ok"


@app.get("/work")
def work() -> str:
    extra = {{"password": "s3cr3t", "trace_id": "forged", "order": 7}}
    logging.getLogger("app.mine").warning("working with token=s3cr3t", extra=extra)
    {work}
    return "done"


@app.get("/fail")
async def fail() -> None:
    {fail}


{body}
{load}
{after}
"""
PARTS = {
    **dict.fromkeys(("before", "arguments", "first", "body", "after"), ""),
    "lifespan": "pass",
    "work": "pass",
    "fail": 'raise RuntimeError("boom with token=s3cr3t")',
    "load": "load_extensions(app, settings.extensions)",
}


@contextmanager
def application(
    project: Path,
    folder: Path,
    *server_arguments: str,
    options: Mapping[str, Any] | None = None,
    **parts: str,
) -> Iterator[Backend]:
    """Run a copy of the project with a ``main.py`` that is made from `MAIN`.

    Args:
        project: The generated project.
        folder: The folder for the copy.
        server_arguments: Additional arguments for the server.
        options: Keyword arguments for `running_backend`.
        parts: Python code that replaces the defaults in `PARTS`.
    """
    shutil.copytree(project, folder / "project", dirs_exist_ok=True)
    main = MAIN.format(**PARTS | parts)
    (folder / "project/backend/app/main.py").write_text(main, encoding="utf-8")
    copy, database = folder / "project", folder / "db"
    with running_backend(copy, database, *server_arguments, **options or {}) as backend:
        yield backend


def request_work_and_fail(backend: Backend) -> None:
    """Request ``/work`` and ``/fail``, and wait for the log lines of both."""
    for path, trace_id in (("/work", WORK_TRACE_ID), ("/fail", FAIL_TRACE_ID)):
        backend.get(path, headers={"traceparent": f"00-{trace_id}-{'1' * 16}-01"})
        backend.wait_for_log(logger="app.access", path=path)
    backend.wait_for_log(logger="app.error")
