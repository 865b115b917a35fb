"""Runs the generated service as its overlay does, and receives the spans that it exports."""

import json
import sys
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.samples import Sample

from tests.running import Running, free_port, start_process, wait_until

API = "/api/v1"
HEALTH = f"{API}/health"
ITEMS = f"{API}/items"
SETUP = "app.observability:setup_observability"
# Routes that the generated service has no reason to have.
EXTRA_ROUTES = "extra_routes:add_routes"
OPENMETRICS = {"accept": "application/openmetrics-text; version=1.0.0"}


@dataclass
class Receiver(TraceServiceServicer):
    """A real OTLP/gRPC trace receiver: what Tempo is to the service.

    Attributes:
        endpoint: Its URL, for ``OTEL_EXPORTER_OTLP_ENDPOINT``.
        service_names: ``service.name`` of everything that sent spans.
    """

    endpoint: str = ""
    spans: list[Span] = field(default_factory=list)
    service_names: set[str] = field(default_factory=set)

    def Export(
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        """Take spans in."""
        for resource_spans in request.resource_spans:
            resource = attributes(resource_spans.resource)
            self.service_names.add(str(resource["service.name"]))
            for scope_spans in resource_spans.scope_spans:
                self.spans.extend(scope_spans.spans)
        return ExportTraceServiceResponse()

    def wait_for(self, number: int) -> list[Span]:
        """Wait until at least so many spans have arrived, and return all of them."""
        wait_until(lambda: len(self.spans) >= number, f"{number} spans")
        return self.spans


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Run a receiver on a free loopback port."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    port = server.add_insecure_port("127.0.0.1:0")
    taking = Receiver(f"http://127.0.0.1:{port}")
    add_TraceServiceServicer_to_server(taking, server)  # type: ignore[no-untyped-call]
    server.start()
    try:
        yield taking
    finally:
        server.stop(grace=0).wait()


def attributes(of: Any) -> dict[str, object]:
    """Return the attributes of a span or resource as Python values."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in of.attributes}


@dataclass
class Backend:
    """The running service."""

    url: str
    running: Running

    def get(self, path: str, **options: Any) -> requests.Response:
        """Make one GET request."""
        return requests.get(self.url + path, timeout=30, **options)

    def samples(self) -> list[Sample]:
        """Return all samples of /metrics, read as OpenMetrics."""
        text = self.get("/metrics", headers=OPENMETRICS).text
        families = openmetrics_parser.text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        return [sample for family in families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels."""
        wanted = labels.items()
        return sum(s.value for s in self.samples() if s.name == name and wanted <= s.labels.items())

    def log(self, **fields: object) -> list[dict[str, Any]]:
        """Return the log lines that have these fields; every line must be JSON."""
        lines = [json.loads(line) for line in self.running.output().splitlines()]
        return [line for line in lines if fields.items() <= line.items()]

    def wait_for_log(self, **fields: object) -> dict[str, Any]:
        """Wait for the line that has these fields, and return it."""
        find: Callable[[], list[dict[str, Any]]] = lambda: self.log(**fields)  # noqa: E731
        return self.running.wait_until(find, f"a line with {fields}")[0]


@contextmanager
def running_backend(
    project: Path, database: Path, *, endpoint: str | None = None, **variables: str
) -> Iterator[Backend]:
    """Run the project's backend under opentelemetry-instrument with the overlay's variables.

    Args:
        project: The generated project.
        database: File for its database.
        endpoint: Where spans are sent; nowhere if None.
        variables: More environment variables.
    """
    port = free_port()
    programs = Path(sys.executable).parent
    command: list[str | Path] = [programs / "opentelemetry-instrument", programs / "uvicorn"]
    command += ["app.main:app", f"--port={port}", "--timeout-graceful-shutdown=5"]
    env = {
        "PYTHONPATH": str(Path(__file__).parent / "service"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "APP_DATABASE_PATH": str(database),
        "APP_EXTENSIONS": f"{EXTRA_ROUTES},{SETUP}",
        "OTEL_SERVICE_NAME": "backend",
        "OTEL_TRACES_EXPORTER": "otlp" if endpoint else "none",
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint or "",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "64",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION": "false",
    }
    command.append("--no-access-log")
    with start_process(command, env=env | variables, cwd=project / "backend") as running:
        backend = Backend(f"http://127.0.0.1:{port}", running)
        running.wait_until(lambda: backend.get(HEALTH).ok, "the backend to answer")
        yield backend
