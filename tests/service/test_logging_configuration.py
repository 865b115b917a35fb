"""Log records are redacted JSON lines with their trace id, whatever else configures logging."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.applications import (
    FAIL_TRACE_ID,
    WORK_TRACE_ID,
    application,
    request_work_and_fail,
)
from tests.support.backend import Backend

INI = """[loggers]\\nkeys=root\\n[handlers]\\nkeys=console\\n[formatters]\\nkeys=plain
[logger_root]\\nlevel=WARNING\\nhandlers=console
[handler_console]\\nclass=StreamHandler\\nargs=(sys.stderr,)\\nformatter=plain
[formatter_plain]\\nformat=plain %(message)s\\n""".replace("\n", "\\n")
CONSOLE = {"console": {"class": "logging.StreamHandler"}}
ROOT = {"version": 1, "handlers": CONSOLE, "root": {"level": "INFO", "handlers": ["console"]}}
NO_PROPAGATION = {"handlers": ["console"], "level": "INFO", "propagate": False}
CONFIGURATIONS = {
    "basicConfig": "logging.basicConfig(level=logging.INFO)",
    "basicConfig with force": "logging.basicConfig(level=logging.INFO, force=True)",
    "dictConfig": f"logging.config.dictConfig({ROOT})",
    "dictConfig keeping loggers": f"logging.config.dictConfig({ROOT | {'disable_existing_loggers': False}})",
    "dictConfig of a package": f"logging.config.dictConfig({ROOT | {'loggers': {'app': NO_PROPAGATION}}})",
    "fileConfig": f'import io; logging.config.fileConfig(io.StringIO("{INI}"))',
    "a record factory": "logging.setLogRecordFactory(lambda *a, **k: logging.LogRecord(*a, **k))",
    "a queue": (
        "import queue, logging.handlers; records = queue.SimpleQueue();"
        " logging.getLogger().addHandler(logging.handlers.QueueHandler(records));"
        " logging.handlers.QueueListener(records, logging.StreamHandler()).start()"
    ),
    "loguru": "from app.intercept import configure; configure()",
}
# The handler that loguru's documentation recommends.
INTERCEPT = """
import logging

from loguru import logger

class InterceptHandler(logging.Handler):
    def emit(self, record):
        logger.opt(depth=6, exception=record.exc_info).log(record.levelno, record.getMessage())

def configure():
    logging.basicConfig(handlers=[InterceptHandler()], level=0, force=True)
