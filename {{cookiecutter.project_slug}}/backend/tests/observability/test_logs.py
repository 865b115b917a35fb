import io
import json
import logging
import math
from collections.abc import Callable
from typing import Any

import pytest

from app.observability.logs import EXCEPTION_MAX, JsonFormatter, Output
from app.observability.redaction import TEXT_MAX, Redactor

Log = Callable[..., dict[str, Any]]


@pytest.fixture
def log() -> Log:
    """Return a function that logs a message and returns the log entry."""

    def log(*args: Any, **kwargs: Any) -> dict[str, Any]:
        stream = io.StringIO()
        handler = Output(stream)
        handler.setFormatter(JsonFormatter(Redactor()))
        logger = logging.Logger("app.tests")
        logger.addHandler(handler)
        logger.error(*args, **kwargs)
        (line,) = stream.getvalue().splitlines()
        entry: dict[str, Any] = json.loads(line, parse_constant=pytest.fail)
        assert (entry["logger"], entry["level"]) == ("app.tests", "error")
        return entry

    return log


class BrokenStr(Exception):
    def __str__(self) -> str:
        raise RuntimeError("hunter2s")

    __repr__ = __str__


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def test_extra_accepts_any_value(log: Log) -> None:
    cyclic: dict[str, Any] = {}
    cyclic["self"] = cyclic
    extra = {"deep": nested(5000), "cyclic": cyclic, "nan": math.nan, "broken": BrokenStr()}
    entry = log("a message", extra=extra)
    assert entry["message"] == "a message"
    assert "..." in json.dumps(entry["deep"])
    assert "..." in json.dumps(entry["cyclic"])
    assert (entry["nan"], entry["broken"]) == ("nan", "<BrokenStr without text>")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("all of %s", BrokenStr()), "all of %s (cannot be formatted: RuntimeError)"),
        (("%s and %s", "hunter2s"), "%s and %s (cannot be formatted: TypeError)"),
        (("%s", nested(50_000)), "%s (cannot be formatted: RecursionError)"),
        ((BrokenStr(),), "BrokenStr (cannot be formatted: RuntimeError)"),
    ],
)
def test_message_that_cannot_be_formatted_is_logged_without_its_arguments(
    log: Log, args: tuple[Any, ...], message: str
) -> None:
    entry = log(*args)
    assert entry["message"] == message
    assert "hunter2s" not in str(entry)


def test_message_that_cannot_be_formatted_is_logged_with_its_traceback(log: Log) -> None:
    entry = log("%s", BrokenStr(), exc_info=ValueError("told"))
    assert entry["exception"] == "ValueError: told"


def test_message_can_be_a_dict(log: Log) -> None:
    entry = log({"event": "paid", "order": 7, "password": "hunter2s"})
    assert (entry["message"], entry["order"], entry["password"]) == ("paid", 7, "[REDACTED]")


def test_stack_info_is_logged(log: Log) -> None:
    assert "test_stack_info_is_logged" in log("here", stack_info=True)["stack"]


def test_extra_does_not_override_reserved_fields(log: Log) -> None:
    names = ("timestamp", "level", "logger", "trace_id", "span_id", "exception", "stack")
    entry = log("a message", extra=dict.fromkeys(names, "forged"))
    assert "forged" not in entry.values()


@pytest.mark.parametrize(
    "value", ["é\u2028\u202e", "\x00\x1b\x7f\x9b", "\udcff", 2**80, {"deep": ["\x7f"]}]
)
def test_log_line_is_printable_ascii(value: object) -> None:
    record = logging.makeLogRecord({"msg": "a message", "value": value})
    line = JsonFormatter(Redactor()).format(record)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["value"] == value


def test_closed_stream_raises_no_exception() -> None:
    stream = io.StringIO()
    handler = Output(stream)
    stream.close()
    handler.handle(logging.makeLogRecord({"msg": "lost"}))


def test_long_fields_are_truncated(log: Log) -> None:
    error = ValueError("y" * 100_000 + " the end")
    entry = log("x" * 100_000, extra={"long": "z" * 100_000}, exc_info=error)
    assert len(entry["message"]) == len(entry["long"]) == TEXT_MAX + len("...")
    assert len(entry["exception"]) == EXCEPTION_MAX + len("...")
    assert entry["exception"].startswith("...")
    assert entry["exception"].endswith(" the end")
