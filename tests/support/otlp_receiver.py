"""Run an OTLP/gRPC receiver in place of Tempo."""

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.waiting import wait_until


@dataclass
class Receiver(TraceServiceServicer):
    """An OTLP/gRPC receiver that keeps all spans.

    Attributes:
        endpoint: The URL for ``OTEL_EXPORTER_OTLP_ENDPOINT``.
        spans: The received spans, in order of arrival.
        service_names: The received values of ``service.name``.
    """

    endpoint: str = ""
    spans: list[Span] = field(default_factory=list)
    service_names: set[str] = field(default_factory=set)

    def Export(
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        """Store a batch of spans."""
        resources = [attributes(each.resource) for each in request.resource_spans]
        self.service_names |= {str(resource["service.name"]) for resource in resources}
        scopes = [scope for each in request.resource_spans for scope in each.scope_spans]
        self.spans += [span for scope in scopes for span in scope.spans]
        return ExportTraceServiceResponse()

    def wait_for_trace(self, trace_id: str) -> list[Span]:
        """Wait until spans of a trace have arrived, and return these spans."""

        def spans() -> list[Span]:
            return [span for span in self.spans if span.trace_id.hex() == trace_id]

        return wait_until(spans, f"spans of trace {trace_id}")


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Run a receiver on a free loopback port."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    port = server.add_insecure_port("127.0.0.1:0")
    running = Receiver(f"http://127.0.0.1:{port}")
    add_TraceServiceServicer_to_server(running, server)  # type: ignore[no-untyped-call]
    server.start()
    try:
        yield running
    finally:
        server.stop(grace=0).wait()


def attributes(of: Any) -> dict[str, object]:
    """Return the attributes of a span or resource as Python values."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in of.attributes}
