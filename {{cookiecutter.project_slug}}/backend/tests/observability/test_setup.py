import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from fastapi import Body, FastAPI, Request, Response
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from starlette.middleware.base import RequestResponseEndpoint
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import Message

from app.main import app as main_app
from app.observability import fastapi_arguments, setup_observability
from app.observability.logs import JsonFormatter
from app.observability.metrics import METRICS_PATH, UNMATCHED
from app.observability.redaction import Redactor


@dataclass(frozen=True)
class FrozenError(Exception):
    """An exception that does not allow new attributes."""

    code: int


def create_app(**arguments: Any) -> FastAPI:
    app = FastAPI(**{**fastapi_arguments(), **arguments})

    @app.get("/things/{thing_id}")
    async def read_thing(thing_id: int) -> str:
        if thing_id == 0:
            raise RuntimeError("no such thing")
        if thing_id < 0:
            raise FrozenError(thing_id)
        return "a thing"

    return app


@pytest.fixture
def app() -> FastAPI:
    return create_app()


@pytest.fixture(autouse=True)
def restore_logging() -> Iterator[None]:
    """Restore the handlers and level of the root logger."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """Yield a client of the observed application. It does not raise server exceptions."""
    with TestClient(setup_observability(app), raise_server_exceptions=False) as test_client:
        yield test_client


def count_requests(client: TestClient, endpoint: str, status: str) -> float:
    text = client.get(METRICS_PATH).text
    labels = {"method": "GET", "endpoint": endpoint, "status": status}
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "http_requests_total" and sample.labels == labels
    )


def log_entries(records: list[logging.LogRecord]) -> list[dict[str, Any]]:
    formatter = JsonFormatter(Redactor())
    names = ("app.access", "app.error")
    return [json.loads(formatter.format(record)) for record in records if record.name in names]


@pytest.mark.parametrize(
    ("path", "endpoint", "status"),
    [
        ("/things/1", "/things/{thing_id}", "200"),
        ("/things/x", "/things/{thing_id}", "422"),
        ("/things/0", "/things/{thing_id}", "500"),
        ("/nowhere", UNMATCHED, "404"),
    ],
)
def test_request_is_counted_by_its_route(
    client: TestClient, path: str, endpoint: str, status: str
) -> None:
    before = count_requests(client, endpoint, status)
    client.get(path)
    assert count_requests(client, endpoint, status) == before + 1


def test_request_writes_one_json_log_entry(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    client.get("/things/1")
    (entry,) = log_entries(caplog.records)
    assert (entry["logger"], entry["level"]) == ("app.access", "info")
    assert (entry["method"], entry["path"], entry["status"]) == ("GET", "/things/1", 200)
    assert entry["endpoint"] == "/things/{thing_id}"


def test_response_has_the_trace_id_of_a_request_that_is_not_sampled(
    client: TestClient,
) -> None:
    headers = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-00"}
    assert client.get("/things/1", headers=headers).headers["x-trace-id"] == "ab" * 16


def test_unhandled_exception_is_logged_with_its_traceback(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    client.get("/things/0")
    (access, error) = log_entries(caplog.records)
    assert "RuntimeError: no such thing" in error["exception"]
    assert (error["level"], access["status"]) == ("error", 500)


def test_frozen_exception_is_logged(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    assert client.get("/things/-1").status_code == 500
    (entry,) = [entry for entry in log_entries(caplog.records) if entry["logger"] == "app.error"]
    assert "FrozenError(code=-1)" in entry["message"]


def test_rejecting_middleware_is_observed_and_does_not_affect_scrapes(
    app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    setup_observability(app)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["elsewhere"])
    with TestClient(app) as client:
        assert client.get("/things/1").status_code == 400
        assert client.get(METRICS_PATH).status_code == 200
    assert [entry["status"] for entry in log_entries(caplog.records)] == [400]


@pytest.mark.parametrize("error", [500, Exception])
def test_custom_exception_handler_is_kept(
    app: FastAPI, caplog: pytest.LogCaptureFixture, error: int | type[Exception]
) -> None:
    @app.exception_handler(error)
    async def handle_error(_request: Request, _error: Exception) -> Response:
        return Response("ours", 503)

    with TestClient(setup_observability(app), raise_server_exceptions=False) as client:
        before = count_requests(client, "/things/{thing_id}", "503")
        assert client.get("/things/0").text == "ours"
        assert count_requests(client, "/things/{thing_id}", "503") == before + 1
    assert log_entries(caplog.records)[0]["status"] == 503


def test_too_large_body_is_not_logged_as_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = create_app(max_body_size=10)

    @app.post("/things")
    async def create_thing(name: Annotated[str, Body()]) -> str:
        return name

    with TestClient(setup_observability(app)) as client:
        assert client.post("/things", json="a long name").status_code == 413
    entries = [(entry["level"], entry.get("status")) for entry in log_entries(caplog.records)]
    assert entries == [("info", 413)]


def test_client_disconnect_is_not_an_error_for_outer_middleware(app: FastAPI) -> None:
    @app.post("/uploads")
    async def upload(request: Request) -> int:
        return len(await request.body())

    setup_observability(app)

    @app.middleware("http")
    async def outer_middleware(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/uploads"}
    scope |= {"headers": [], "query_string": b""}
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 499


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("APP_LOG_LEVEL", "VERBOSE"),
        ("APP_TRACED_CALLERS", "-1"),
        ("OTEL_TRACES_SAMPLER_ARG", "0,1"),
        ("OTEL_TRACES_SAMPLER_ARG", "10"),
    ],
)
def test_invalid_setting_is_reported_with_its_variable_name(
    monkeypatch: pytest.MonkeyPatch, app: FastAPI, variable: str, value: str
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=rf"{variable}(.|\n)*'{value}'"):
        setup_observability(app)


def test_start_up_fails_without_server_spans() -> None:
    app = setup_observability(create_app(telemetry={"tracing": False}))
    with pytest.raises(RuntimeError, match=r"telemetry=\{'tracing': False\}"), TestClient(app):
        pass


def test_logging_configured_during_start_up_is_replaced(
    capsys: pytest.CaptureFixture[str],
) -> None:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        logging.basicConfig(format="plain %(message)s", force=True)
        logging.getLogger("app.jobs").warning("started")
        yield

    with TestClient(setup_observability(create_app(lifespan=lifespan))) as client:
        client.get("/things/1")
    out, err = capsys.readouterr()
    names = [json.loads(line)["logger"] for line in out.splitlines()]
    assert [name for name in names if name in ("app.jobs", "app.access")] == [
        "app.jobs",
        "app.access",
    ]
    assert "plain" not in err


def test_observability_is_off_by_default() -> None:
    assert "observability" not in repr(main_app.build_middleware_stack)