"""
PLACES = ["before", "after", "lifespan"]


def check_log_lines(backend: Backend) -> None:
    """Request both routes, and assert that their log lines are complete and redacted."""
    request_work_and_fail(backend)
    output = backend.running.output()
    (line,) = backend.log(logger="app.mine")
    assert (line["message"], line["trace_id"]) == (
        "working with token=[REDACTED]",
        WORK_TRACE_ID,
    )
    assert (line["password"], line["order"]) == ("[REDACTED]", 7)
    (error,) = backend.log(logger="app.error")
    assert error["trace_id"] == FAIL_TRACE_ID
    assert output.count("boom with token=[REDACTED]") == error["exception"].count("boom") + 1
    assert len(backend.log(logger="app.access")) == 2
    assert "s3cr3t" not in output


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_logging_configuration_of_the_application_is_overridden(
    yes_project: Path, tmp_path: Path, name: str, place: str
) -> None:
    (tmp_path / "project/backend/app").mkdir(parents=True)
    (tmp_path / "project/backend/app/intercept.py").write_text(INTERCEPT, "utf-8")
    parts: dict[str, Any] = {place: CONFIGURATIONS[name]}
    with application(yes_project, tmp_path, **parts) as backend:
        check_log_lines(backend)


@pytest.mark.parametrize("suffix", ["json", "ini"])
def test_logging_configuration_on_the_command_line_is_overridden(
    yes_project: Path, tmp_path: Path, suffix: str
) -> None:
    config = tmp_path / f"log.{suffix}"
    config.write_text(json.dumps(ROOT) if suffix == "json" else INI.replace("\\n", "\n"), "utf-8")
    options = f"--log-config={config}", "--access-log"
    with application(yes_project, tmp_path, *options) as backend:
        check_log_lines(backend)
        assert backend.log(logger="uvicorn.access") == []


@pytest.mark.parametrize(
    "work",
    [
        "logging.getLogger('app').addHandler(logging.StreamHandler())",
        "logging.getLogger('app.mine').addHandler(logging.StreamHandler())",
        "[each.setLevel('CRITICAL') for each in logging.getLogger().handlers]",
        "logging.disable(logging.CRITICAL)",
    ],
    ids=["parent's handler", "handler", "level of the handler", "disabled"],
)
def test_access_log_and_redaction_survive_changes_of_logging_during_a_request(
    yes_project: Path, tmp_path: Path, work: str
) -> None:
    work += "; logging.getLogger('app.mine').error('once with token=s3cr3t')"
    with application(yes_project, tmp_path, work=work) as backend:
        request_work_and_fail(backend)
        output = backend.running.output()
        written = backend.log(message="once with token=[REDACTED]")
        assert output.count("once with") == len(written) == ("CRITICAL" not in work)
        assert len(backend.log(logger="app.access")) == 2
        assert "s3cr3t" not in output


@pytest.mark.parametrize("level", [None, "INFO"])
def test_http_client_logs_its_requests_only_if_a_level_is_set(
    yes_project: Path, tmp_path: Path, level: str | None
) -> None:
    before = "import httpx2\n"
    if level:
        before += f"logging.getLogger('httpx2').setLevel('{level}')"
    transport = "httpx2.MockTransport(lambda request: httpx2.Response(200))"
    work = f"httpx2.Client(transport={transport}).get('http://other/')"
    with application(yes_project, tmp_path, before=before, work=work) as backend:
        check_log_lines(backend)
        assert len(backend.log(logger="httpx2")) == (level is not None)


def test_loguru_and_structlog_write_json_log_lines(yes_project: Path, tmp_path: Path) -> None:
    before = """
import structlog
from loguru import logger as loguru_logger

structlog.configure(
    processors=[structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
    logger_factory=structlog.stdlib.LoggerFactory(),
)
console = logging.StreamHandler()
console.setFormatter(structlog.stdlib.ProcessorFormatter(processor=structlog.dev.ConsoleRenderer()))
logging.getLogger().addHandler(console)
"""
    work = (
        'loguru_logger.info("from loguru"); '
        'structlog.get_logger("s").info("from structlog", token="s3cr3t")'
    )
    with application(yes_project, tmp_path, before=before, work=work) as backend:
        check_log_lines(backend)
        for message in ("from loguru", "from structlog"):
            (line,) = backend.log(message=message)
            assert line["trace_id"] == WORK_TRACE_ID


@pytest.mark.parametrize("structlog", ["pass", "structlog.configure(logger_factory=PRINT)"])
def test_handlers_that_cannot_be_replaced_are_reported_once_at_start_up(
    yes_project: Path, tmp_path: Path, structlog: str
) -> None:
    structlog = structlog.replace("PRINT", "structlog.PrintLoggerFactory()")
    before = f"""
import loguru
import structlog

{structlog}
loguru.logger.add("{tmp_path}/loguru-file")
logging.getLogger().addHandler(logging.FileHandler("{tmp_path}/file"))
"""
    with application(yes_project, tmp_path, before=before) as backend:
        check_log_lines(backend)
        warnings = [line["message"] for line in backend.log(logger="app.observability")]
    for name in ("PrintLogger", "FileHandler", "loguru-file"):
        assert sum(name in text for text in warnings) == 1, warnings
    assert len(warnings) == 3


def test_stack_info_is_logged(yes_project: Path, tmp_path: Path) -> None:
    work = 'logging.getLogger("app.mine").info("with stack", stack_info=True)'
    with application(yes_project, tmp_path, work=work) as backend:
        request_work_and_fail(backend)
        assert "in work" in backend.log(message="with stack")[0]["stack"]
