"""Log lines as JSON with the ids of the current trace; a part of ``app.observability``."""

import json
import logging
import sys
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from time import time
from typing import Any

import orjson
from opentelemetry import trace

from app.observability_redaction import Redactor

access_logger = logging.getLogger("app.access")
error_logger = logging.getLogger("app.error")

# Python's own attributes of a record, and uvicorn's copy of the message with terminal colours.
_RECORD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "color_message"}
_LOGGED = "_logged_with_trace"
EXCEPTION_MAX = 16384  # characters; its end tells most
_MEMBERS = "_members"
_ACCESS = vars(logging.LogRecord(access_logger.name, logging.INFO, "", 0, "", None, None))
_encode_ascii = json.JSONEncoder(default=str).encode  # json.dumps would make an encoder each time


def trace_ids(context: trace.SpanContext) -> dict[str, str]:
    """Return ``trace_id`` and ``span_id`` in hex, or nothing outside a trace."""
    if not context.is_valid:
        return {}
    return {
        "trace_id": trace.format_trace_id(context.trace_id),
        "span_id": trace.format_span_id(context.span_id),
    }


def encode(entry: dict[str, Any]) -> str:
    """Return JSON in printable ASCII."""
    try:
        line = orjson.dumps(entry, default=str).decode()
    except TypeError:
        return _encode_ascii(entry)
    return line if line.isascii() and "\x7f" not in line else _encode_ascii(entry)


@lru_cache(maxsize=1)  # all lines of a second begin alike
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON, with the ids of the current span.

    What a call passes as ``extra`` becomes members of the object; it cannot replace ours. Secrets
    are hidden. JSON escapes control characters, and everything that is not ASCII.
    """

    def __init__(self, redactor: Redactor | None = None) -> None:
        super().__init__()
        self._redactor = redactor or Redactor()

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its newline."""
        attributes, message = vars(record), record.getMessage()
        members = attributes.get(_MEMBERS)
        entry: dict[str, Any] = {
            "timestamp": f"{_second(int(record.created))}.{int(record.created % 1 * 1000):03}+00:00",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message if members else self._redactor.short(message),
            **(members or trace_ids(trace.get_current_span().get_span_context())),
        }
        if not members:
            for name, value in attributes.items():
                if name not in _RECORD_ATTRIBUTES:
                    entry.setdefault(name, self._redactor.named(name, value))
        if record.exc_info:
            text = self.formatException(record.exc_info)
            entry["exception"] = self._redactor.text(text)[-EXCEPTION_MAX:]
        return encode(entry)


class JsonHandler(logging.StreamHandler[Any]):
    """Writes a line even for a record that cannot be formatted, and never lets a call to log fail."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line of a record."""
        try:
            self.stream.write(self.format(record) + self.terminator)
            self.stream.flush()
        except Exception:  # logging's own handler lets a RecursionError through
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Write what can be told of a record for which there is no line: nothing of its arguments."""
        error = sys.exc_info()[0]
        template = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
        message = f"{template} (not written as meant: {error.__name__ if error else None})"
        known = {name: getattr(record, name) for name in ("name", "levelname", "created")}
        for exception in (record.exc_info, None):
            with suppress(Exception):
                bare = logging.makeLogRecord(known | {"msg": message, "exc_info": exception})
                self.stream.write(self.format(bare) + self.terminator)
                self.flush()
                return


class _NotYetLogged(logging.Filter):
    """Drops the server's own, untraced report of an exception that was logged with its trace."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not getattr(error, _LOGGED, False)


def configure_logging(level: str, redactor: Redactor) -> None:
    """Send every logger's lines to stdout as JSON; the server's access log gives way to ours.

    Args:
        level: Name of the lowest level that is written, in upper case, such as ``INFO``.
        redactor: Hides what no line may have.

    Raises:
        ValueError: there is no such level.
    """
    root = logging.getLogger()
    root.setLevel(level)
    if not any(isinstance(handler.formatter, JsonFormatter) for handler in root.handlers):
        handler = JsonHandler(sys.stdout)
        handler.setFormatter(JsonFormatter(redactor))
        root.addHandler(handler)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        server_logger = logging.getLogger(name)
        server_logger.handlers.clear()
        server_logger.setLevel(logging.NOTSET)
        server_logger.propagate = name != "uvicorn.access"
    logging.getLogger("uvicorn.error").addFilter(_NotYetLogged())


def log_exception(method: str, path: str, error: Exception) -> None:
    """Log an error that nobody handled, once, inside the span of its request."""
    error_logger.error("%s %s failed: %r", method, path, error, exc_info=error)
    with suppress(Exception):  # some errors, such as frozen data classes, refuse
        setattr(error, _LOGGED, True)


class _AccessRecord(logging.LogRecord):
    """The record of a request, made without what its line does not have.

    Else the caller would be searched for in the stack, and the thread and the process be asked.
    """

    def __init__(self, message: str, members: dict[str, object]) -> None:
        vars(self).update(_ACCESS)
        self.msg = message
        self.created = time()
        self.msecs = self.created % 1 * 1000
        setattr(self, _MEMBERS, members)


def logs_access() -> bool:
    """Tell whether requests have lines at this level."""
    return access_logger.isEnabledFor(logging.INFO)


def log_access(message: str, members: dict[str, object]) -> None:
    """Write the line of a request.

    Args:
        message: What happened, in a few words; like the members it must have no secrets.
        members: What is added to the line, as it is.
    """
    access_logger.handle(_AccessRecord(message, members))
