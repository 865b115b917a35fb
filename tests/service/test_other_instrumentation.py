"""The extension with other instrumentation, with several workers, and without a tracer."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.applications import application
from tests.support.backend import EXTENSION, OPENMETRICS, Backend
from tests.support.otlp_receiver import attributes, receiver

CONTRIB = "from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor as Contrib\n"
VERSION = "0.66b1"
REQUESTS = 24
WORKERS = {
    "uvicorn": {},
    "gunicorn": {
        "programs": [
            *("gunicorn", "app.main:app", "--workers=2", "--bind=127.0.0.1:{port}"),
            "--worker-class=uvicorn_worker.UvicornWorker",
        ]
    },
}


@pytest.fixture(scope="module")
def contrib(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a PYTHONPATH that adds contrib's instrumentation of FastAPI and SQLite."""
    folder = tmp_path_factory.mktemp("contrib")
    names = [
        f"opentelemetry-instrumentation-{each}" for each in ("fastapi", "asgi", "sqlite3", "dbapi")
    ]
    packages = [*(f"{name}=={VERSION}" for name in names), "asgiref==3.12.1"]
    uv = Path(sys.executable).with_name("uv")
    command = [uv, "pip", "install", "--quiet", "--no-deps", "--target", folder, *packages]
    subprocess.run([str(each) for each in command], check=True)
    return f"{folder}:{EXTENSION}"


@pytest.mark.parametrize(
    "parts",
    [
        {"first": CONTRIB + "Contrib.instrument_app(app)"},
        {"arguments": 'telemetry={"tracing": False, "metrics": False, "logs": False}'},
    ],
    ids=["contrib", "no tracing"],
)
def test_service_does_not_start_if_routes_are_unknown(
    yes_project: Path, tmp_path: Path, contrib: str, parts: Any
) -> None:
    options = {"PYTHONPATH": contrib}
    with (
        pytest.raises(RuntimeError, match="Remove FastAPIInstrumentor") as raised,
        application(yes_project, tmp_path, options=options, **parts),
    ):
        pass
    assert "exited with 3 before" in str(raised.value)


def test_contrib_skips_an_application_that_the_extension_already_traces(
    yes_project: Path, tmp_path: Path, contrib: str
) -> None:
    options = {"PYTHONPATH": contrib}
    after = CONTRIB + "Contrib.instrument_app(app)"
    with application(yes_project, tmp_path, options=options, after=after) as backend:
        assert backend.get("/work").headers["x-trace-id"]
        assert backend.wait_for_log(logger="app.access")["endpoint"] == "/work"
        assert backend.value("http_requests_total", endpoint="/work") == 1
        assert "Skipping FastAPI instrumentation" in backend.running.output()


def test_installed_instrumentation_is_activated_without_code(
    yes_project: Path, tmp_path: Path, contrib: str
) -> None:
    work = 'import sqlite3; sqlite3.connect(":memory:").cursor().execute("SELECT 1")'
    with receiver() as tempo:
        options = {"PYTHONPATH": contrib, "endpoint": tempo.endpoint}
        with application(yes_project, tmp_path, options=options, work=work) as backend:
            trace_id = backend.get("/work").headers["x-trace-id"]
        spans = {span.name: span for span in tempo.wait_for_trace(trace_id)}
    assert attributes(spans["SELECT"])["db.system"] == "sqlite"
    assert spans["SELECT"].parent_span_id in {span.span_id for span in spans.values()}


@pytest.fixture(params=WORKERS)
def workers(request: pytest.FixtureRequest) -> Any:
    """Return the server arguments and options that start two workers."""
    arguments = ["--workers=2"] if request.param == "uvicorn" else []
    return arguments, WORKERS[request.param]


def make_requests(backend: Backend) -> None:
    """Send each request on a new connection, which any worker may accept."""
    for _ in range(REQUESTS):
        requests.get(f"{backend.url}/work", timeout=30, headers={"connection": "close"})


def test_metrics_of_several_workers_are_summed(
    yes_project: Path, tmp_path: Path, workers: Any
) -> None:
    arguments, options = workers
    shared = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "shared"), **options}
    with application(yes_project, tmp_path, *arguments, options=shared) as backend:
        make_requests(backend)
        for _ in range(6):
            assert backend.value("http_requests_total", endpoint="/work") == REQUESTS
        text = backend.get("/metrics", headers=OPENMETRICS).text
        assert "trace_id" not in text
        assert backend.value("active_requests") == 0
        assert "PROMETHEUS_MULTIPROC_DIR" not in backend.running.output()


def test_several_workers_without_a_shared_folder_log_a_warning(
    yes_project: Path, tmp_path: Path, workers: Any
) -> None:
    arguments, options = workers
    with application(yes_project, tmp_path, *arguments, options=options) as backend:
        backend.running.wait_until(
            lambda: "PROMETHEUS_MULTIPROC_DIR" in backend.running.output(), "the warning"
        )


def test_active_requests_of_a_killed_worker_are_not_counted(
    yes_project: Path, tmp_path: Path, workers: Any
) -> None:
    arguments, options = workers
    shared = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "shared"), **options}
    fail = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with application(yes_project, tmp_path, *arguments, options=shared, fail=fail) as backend:
        with pytest.raises(requests.ConnectionError):
            backend.get("/fail")
        backend.running.wait_until(
            lambda: backend.value("active_requests") == 0, "the end of the killed request"
        )


@pytest.mark.parametrize("server", WORKERS)
def test_single_worker_logs_no_warning(yes_project: Path, tmp_path: Path, server: str) -> None:
    options = {
        name: [each.replace("--workers=2", "--workers=1") for each in program]
        for name, program in WORKERS[server].items()
    }
    with application(yes_project, tmp_path, options=options) as backend:
        output = backend.running.output()
    assert "warning" not in output, output


@pytest.mark.parametrize(
    "options",
    [
        {"programs": ["uvicorn", "app.main:app", "--port={port}"]},
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_TRACES_EXPORTER": "none"},
    ],
    ids=["no tracer", "disabled SDK", "no exporter"],
)
def test_routes_are_known_without_tracing(yes_project: Path, tmp_path: Path, options: Any) -> None:
    with application(yes_project, tmp_path, options=options) as backend:
        backend.get("/extra/slow?seconds=0")
        assert backend.value("http_requests_total", endpoint="/extra/slow") == 1
        assert backend.wait_for_log(logger="app.access")["endpoint"] == "/extra/slow"


def test_spans_of_the_console_exporter_are_redacted(yes_project: Path, tmp_path: Path) -> None:
    options = {"OTEL_TRACES_EXPORTER": "console"}
    with application(yes_project, tmp_path, options=options) as backend:
        backend.get("/work?token=s3cr3t")
        output = backend.running.output
        backend.running.wait_until(
            lambda: '"url.query": "token=[REDACTED]"' in output(), "the span"
        )
        assert "s3cr3t" not in output()


def test_tracer_provider_of_the_application_is_used_and_its_exports_are_redacted(
    yes_project: Path, tmp_path: Path
) -> None:
    after = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
trace.set_tracer_provider(provider)
"""
    options = {"programs": ["uvicorn", "app.main:app", "--port={port}"]}
    with application(yes_project, tmp_path, options=options, after=after) as backend:
        backend.get("/work?token=s3cr3t")
        output = backend.running.output
        backend.running.wait_until(lambda: '"http.route": "/work"' in output(), "the span")
        assert "s3cr3t" not in output()
