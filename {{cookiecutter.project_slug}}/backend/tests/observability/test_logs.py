import io
import json
import logging
import math
from collections.abc import Callable
from typing import Any

import pytest

from app.observability.logs import EXCEPTION_MAX, JsonFormatter, Output
from app.observability.redaction import TEXT_MAX, Redactor

Write = Callable[..., dict[str, Any]]


@pytest.fixture
def write() -> Write:
    """Return a function that logs something, and returns the only line that this wrote."""

    def write(*arguments: Any, **options: Any) -> dict[str, Any]:
        stream = io.StringIO()
        handler = Output(stream)
        handler.setFormatter(JsonFormatter(Redactor()))
        logger = logging.Logger("app.tests")
        logger.addHandler(handler)
        logger.error(*arguments, **options)
        (line,) = stream.getvalue().splitlines()
        entry: dict[str, Any] = json.loads(line, parse_constant=pytest.fail)
        assert (entry["logger"], entry["level"]) == ("app.tests", "error")
        return entry

    return write


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("hunter2s")

    __repr__ = __str__


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def test_values_of_any_kind_are_written(write: Write) -> None:
    cyclic: dict[str, Any] = {}
    cyclic["self"] = cyclic
    extra = {"deep": nested(5000), "cyclic": cyclic, "nan": math.nan, "silent": Silent()}
    entry = write("a message", extra=extra)
    assert entry["message"] == "a message"
    assert "..." in json.dumps(entry["deep"])
    assert "..." in json.dumps(entry["cyclic"])
    assert (entry["nan"], entry["silent"]) == ("nan", "<Silent without text>")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("all of %s", Silent()), "all of %s (not written as meant: RuntimeError)"),
        (("%s and %s", "hunter2s"), "%s and %s (not written as meant: TypeError)"),
        (("%s", nested(50_000)), "%s (not written as meant: RecursionError)"),
        ((Silent(),), "Silent (not written as meant: RuntimeError)"),
    ],
)
def test_a_line_that_cannot_be_formatted_is_written_without_its_arguments(
    write: Write, arguments: tuple[Any, ...], message: str
) -> None:
    entry = write(*arguments)
    assert entry["message"] == message
    assert "hunter2s" not in str(entry)


def test_such_a_line_has_its_traceback(write: Write) -> None:
    entry = write("%s", Silent(), exc_info=ValueError("told"))
    assert entry["exception"] == "ValueError: told"


def test_a_record_can_be_a_dict(write: Write) -> None:
    entry = write({"event": "paid", "order": 7, "password": "hunter2s"})
    assert (entry["message"], entry["order"], entry["password"]) == ("paid", 7, "[REDACTED]")


def test_where_a_line_was_logged_is_kept_when_it_is_asked_for(write: Write) -> None:
    assert "test_where_a_line_was_logged" in write("here", stack_info=True)["stack"]


def test_nothing_that_a_call_passes_replaces_what_a_line_says(write: Write) -> None:
    names = ("timestamp", "level", "logger", "trace_id", "span_id", "exception", "stack")
    entry = write("a message", extra=dict.fromkeys(names, "forged"))
    assert "forged" not in entry.values()


@pytest.mark.parametrize(
    "value", ["é\u2028\u202e", "\x00\x1b\x7f\x9b", "\udcff", 2**80, {"deep": ["\x7f"]}]
)
def test_a_line_is_printable_ascii(value: object) -> None:
    record = logging.makeLogRecord({"msg": "a message", "value": value})
    line = JsonFormatter(Redactor()).format(record)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["value"] == value


def test_a_stream_that_is_gone_is_no_failure() -> None:
    stream = io.StringIO()
    handler = Output(stream)
    stream.close()
    handler.handle(logging.makeLogRecord({"msg": "lost"}))


def test_long_lines_are_cut(write: Write) -> None:
    error = ValueError("y" * 100_000 + " the end")
    entry = write("x" * 100_000, extra={"long": "z" * 100_000}, exc_info=error)
    assert len(entry["message"]) == len(entry["long"]) == TEXT_MAX + len("...")
    assert len(entry["exception"]) == EXCEPTION_MAX + len("...")
    assert entry["exception"].startswith("...")
    assert entry["exception"].endswith(" the end")
