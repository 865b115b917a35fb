"""Requests and applications that nobody thought of."""

import asyncio
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from tests.backend import running_backend

HEADERS = st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=8)), max_size=2)
SCOPES = st.fixed_dictionaries(
    {
        "type": st.just("http"),
        "method": st.sampled_from(["GET", "QUERY"]) | st.text(max_size=8),
        "path": st.text(max_size=3000),
        "headers": HEADERS,
        "client": st.none() | st.tuples(st.text(max_size=8), st.integers()),
    }
)
START = st.fixed_dictionaries(
    {"type": st.just("http.response.start"), "status": st.integers(100, 599)},
    optional={"headers": HEADERS},
)
BODY = st.fixed_dictionaries(
    {"type": st.just("http.response.body"), "body": st.binary(max_size=8)},
    optional={"more_body": st.booleans()},
)
OTHER = st.fixed_dictionaries({"type": st.sampled_from(["http.response.debug", "x"])})
FAILURE = st.builds(RuntimeError, st.text(max_size=30)) | st.builds(asyncio.CancelledError)
# What an application does: messages that it sends, in any order, and perhaps a failure at the end.
ANSWERS = st.tuples(st.lists(START | BODY | OTHER, max_size=5), st.none() | FAILURE)


@pytest.fixture(scope="module")
def observability(yes_project: Path) -> Iterator[Any]:
    """Import the generated module into this process, and forget it afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(yes_project / "backend")
        patch.setattr(sys, "dont_write_bytecode", True)
        before = set(sys.modules)
        yield importlib.import_module("app.observability")
        for name in set(sys.modules) - before:
            if name.split(".")[0] == "app":
                del sys.modules[name]


@settings(deadline=None, derandomize=True, database=None)
@given(scope=SCOPES, route=st.none() | st.just("/a/{b}"), answer=ANSWERS)
def test_the_middleware_counts_once_and_changes_nothing(
    observability: Any, scope: dict[str, Any], route: str | None, answer: tuple[list[Any], Any]
) -> None:
    registry = CollectorRegistry()
    sent: list[Any] = []
    messages, failure = answer

    async def application(_scope: Any, _receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)
        if failure:
            raise failure

    async def send(message: Any) -> None:
        sent.append(message)

    observer = observability.RequestObserver(
        application,
        metrics=observability.request_metrics(registry),
        redactor=observability.Redactor(),
    )
    scope["fastapi.telemetry"] = SimpleNamespace(route=route)
    raised: list[BaseException] = []
    try:
        asyncio.run(observer(scope, None, send))
    except BaseException as error:
        raised.append(error)

    assert raised == ([failure] if failure else [])
    assert sent == messages
    samples = [sample for family in registry.collect() for sample in family.samples]
    values = {sample.name: sample.value for sample in samples}
    assert values["active_requests"] == 0
    assert values["http_requests_total"] == values["http_request_duration_seconds_count"] == 1
    labels = [sample.labels for sample in samples if sample.name == "http_requests_total"]
    known = sys.modules["app.observability_metrics"].METHODS
    assert [each["endpoint"] for each in labels] == [route or "unmatched"]
    assert {each["method"] for each in labels} <= known | {"_OTHER"}


def test_the_api_does_what_its_description_says(yes_project: Path, tmp_path: Path) -> None:
    """Schemathesis makes requests, right and wrong ones, from the service's own OpenAPI."""
    with running_backend(yes_project, tmp_path / "app.db") as backend:
        done = subprocess.run(
            [
                Path(sys.executable).with_name("schemathesis"),
                *("run", f"{backend.url}/openapi.json", "--no-color", "--seed=1"),
                "--generation-deterministic",
                # Starlette names the methods of one of the routes that share a path.
                "--exclude-checks=allow_header_conformance",
                *("--include-path-regex=^/api/", "--max-examples=30"),
            ],
            cwd=tmp_path,
            env={**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert backend.log(level="error") == []
