import asyncio
import gc
import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from fastapi import Body, FastAPI, Request, Response
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from starlette.middleware.base import RequestResponseEndpoint
from starlette.types import Message

from app.main import app as main_app
from app.observability import METRICS_PATH, answer_error, setup_observability
from app.observability_logs import JsonFormatter, encode
from app.observability_metrics import UNMATCHED


@dataclass(frozen=True)
class FrozenError(Exception):
    """An error that takes no more attributes."""

    code: int


@pytest.fixture
def app() -> FastAPI:
    """Return a small application."""
    app = FastAPI()

    @app.get("/things/{thing_id}")
    async def read_thing(thing_id: int) -> str:
        if thing_id == 0:
            raise RuntimeError("no such thing")
        if thing_id < 0:
            raise FrozenError(thing_id)
        return "a thing"

    return app


@pytest.fixture
def same_logging() -> Iterator[None]:
    """Put logging back as it was."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


@pytest.fixture
def client(app: FastAPI, same_logging: None) -> Iterator[TestClient]:
    """Yield a client of the observed application; its errors are answers, as on a server."""
    with TestClient(setup_observability(app), raise_server_exceptions=False) as running:
        yield running


def counted(client: TestClient, endpoint: str, status: str) -> float:
    text = client.get(METRICS_PATH).text
    labels = {"method": "GET", "endpoint": endpoint, "status": status}
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "http_requests_total" and sample.labels == labels
    )


def logged(records: list[logging.LogRecord]) -> list[dict[str, Any]]:
    formatter = JsonFormatter()
    return [json.loads(formatter.format(record)) for record in records if record.name[:4] == "app."]


@pytest.mark.parametrize(
    ("path", "endpoint", "status"),
    [
        ("/things/1", "/things/{thing_id}", "200"),
        ("/things/x", "/things/{thing_id}", "422"),
        ("/things/0", "/things/{thing_id}", "500"),
        ("/nowhere", UNMATCHED, "404"),
    ],
)
def test_a_request_is_counted_under_its_route(
    client: TestClient, path: str, endpoint: str, status: str
) -> None:
    before = counted(client, endpoint, status)
    client.get(path)
    assert counted(client, endpoint, status) == before + 1


def test_a_request_writes_one_json_line(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    client.get("/things/1")
    (line,) = logged(caplog.records)
    assert (line["logger"], line["level"]) == ("app.access", "info")
    assert (line["method"], line["path"], line["status"]) == ("GET", "/things/1", 200)
    assert line["endpoint"] == "/things/{thing_id}"


def test_a_request_has_the_trace_id_of_its_caller_also_where_nothing_is_traced(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    ids = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-00"}
    answers = client.get("/things/1", headers=ids), client.get("/things/1")
    assert [answer.headers.get("x-trace-id") for answer in answers] == ["ab" * 16, None]
    assert [line.get("trace_id") for line in logged(caplog.records)] == ["ab" * 16, None]


def test_an_error_is_logged_with_its_traceback(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    client.get("/things/0")
    (error, access) = logged(caplog.records)
    assert "RuntimeError: no such thing" in error["exception"]
    assert (error["level"], access["status"]) == ("error", 500)


@pytest.mark.parametrize("error", [500, Exception])
def test_the_application_keeps_its_own_answer_to_errors(
    app: FastAPI, client: TestClient, error: int | type[Exception]
) -> None:
    other = FastAPI()
    other.exception_handlers[error] = answer_error
    before = dict(other.exception_handlers)
    setup_observability(other)
    assert other.exception_handlers == before
    assert app.exception_handlers[Exception] is answer_error


def test_a_body_that_is_too_large_is_no_failure_of_the_service(
    caplog: pytest.LogCaptureFixture, same_logging: None
) -> None:
    app = FastAPI(max_body_size=10)

    @app.post("/things")
    async def create_thing(name: Annotated[str, Body()]) -> str:
        return name

    with TestClient(setup_observability(app)) as client:
        assert client.post("/things", json="a long name").status_code == 413
    lines = [(line["level"], line.get("status")) for line in logged(caplog.records)]
    assert lines == [("info", 413)]


@pytest.mark.usefixtures("same_logging")
def test_a_client_that_goes_away_is_no_error_for_a_middleware_outside(app: FastAPI) -> None:
    @app.post("/uploads")
    async def upload(request: Request) -> int:
        return len(await request.body())

    setup_observability(app)

    @app.middleware("http")
    async def outside(request: Request, call_next: RequestResponseEndpoint) -> Response:
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
def test_a_value_that_cannot_be_used_is_named_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, app: FastAPI, variable: str, value: str
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=rf"{variable}(.|\n)*'{value}'"):
        setup_observability(app)


def test_an_error_stays_what_it_is(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    assert client.get("/things/-1").status_code == 500
    (line,) = [line for line in logged(caplog.records) if line["logger"] == "app.error"]
    assert "FrozenError(code=-1)" in line["message"]


@pytest.mark.parametrize(
    "value",
    ["é\u2028\u202e", "\x00\x1b\x7f\x9b", "\udcff", 2**80, float("inf"), {"deep": ["\x7f"]}],
)
def test_a_line_is_printable_ascii(value: object) -> None:
    line = encode({"value": value})
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["value"] == (None if value == float("inf") else value)


def test_a_scrape_leaves_the_interpreter_as_it_was(client: TestClient) -> None:
    before = sys.getswitchinterval(), gc.isenabled()
    assert "python_info" in client.get(METRICS_PATH).text
    assert (sys.getswitchinterval(), gc.isenabled()) == before == (0.005, True)


@pytest.mark.usefixtures("same_logging")
def test_what_is_there_at_the_start_is_not_searched_for_garbage(app: FastAPI) -> None:
    with TestClient(setup_observability(app)):
        assert all(each is not app for each in gc.get_objects())
    assert any(each is app for each in gc.get_objects())


def test_the_service_is_observed_only_when_asked() -> None:
    assert METRICS_PATH not in {getattr(route, "path", None) for route in main_app.routes}
