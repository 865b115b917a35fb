"""Fuzzing of the middleware with Hypothesis and of the API with Schemathesis."""

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from tests.support.backend import running_backend

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
# The messages that an application sends, in any order, and the exception that it raises then.
RESPONSES = st.tuples(st.lists(START | BODY | OTHER, max_size=5), st.none() | FAILURE)


@pytest.fixture
def logs(observability: Any) -> Iterator[None]:
    """Configure logging, and restore the previous configuration afterwards."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.getLogRecordFactory()
    observability.logs.configure_logging("INFO", observability.Redactor())
    yield
    root.handlers[:], root.level = before[:2]
    logging.setLogRecordFactory(before[2])


@settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@pytest.mark.usefixtures("logs")
@given(scope=SCOPES, route=st.none() | st.just("/a/{b}"), response=RESPONSES)
def test_middleware_counts_each_request_once_and_passes_messages_and_exceptions_on(
    observability: Any,
    scope: dict[str, Any],
    route: str | None,
    response: tuple[list[Any], Any],
) -> None:
    sent: list[Any] = []
    messages, failure = response

    async def application(_scope: Any, _receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)
        if failure:
            raise failure

    async def send(message: Any) -> None:
        sent.append(message)

    observer = observability.middleware.Observer(application, "", None)
    scope["fastapi.telemetry"] = SimpleNamespace(route=route)
    before: dict[Any, float] = samples()
    raised: list[BaseException] = []
    try:
        asyncio.run(observer(scope, None, send))
    except BaseException as error:
        raised.append(error)

    assert raised == ([failure] if failure else [])
    started = any(message["type"] == "http.response.start" for message in messages)
    assert sent[: len(messages)] == messages
    assert [message.get("status") for message in sent[len(messages) :]] == (
        [500, None] if failure and not started else []
    )
    after = samples()
    changed = {name for name, value in after.items() if value != before.get(name, 0)}
    (labels,) = [dict(labels) for name, labels in changed if name == "http_requests_total"]
    assert labels["endpoint"] == (route or "unmatched")
    assert labels["method"] in observability.metrics.METHODS | {"_OTHER"}
    for name in ("http_requests_total", "http_request_duration_seconds_count"):
        increases = [after[each] - before.get(each, 0) for each in changed if each[0] == name]
        assert increases == [1]
    assert after["active_requests", frozenset()] == 0


def samples() -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return the value of each series in the default registry."""
    found = [sample for family in REGISTRY.collect() for sample in family.samples]
    return {(each.name, frozenset(each.labels.items())): each.value for each in found}


@pytest.mark.slow
def test_api_conforms_to_its_openapi_schema(yes_project: Path, tmp_path: Path) -> None:
    """Schemathesis generates valid and invalid requests from the schema."""
    with running_backend(yes_project, tmp_path / "app.db") as backend:
        done = subprocess.run(
            [
                Path(sys.executable).with_name("schemathesis"),
                *("run", f"{backend.url}/openapi.json", "--no-color", "--seed=1"),
                "--generation-deterministic",
                # Starlette's Allow header lists the methods of only one of the routes with a path.
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
