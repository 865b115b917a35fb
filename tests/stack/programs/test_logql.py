"""Every LogQL query of the Grafana files, run on real Loki with log lines of the real service.

The test adds the labels and the structured metadata that Promtail would add.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.backend import ITEMS, Backend, running_backend
from tests.support.dashboards import LOG_LABELS, LOG_METADATA, Query, datasources, queries
from tests.support.loki_and_tempo import Json, Loki, running_loki
from tests.support.waiting import wait_until

LOGQL = {query.name: query for query in queries() if query.language == "logql"}
VOLUME = "log-explorer / Log lines by level (timeseries) A"
FAILED = "log-explorer / Failed requests by endpoint (timeseries) A"
FAILED_TABLE = "log-explorer / Failed requests (table) A"
LINES = "log-explorer / Log lines (logs) A"
TRACE_TO_LOGS = "datasources / tracesToLogsV2"
NOT_JSON = "Fatal Python error: not JSON"
LOKI_LINE = 'level=warn msg="not JSON"'

each_query = pytest.mark.parametrize("query", LOGQL.values(), ids=LOGQL)


@dataclass
class Logged:
    """A Loki with the log lines of a service between two times."""

    loki: Loki
    lines: list[dict[str, Any]]
    started: float
    ended: float

    def find(self, query: Query, **values: str) -> list[Json]:
        """Return the result of a query over the whole time range."""
        window = f"{round(self.ended - self.started) + 1}s"
        text = query.rendered(__auto=window, __range=window, **values)
        return self.loki.query(text, self.started, self.ended)

    def values(self, name: str, label: str, **values: str) -> dict[str, int]:
        """Return the value of each series of a query, by one of its labels."""
        found = self.find(LOGQL[name], **values)
        return {series["metric"][label]: int(series["value"][1]) for series in found}

    def lines_of(self, name: str, **values: str) -> list[str]:
        """Return the log lines of a query, as Grafana displays them."""
        streams = self.find(LOGQL[name], **values)
        return [text for stream in streams for _, text in stream["values"]]


def make_requests(backend: Backend) -> None:
    for path in (ITEMS, ITEMS, f"{ITEMS}/7", "/nowhere", "/extra/raise", "/extra/raise"):
        backend.get(path)
    backend.get("/extra/log", params={"message": "A warning"})
    backend.get("/last")
    backend.wait_for_log(path="/last")


def as_streams(lines: list[dict[str, Any]]) -> list[Json]:
    """Return log lines of the backend as the streams that Promtail would push."""
    return [
        {
            "stream": labels("backend", line["level"]),
            "values": [
                [unix_ns(line), json.dumps(line), {k: line[k] for k in LOG_METADATA & line.keys()}]
            ],
        }
        for line in lines
    ]


def unix_ns(line: dict[str, Any]) -> str:
    """Return the timestamp of a log line in nanoseconds, as Loki expects it."""
    return f"{datetime.fromisoformat(line['timestamp']).timestamp() * 1000:.0f}000000"


def labels(service: str, level: str) -> dict[str, str]:
    project = {"project": "p", "container": f"p-{service}-1", "stream": "stdout"}
    return {"service": service, "level": level, **project}


@pytest.fixture(scope="module")
def loki(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loki]:
    with running_loki(tmp_path_factory.mktemp("loki")) as running:
        yield running


@pytest.fixture(scope="module")
def logged(loki: Loki, yes_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Logged:
    """Return a Loki with the log lines of some requests, and two that are not JSON."""
    started = time.time()
    database = tmp_path_factory.mktemp("database") / "app.db"
    with running_backend(yes_project, database) as backend:
        make_requests(backend)
        lines = backend.log()
    now = str(time.time_ns())
    others = {("backend", "unknown"): NOT_JSON, ("loki", "warning"): LOKI_LINE}
    loki.push(
        as_streams(lines)
        + [{"stream": labels(*key), "values": [[now, text]]} for key, text in others.items()]
    )
    return Logged(loki, lines, started, time.time() + 1)


def test_log_lines_have_the_documented_labels() -> None:
    assert labels("backend", "info").keys() == LOG_LABELS


@each_query
def test_query_finds_nothing_before_the_first_log_line(loki: Loki, query: Query) -> None:
    hour = 3600.0
    before = Logged(loki, [], time.time() - 2 * hour, time.time() - hour)
    assert before.find(query, **{"__trace.traceId": "0" * 31 + "1"}) == []


@each_query
def test_query_finds_log_lines(logged: Logged, query: Query) -> None:
    trace_id = logged.lines[-1]["trace_id"]
    assert logged.find(query, **{"__trace.traceId": trace_id})


def test_volume_is_the_number_of_log_lines_of_each_level(logged: Logged) -> None:
    written = Counter(line["level"] for line in logged.lines)
    assert written.keys() >= {"info", "warning", "error"}
    assert logged.values(VOLUME, "level", service="backend") == {**written, "unknown": 1}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"service": "loki"}, {"warning": 1}),
        ({"service": "backend|loki", "level": "error|unknown"}, {"error": 2, "unknown": 1}),
        ({"search": "a WARNing"}, {"warning": 1}),
        ({"search": 'items/\\d"'}, {"info": 1}),
        ({"search": "not json"}, {"unknown": 1, "warning": 1}),
        ({"endpoint": ITEMS}, {"info": 2}),
        ({"endpoint": f"{ITEMS}|{ITEMS}/\\\\{{item_id\\\\}}"}, {"info": 3}),
        ({"endpoint": ITEMS, "level": "error"}, {}),
    ],
)
def test_filters_apply_to_volume_and_log_lines(
    logged: Logged, filters: dict[str, str], expected: dict[str, int]
) -> None:
    assert logged.values(VOLUME, "level", **filters) == expected
    assert len(logged.lines_of(LINES, **filters)) == sum(expected.values())


def test_log_lines_are_displayed_as_message_and_exception_or_unchanged(logged: Logged) -> None:
    shown = logged.lines_of(LINES)
    assert {f"GET {ITEMS} 200", "A warning", NOT_JSON, LOKI_LINE} <= set(shown)
    (error, _) = (text for text in shown if text.startswith("GET /extra/raise failed"))
    assert error.endswith("RuntimeError: boom")


def test_failed_requests_are_counted_by_endpoint(logged: Logged) -> None:
    assert logged.values(FAILED, "endpoint") == {"/extra/raise": 2}
    assert logged.values(FAILED, "endpoint", endpoint=ITEMS) == {}


def test_failed_requests_are_listed_with_their_status_and_time(logged: Logged) -> None:
    shown = logged.lines_of(FAILED_TABLE)
    assert len(shown) == 2
    assert all(re.fullmatch(r"GET /extra/raise 500 after [\d.]+ ms", text) for text in shown)


@pytest.mark.parametrize("name", [LINES, FAILED_TABLE, "backend-service / Logs (logs) A"])
def test_log_line_of_a_request_has_one_label_that_links_to_its_trace(
    logged: Logged, name: str
) -> None:
    (loki,) = (source for source in datasources() if source["type"] == "loki")
    (link,) = loki["jsonData"]["derivedFields"]
    pattern = link["matcherRegex"].replace("$$", "$")
    ids = {line["trace_id"] for line in logged.lines if "trace_id" in line}
    found = set()
    for stream in logged.find(LOGQL[name]):
        linked = [value for label, value in stream["stream"].items() if re.search(pattern, label)]
        assert len(linked) <= 1
        found.update(linked)
    assert found
    assert found <= ids


def test_trace_links_to_exactly_its_own_log_lines(logged: Logged) -> None:
    (error, _) = (line for line in logged.lines if line["level"] == "error")
    own = [line for line in logged.lines if line.get("trace_id") == error["trace_id"]]
    shown = wait_until(
        lambda: logged.lines_of(TRACE_TO_LOGS, **{"__trace.traceId": error["trace_id"]}),
        "log lines",
    )
    fields = ("message", "exception")
    expected = ["\n".join(line[name] for name in fields if line.get(name)) for line in own]
    assert sorted(shown) == sorted(expected)
    assert len(own) == 2
