"""The lines that the running service writes: each one JSON, with the ids of its trace."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.support.backend import HEALTH, ITEMS, Backend, running_backend

TRACE_ID, SPAN_ID = "ab" * 16, "cd" * 8
BROKEN = "WS /extra/broken failed: RuntimeError('broken socket')"
TRACED = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01"}


@pytest.fixture(scope="module")
def backend(yes_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    database = tmp_path_factory.mktemp("database") / "app.db"
    with running_backend(yes_project, database, APP_PRINT_SPANS="true") as running:
        yield running


def test_each_request_writes_one_access_line_inside_its_span(backend: Backend) -> None:
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


def test_health_checks_and_the_servers_own_access_log_are_silent(backend: Backend) -> None:
    for path in (HEALTH, "/metrics", "/last"):
        backend.get(path)
    backend.wait_for_log(path="/last")
    assert backend.log(logger="uvicorn.access") == []
    assert not [line for line in backend.log() if line.get("path") in (HEALTH, "/metrics")]


def test_an_unhandled_error_is_logged_once_with_its_trace(backend: Backend) -> None:
    backend.get("/extra/raise?message=boom", headers=TRACED)
    error = backend.wait_for_log(level="error", logger="app.error")
    backend.wait_for_log(logger="app.access", path="/extra/raise", status=500)
    assert error["trace_id"] == TRACE_ID
    assert error["exception"].endswith("RuntimeError: boom")
    assert len([line for line in backend.log() if "boom" in line.get("exception", "")]) == 1


def test_an_error_of_a_websocket_is_logged_once_with_its_trace(backend: Backend) -> None:
    url = backend.url.replace("http", "ws") + "/extra/broken"
    with connect(url, additional_headers=TRACED) as websocket, suppress(ConnectionClosed):
        websocket.recv()
    error = backend.wait_for_log(logger="app.error", message=BROKEN)
    assert error["trace_id"] == TRACE_ID
    backend.get("/last-but-one")
    backend.wait_for_log(path="/last-but-one")
    failed = [line for line in backend.log() if "broken socket" in line.get("exception", "")]
    assert failed == [error]


def test_a_client_that_goes_away_is_no_error(backend: Backend) -> None:
    backend.abandon_upload()
    sockets = backend.url.replace("http", "ws") + "/extra"
    with connect(f"{sockets}/echo"):
        pass
    with pytest.raises(TimeoutError):
        connect(f"{sockets}/late?seconds=0.5", open_timeout=0.1)
    backend.wait_for_log(logger="app.access", path="/extra/upload", status=499)
    backend.wait_for_log(name="WS /extra/echo")
    backend.wait_for_log(name="WS /extra/late")
    backend.get("/last-of-all")
    backend.wait_for_log(path="/last-of-all")
    assert [line for line in backend.log(level="error") if "Disconnect" in line["message"]] == []
    assert [line for line in backend.log() if "Disconnect" in line.get("exception", "")] == []


def test_the_applications_own_lines_carry_the_trace_and_their_extra_fields(
    backend: Backend,
) -> None:
    backend.get("/extra/log", params={"message": "of ours"}, headers=TRACED)
    line = backend.wait_for_log(logger="app.extra", message="of ours")
    assert (line["level"], line["trace_id"], line["order"]) == ("warning", TRACE_ID, 7)


def test_no_line_has_an_id_of_zeros(backend: Backend) -> None:
    """A link from it would lead nowhere."""
    outside = backend.wait_for_log(logger="uvicorn.error", message="Application startup complete.")
    assert not {"trace_id", "span_id"} & outside.keys()
    zeros = {"traceparent": f"00-{'0' * 32}-{'0' * 16}-01"}
    backend.get(f"{ITEMS}/zeros", headers=zeros)
    inside = backend.wait_for_log(logger="app.access", path=f"{ITEMS}/zeros")
    assert int(inside["trace_id"], 16) * int(inside["span_id"], 16) > 0


@pytest.mark.parametrize(
    "message",
    ['two\nlines\r\n{"level":"critical"}', "\x1b[31mred\x1b[0m", '"},{"', "\u2028é\x00"],
    ids=["line breaks", "terminal colours", "json", "unicode"],
)
def test_what_a_request_says_cannot_break_a_line(backend: Backend, message: str) -> None:
    backend.get("/extra/log", params={"message": message})
    backend.wait_for_log(logger="app.extra", message=message)
    assert "\x1b" not in backend.running.output()
    assert backend.log(level="critical") == []


def test_a_request_path_cannot_break_a_line(backend: Backend) -> None:
    backend.get("/a%0Ab%1B[31m")
    assert backend.wait_for_log(path="/a\nb\x1b[31m")["endpoint"] == "unmatched"


def test_the_level_is_a_setting(yes_project: Path, tmp_path: Path) -> None:
    with running_backend(yes_project, tmp_path / "app.db", APP_LOG_LEVEL="warning") as quiet:
        quiet.get("/extra/log", params={"message": "still there"})
        quiet.wait_for_log(message="still there")
        assert quiet.log(level="info") == []
