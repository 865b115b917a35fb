"""JSON logs on stdout, with the trace id and span id of the current span."""

import json
import logging
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from logging.handlers import QueueHandler
from typing import Any

from opentelemetry import trace
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.orjson import OrjsonFormatter

from app.observability.redaction import Redactor, text_of

logger = logging.getLogger(__package__)
ACCESS_LOG, ERROR_LOG = logging.getLogger("app.access"), logging.getLogger("app.error")
EXCEPTION_MAX = 16384  # characters; longer tracebacks are truncated at their start
REPORTED = "reported_with_trace"  # attribute that marks an exception as logged
encode_ascii = json.JSONEncoder(default=datetime.isoformat).encode


def trace_ids(context: trace.SpanContext) -> dict[str, str]:
    """Return ``trace_id`` and ``span_id`` in hex, or an empty dict outside a trace."""
    if not context.is_valid:
        return {}
    ids = trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)
    return {"trace_id": ids[0], "span_id": ids[1]}


class JsonFormatter(OrjsonFormatter):
    """Formats a record and its ``extra`` as one redacted JSON object in printable ASCII."""

    def __init__(self, redactor: Redactor) -> None:
        names = {"levelname": "level", "name": "logger", "message": "message"}
        texts = {"exc_info": "exception", "stack_info": "stack"}
        reserved = [*names.values(), *texts.values(), "timestamp", "trace_id", "span_id"]
        super().__init__(
            list(names),
            rename_fields=names | texts,
            reserved_attrs=[*RESERVED_ATTRS, *reserved, "color_message"],
            timestamp=True,
        )
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        try:
            return super().format(record)
        except Exception as error:  # log the message without its arguments
            template = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
            fields = {name: getattr(record, name) for name in ("name", "levelname", "created")}
            fields["msg"] = f"{template} (cannot be formatted: {type(error).__name__})"
            fields["exc_info"] = record.exc_info if record.args else None
            return self.format(logging.makeLogRecord(fields))

    def line(self, fields: dict[str, Any]) -> str:
        """Return a log line with these fields."""
        return self.serialize_log_record(self.process_log_record(fields))

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        message = log_data.pop("message") or log_data.pop("event", "")  # "event" is from structlog
        entry = {
            "timestamp": log_data.pop("timestamp"),
            "level": log_data.pop("level").lower(),
            "logger": log_data.pop("logger"),
            "message": self._redactor.short(text_of(message)),
            **trace_ids(trace.get_current_span().get_span_context()),
        }
        for name in log_data.keys() & {"exception", "stack"}:
            entry[name] = self._redactor.short(text_of(log_data.pop(name)), EXCEPTION_MAX, end=True)
        if isinstance(log_data.get("extra"), dict):  # values bound with loguru
            log_data = log_data.pop("extra") | log_data
        for name, value in log_data.items():
            entry.setdefault(str(name), self._redactor.named(str(name), value))
        return entry

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        with suppress(TypeError):  # orjson rejects integers above 64 bits and lone surrogates
            line = super().jsonify_log_record(log_data)
            if line.isascii() and "\x7f" not in line:
                return line
        return encode_ascii(log_data)


class Output(logging.StreamHandler[Any]):
    """Writes to stdout, and detects when a logging configuration closes it."""

    closed = False
    threshold = logging.INFO  # lowest level that is logged
    line: Callable[[dict[str, Any]], str]  # formats these fields
    # Each logger's handlers when they were last replaced.
    seen_handlers: dict[logging.Logger, list[logging.Handler]]

    def filter(self, record: logging.LogRecord) -> Any:
        # Drop the server's report of an exception that was already logged with its trace id.
        error = record.exc_info[1] if record.exc_info else None
        return record.name == ERROR_LOG.name or not hasattr(error, REPORTED)

    def write_fields(self, fields: dict[str, Any]) -> None:
        """Write a log line without creating a log record."""
        with suppress(Exception):  # a closed stdout must not fail a request
            self.stream.write(self.line(fields) + self.terminator)
            self.flush()

    def close(self) -> None:  # called by dictConfig, fileConfig and basicConfig
        self.closed = True
        super().close()


output = Output(sys.stdout)
notices: set[str] = set()  # warnings to log at start-up


def configure_logging(level: str, redactor: Redactor) -> None:
    """Write everything that is logged to the console as JSON, whatever else configures logging."""
    output.threshold, output.stream = getattr(logging, level), sys.stdout
    previous, output.formatter = output.formatter, JsonFormatter(redactor)
    output.line = output.formatter.line
    for client in map(logging.getLogger, ("httpx", "httpx2")):  # spans record each call
        client.setLevel(client.level or logging.WARNING)
    redirect_libraries()
    replace_console_handlers()
    if previous is None:  # only once: a second call would wrap the factory again
        logging.setLogRecordFactory(partial(_make_record, logging.getLogRecordFactory()))


