"""Log lines as JSON on stdout, with the ids of the span in which they were logged."""

import json
import logging
import os
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
ACCESS, ERROR = logging.getLogger("app.access"), logging.getLogger("app.error")
EXCEPTION_MAX = 16384  # characters; its end tells most
REPORTED = "reported_with_trace"  # attribute of an error that has its line
encode_ascii = json.JSONEncoder(default=datetime.isoformat).encode


def trace_ids(context: trace.SpanContext) -> dict[str, str]:
    """Return ``trace_id`` and ``span_id`` in hex, or nothing outside a trace."""
    if not context.is_valid:
        return {}
    ids = trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)
    return {"trace_id": ids[0], "span_id": ids[1]}


class JsonFormatter(OrjsonFormatter):
    """Formats a record, with its ``extra``, as one line of printable ASCII without secrets."""

    def __init__(self, redactor: Redactor) -> None:
        names = {"levelname": "level", "name": "logger", "message": "message"}
        texts = {"exc_info": "exception", "stack_info": "stack"}
        ours = [*names.values(), *texts.values(), "timestamp", "trace_id", "span_id"]
        super().__init__(
            list(names),
            rename_fields=names | texts,
            reserved_attrs=[*RESERVED_ATTRS, *ours, "color_message"],
            timestamp=True,
        )
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        try:
            return super().format(record)
        except Exception as error:  # there is a line all the same, without the arguments
            template = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
            known = {name: getattr(record, name) for name in ("name", "levelname", "created")}
            known["msg"] = f"{template} (not written as meant: {type(error).__name__})"
            known["exc_info"] = record.exc_info if record.args else None
            return self.format(logging.makeLogRecord(known))

    def line(self, members: dict[str, Any]) -> str:
        """Return the line of these members."""
        return self.serialize_log_record(self.process_log_record(members))

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        message = log_data.pop("message") or log_data.pop("event", "")  # as structlog names it
        ours = {
            "timestamp": log_data.pop("timestamp"),
            "level": log_data.pop("level").lower(),
            "logger": log_data.pop("logger"),
            "message": self._redactor.short(text_of(message)),
            **trace_ids(trace.get_current_span().get_span_context()),
        }
        for name in log_data.keys() & {"exception", "stack"}:
            ours[name] = self._redactor.text(text_of(log_data.pop(name)))[-EXCEPTION_MAX:]
        if isinstance(bound := log_data.get("extra"), dict):  # by loguru
            log_data = log_data | bound
            del log_data["extra"]
        for name, value in log_data.items():
            ours.setdefault(str(name), self._redactor.named(str(name), value))
        return ours

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        with suppress(TypeError):  # numbers of more than 64 bits, or half a character
            line = super().jsonify_log_record(log_data)
            if line.isascii() and "\x7f" not in line:
                return line
        return encode_ascii(log_data)


class Output(logging.StreamHandler[Any]):
    """Writes to stdout, and notices when it is put away by what configures logging."""

    closed = False
    threshold = logging.INFO  # the lowest level that is written
    line: Callable[[dict[str, Any]], str]  # of these members
    seen: list[logging.Handler]  # of the root logger, when logging was taken over

    def filter(self, record: logging.LogRecord) -> Any:
        # What the server says of an error that was reported with its trace is dropped.
        error = record.exc_info[1] if record.exc_info else None
        return record.name == ERROR.name or not hasattr(error, REPORTED)

    def put(self, members: dict[str, Any]) -> None:
        """Write a line that is no record."""
        with suppress(Exception):  # a stream that is gone is no failure of a request
            self.stream.write(self.line(members) + self.terminator)
            self.flush()

    def close(self) -> None:  # by what configures logging
        self.closed = True
        super().close()


output = Output(sys.stdout)
notices: set[str] = set()  # what does not hold, for people


def configure_logging(level: str, redactor: Redactor) -> None:
    """Write all that is logged to stdout or stderr as JSON, whoever configures logging, and when."""
    output.threshold = getattr(logging, level)
    output.stream = sys.stdout
    known, output.formatter = output.formatter, JsonFormatter(redactor)
    output.line = output.formatter.line
    take_over_libraries()
    take_over()
    if known is None:
        logging.setLogRecordFactory(partial(_make_record, logging.getLogRecordFactory()))


