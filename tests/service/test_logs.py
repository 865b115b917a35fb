"""Log lines of the running backend: JSON with the ids of the trace."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.support.backend import HEALTH, ITEMS, Backend, running_backend

TRACE_ID, SPAN_ID = "ab" * 16, "cd" * 8
TRACED = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01"}


@pytest.fixture(scope="module")
def backend(yes_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    database = tmp_path_factory.mktemp("database") / "app.db"
    with running_backend(yes_project, database, APP_PRINT_SPANS="true") as running:
        yield running


def test_each_request_writes_one_access_log_line_with_its_trace_and_span(backend: Backend) -> None:
    backend.get(f"{ITEMS}/42", headers=TRACED)
    line = backend.wait_for_log(logger="app.access", path=f"{ITEMS}/42")
    span = backend.wait_for_log(name=f"GET {ITEMS}/{{item_id}}")
    assert line["trace_id"] == span["context"]["trace_id"] == TRACE_ID
    assert line["span_id"] == span["context"]["span_id"]
    assert (line["level"], line["message"]) == ("info", f"GET {ITEMS}/42 404")
    assert (line["method"], line["status"], line["client"]) == ("GET", 404, "127.0.0.1")
    assert line["endpoint"] == f"{ITEMS}/{{item_id}}"
    assert 0 < line["duration_ms"] < 10_000
    assert len(backend.log(path=f"{ITEMS}/42")) == 1


def test_health_checks_scrapes_and_uvicorn_write_no_access_log(backend: Backend) -> None:
    for path in (HEALTH, "/metrics", "/last"):
        backend.get(path)
    backend.wait_for_log(path="/last")
    assert backend.log(logger="uvicorn.access") == []
    assert not [line for line in backend.log() if line.get("path") in (HEALTH, "/metrics")]


def test_unhandled_exception_is_logged_once_with_its_trace(backend: Backend) -> None:
    backend.get("/extra/raise?message=boom", headers=TRACED)
    error = backend.wait_for_log(level="error", logger="app.error")
    backend.wait_for_log(logger="app.access", path="/extra/raise", status=500)
    assert error["trace_id"] == TRACE_ID
    assert error["exception"].endswith("RuntimeError: boom")
    assert len([line for line in backend.log() if "boom" in line.get("exception", "")]) == 1


def test_unhandled_exception_of_a_websocket_is_logged_once_with_its_trace(
    backend: Backend,
) -> None:
    url = backend.url.replace("http", "ws") + "/extra/broken"
    with connect(url, additional_headers=TRACED) as websocket, suppress(ConnectionClosed):
        websocket.recv()
    message = "WS /extra/broken failed: RuntimeError('broken socket')"
    error = backend.wait_for_log(logger="app.error", message=message)
    assert error["trace_id"] == TRACE_ID
    backend.get("/after-websocket")
    backend.wait_for_log(path="/after-websocket")
    failed = [line for line in backend.log() if "broken socket" in line.get("exception", "")]
    assert failed == [error]


def test_client_disconnects_are_not_logged_as_errors(backend: Backend) -> None:
    backend.disconnect_during_upload()
    sockets = backend.url.replace("http", "ws") + "/extra"
    with connect(f"{sockets}/echo"):
        pass
    with pytest.raises(TimeoutError):
        connect(f"{sockets}/late?seconds=0.5", open_timeout=0.1)
    backend.wait_for_log(logger="app.access", path="/extra/upload", status=499)
    backend.wait_for_log(name="WS /extra/echo")
    backend.wait_for_log(name="WS /extra/late")
    backend.get("/after-disconnects")
    backend.wait_for_log(path="/after-disconnects")
    assert [line for line in backend.log(level="error") if "Disconnect" in line["message"]] == []
    assert [line for line in backend.log() if "Disconnect" in line.get("exception", "")] == []


def test_application_log_lines_have_their_trace_and_extra_fields(backend: Backend) -> None:
    backend.get("/extra/log", params={"message": "custom"}, headers=TRACED)
    line = backend.wait_for_log(logger="app.extra", message="custom")
    assert (line["level"], line["trace_id"], line["order"]) == ("warning", TRACE_ID, 7)


def test_log_lines_have_no_invalid_ids(backend: Backend) -> None:
    """Ids that consist of zeros would be dead links to traces."""
    start_up = backend.wait_for_log(logger="uvicorn.error", message="Application startup complete.")
    assert not {"trace_id", "span_id"} & start_up.keys()
    zeros = {"traceparent": f"00-{'0' * 32}-{'0' * 16}-01"}
    backend.get(f"{ITEMS}/zeros", headers=zeros)
    line = backend.wait_for_log(logger="app.access", path=f"{ITEMS}/zeros")
    assert int(line["trace_id"], 16) * int(line["span_id"], 16) > 0


@pytest.mark.parametrize(
    "message",
    ['two\nlines\r\n{"level":"critical"}', "\x1b[31mred\x1b[0m", '"},{"', "\u2028é\x00"],
    ids=["line breaks", "terminal colours", "json", "unicode"],
)
def test_message_cannot_break_a_log_line(backend: Backend, message: str) -> None:
    backend.get("/extra/log", params={"message": message})
    backend.wait_for_log(logger="app.extra", message=message)
    assert "\x1b" not in backend.running.output()
    assert backend.log(level="critical") == []


def test_request_path_cannot_break_a_log_line(backend: Backend) -> None:
    backend.get("/a%0Ab%1B[31m")
    assert backend.wait_for_log(path="/a\nb\x1b[31m")["endpoint"] == "unmatched"


def test_log_level_can_be_set(yes_project: Path, tmp_path: Path) -> None:
    with running_backend(yes_project, tmp_path / "app.db", APP_LOG_LEVEL="warning") as quiet:
        quiet.get("/extra/log", params={"message": "a warning"})
        quiet.wait_for_log(message="a warning")
        assert quiet.log(level="info") == []