def _make_record(factory: Callable[..., Any], name: str, *args: Any, **kwargs: Any) -> Any:
    ensure_handlers(logging.getLogger(name))
    return factory(name, *args, **kwargs)


def ensure_handlers(log: logging.Logger | None) -> None:
    """Replace handlers again if logging was reconfigured for this logger or a parent."""
    while log and log.handlers == output.seen_handlers.get(log, []):
        log = log.parent
    if log or output.closed:
        replace_console_handlers()


def replace_console_handlers() -> None:
    """Replace all handlers that write to the console; keep others, such as file handlers."""
    root = logging.getLogger()
    existing = list(root.manager.loggerDict.values())
    loggers = [root, *(each for each in existing if isinstance(each, logging.Logger))]
    # Copied before any is removed: under gunicorn several loggers share one list of handlers.
    found = {log: [each for each in log.handlers if each is not output] for log in loggers}
    for log, handlers in found.items():
        log.disabled = False
        for handler in handlers:
            if _writes_to_console(handler):
                log.removeHandler(handler)
                log.propagate = True
            elif not isinstance(handler, logging.NullHandler):
                notices.add(f"logger {log.name} also has {handler}: its output is not redacted")
        if log.name in ("uvicorn", "uvicorn.error", "gunicorn.error"):
            log.setLevel(logging.NOTSET)
    for name in ("uvicorn.access", "gunicorn.access"):
        logging.getLogger(name).propagate = False  # `write_access` replaces it
    root.setLevel(output.threshold)
    root.addHandler(output)
    output.seen_handlers, output.closed = {log: log.handlers[:] for log in loggers}, False


def redirect_libraries() -> None:
    """Send loguru's messages to `output`; warn about structlog. Do not call it in a loguru sink."""
    if loguru := sys.modules.get("loguru"):
        # A function, because loguru appends the traceback to a format string.
        handler = {"sink": output, "format": lambda _: "{message}", "level": output.threshold}
        # (id=1, level=20, sink='app.log')   not: (id=2, level=20, sink=<stderr>)
        for sink in re.findall(r"sink=([^<].*?)\)", repr(loguru.logger)):
            notices.add(f"loguru no longer writes to {sink}: add a logging handler instead")
        loguru.logger.configure(handlers=[handler])
    if structlog := sys.modules.get("structlog"):
        factory = structlog.get_config()["logger_factory"]
        if not isinstance(factory, structlog.stdlib.LoggerFactory):
            notices.add(f"structlog writes with {factory}: not JSON, not redacted")


def _writes_to_console(handler: logging.Handler) -> bool:
    """Return whether a handler writes to stdout or stderr, as far as this can be detected."""
    loguru = sys.modules.get("loguru")
    attributes = vars(sys.modules.get(type(handler).__module__) or logging).values()
    if loguru and any(each is loguru.logger for each in attributes):
        return True  # InterceptHandler from loguru's documentation
    if isinstance(handler, QueueHandler):
        notices.add(f"{handler} was replaced: its listener receives no log records")
        return True
    out = getattr(handler, "stream", None) or getattr(handler, "console", None)
    stream: Any = getattr(out, "file", out)  # rich: handler.console.file
    if stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        return True
    with suppress(Exception):
        return any(os.path.sameopenfile(stream.fileno(), number) for number in (1, 2))
    return False


def write_access(message: str, fields: dict[str, Any]) -> None:
    """Write an access log line, unless the level of ``app.access`` or of all logs is above INFO."""
    if (ACCESS_LOG.level or output.threshold) > logging.INFO:
        return
    root = logging.getLogger()
    ensure_handlers(root)
    if root.handlers != [output]:
        _write(logging.INFO, ACCESS_LOG, message, **fields)
        return
    # Only other handlers need a log record: creating one doubles the overhead of the access log.
    line = {"timestamp": datetime.now(UTC), "level": "INFO", "logger": ACCESS_LOG.name} | fields
    output.write_fields(line | {"message": message})


def write_error(method: str, path: str, error: BaseException) -> None:
    """Log an unhandled exception once, with the trace id of its request."""
    exc_info = (type(error), error, error.__traceback__)
    _write(logging.ERROR, ERROR_LOG, "%s %s failed: %r", method, path, error, exc_info=exc_info)
    with suppress(Exception):  # frozen dataclasses do not allow it
        setattr(error, REPORTED, True)


def _write(level: int, log: logging.Logger, message: str, *args: object, **extra: Any) -> None:
    # Bypasses the logger, so that its filters and handlers cannot disable these logs by accident.
    fields = {"name": log.name, "levelno": level, "levelname": logging.getLevelName(level)}
    record = logging.makeLogRecord(fields | {"msg": message, "args": args} | extra)
    for handler in {output: None, **dict.fromkeys(logging.getLogger().handlers)}:
        if handler is output or level >= handler.level:
            handler.handle(record)