def _make_record(make: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    heal()
    return make(*arguments, **options)


def heal() -> None:
    """Take over again if somebody has configured logging since."""
    if output.closed or logging.getLogger().handlers != output.seen:
        take_over()


def take_over() -> None:
    """Replace the handlers of all loggers that print; others, such as files, stay."""
    root = logging.getLogger()
    known = list(root.manager.loggerDict.values())
    for logger in (root, *(each for each in known if isinstance(each, logging.Logger))):
        logger.disabled = False
        for handler in [each for each in logger.handlers if each is not output]:
            if _prints(handler):
                logger.removeHandler(handler)
                logger.propagate = True
            elif not isinstance(handler, logging.NullHandler):
                notices.add(f"logger {logger.name} also has {handler}: secrets in clear")
        if logger.name in ("uvicorn", "uvicorn.error", "gunicorn.error"):
            logger.setLevel(logging.NOTSET)
        elif logger.name in ("uvicorn.access", "gunicorn.access"):
            logger.propagate = False  # our line of a request has its trace
    root.setLevel(output.threshold)
    root.addHandler(output)
    output.seen, output.closed = root.handlers[:], False


def take_over_libraries() -> None:
    """Have loguru write here, and say what structlog does otherwise; not while they log."""
    if loguru := sys.modules.get("loguru"):
        # A function: to a text loguru adds the traceback.
        sink = {"sink": output, "format": lambda _: "{message}", "level": output.threshold}
        loguru.logger.configure(handlers=[sink])
    structlog = sys.modules.get("structlog")
    if structlog and structlog.is_configured():
        factory = structlog.get_config()["logger_factory"]
        if not isinstance(factory, structlog.stdlib.LoggerFactory):
            notices.add(f"structlog writes by {factory}: not JSON, secrets in clear")


def _prints(handler: logging.Handler) -> bool:
    """Tell whether a handler's lines end up on stdout or stderr, as far as can be seen."""
    loguru = sys.modules.get("loguru")
    names = vars(sys.modules.get(type(handler).__module__) or logging).values()
    if loguru and any(each is loguru.logger for each in names):
        return True  # it hands on to loguru, as its documents show
    if isinstance(handler, QueueHandler):
        notices.add(f"{handler} is replaced: what listens to its queue gets no lines")
        return True
    out = getattr(handler, "stream", None) or getattr(handler, "console", None)
    stream: Any = getattr(out, "file", out)  # rich's handler has a console with a file
    if stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        return True
    with suppress(Exception):
        return any(os.path.sameopenfile(stream.fileno(), number) for number in (1, 2))
    return False


def write_access(message: str, members: dict[str, Any]) -> None:
    """Write the line of a request, unless ``app.access`` or all lines begin above INFO."""
    if (ACCESS.level or output.threshold) > logging.INFO:
        return
    heal()
    if output.seen != [output]:
        _write(logging.INFO, ACCESS, message, **members)
        return
    # No record, which only the handlers of others would need: it takes as long as all the rest.
    line = {"timestamp": datetime.now(UTC), "level": "INFO", "logger": ACCESS.name} | members
    output.put(line | {"message": message})


def write_error(method: str, path: str, error: BaseException) -> None:
    """Write the line of an error that nobody handled, inside the span of its request."""
    info = (type(error), error, error.__traceback__)
    _write(logging.ERROR, ERROR, "%s %s failed: %r", method, path, error, exc_info=info)
    with suppress(Exception):  # some errors, such as frozen data classes, refuse
        setattr(error, REPORTED, True)


def _write(level: int, to: logging.Logger, message: str, *values: object, **more: Any) -> None:
    # Past the logger, whose filters and handlers may be meant for other lines.
    known = {"name": to.name, "levelno": level, "levelname": logging.getLevelName(level)}
    record = logging.makeLogRecord(known | {"msg": message, "args": values} | more)
    for handler in {output: None, **dict.fromkeys(logging.getLogger().handlers)}:
        if level >= handler.level:
            handler.handle(record)
