"""Applications of other people, run with the generated extension."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from tests.support.backend import Backend, running_backend

WORK_ID, FAIL_ID = "ab" * 16, "cd" * 16
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
    project: Path, folder: Path, *more: str, options: Mapping[str, Any] | None = None, **parts: str
) -> Iterator[Backend]:
    """Run an application whose ``main.py`` has these parts in place of nothing.

    Args:
        project: The generated project, of which it has everything else.
        folder: Empty; it is written there.
        more: Arguments for its server.
        options: Of `running_backend`.
        parts: Python code, by the names in `PARTS`.
    """
    shutil.copytree(project, folder / "project", dirs_exist_ok=True)
    main = MAIN.format(**PARTS | parts)
    (folder / "project/backend/app/main.py").write_text(main, encoding="utf-8")
    with running_backend(folder / "project", folder / "db", *more, **options or {}) as backend:
        yield backend


def ask(backend: Backend) -> tuple[requests.Response, requests.Response]:
    """Make a request that works and one that fails, and wait for the lines of both."""
    answers = []
    for path, trace_id in (("/work", WORK_ID), ("/fail", FAIL_ID)):
        traced = {"traceparent": f"00-{trace_id}-{'1' * 16}-01"}
        answers.append(backend.get(path, headers=traced))
        backend.wait_for_log(logger="app.access", path=path)
    backend.wait_for_log(logger="app.error")
    return answers[0], answers[1]
