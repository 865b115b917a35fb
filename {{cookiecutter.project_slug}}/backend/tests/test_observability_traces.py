from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, Span, Status, StatusCode, Tracer

from app.observability_redaction import Redactor
from app.observability_traces import RedactingProcessor, record_error

HIDDEN = "hunter2s"


class Tracing:
    """A tracer, and what its exporter was given."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(span_limits=SpanLimits(max_attribute_length=100))
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        provider.add_span_processor(RedactingProcessor(Redactor()))
        self.tracer: Tracer = provider.get_tracer("tests")

    def exported(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())


@pytest.fixture
def tracing() -> Tracing:
    return Tracing()


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("url.full", f"http://a/?api_key={HIDDEN}&b=1", "http://a/?api_key=[REDACTED]&b=1"),
        ("url.query", f"code={HIDDEN}&b=1", "code=[REDACTED]&b=1"),
        ("http.request.header.authorization", (f"Basic {HIDDEN}",), "[REDACTED]"),
        ("password", HIDDEN, "[REDACTED]"),
        ("messages", ("a", f"pwd={HIDDEN}"), ("a", "pwd=[REDACTED]")),
        ("calls", ({"token": HIDDEN}, "b", True), ({"token": "[REDACTED]"}, "b", True)),
        ("input_tokens", 12, 12),
        ("flag", False, False),
        ("plain", "GET /items/1", "GET /items/1"),
        ("long", f"pwd={HIDDEN}&" * 8, ("pwd=[REDACTED]&" * 7)[:100]),
    ],
)
def test_attributes_that_are_set_later_have_no_secrets(
    tracing: Tracing, name: str, value: Any, shown: object
) -> None:
    with tracing.tracer.start_as_current_span("work", attributes={name: value}):
        pass
    with tracing.tracer.start_as_current_span("work") as span:
        span.set_attribute(name, value)
    for exported in tracing.exported():
        found = (exported.attributes or {})[name]
        assert (tuple(found) if isinstance(found, list) else found) == shown


def fail(span: Span) -> None:
    span.add_event("sent", {"header": f"Bearer {HIDDEN}"})
    raise RuntimeError(f"password={HIDDEN}")


def test_nothing_else_of_a_span_has_secrets(tracing: Tracing) -> None:
    other = tracing.tracer.start_span("other")
    link = Link(other.get_span_context(), {"url": f"/?token={HIDDEN}"})
    with (
        pytest.raises(RuntimeError),
        tracing.tracer.start_as_current_span(f"GET /?token={HIDDEN}", links=[link]) as span,
    ):
        fail(span)
    with tracing.tracer.start_as_current_span("done") as span:
        span.set_status(Status(StatusCode.ERROR, f"secret: {HIDDEN}"))
    failed, done = tracing.exported()
    assert HIDDEN not in failed.to_json() + done.to_json()
    assert failed.name == "GET /?token=[REDACTED]"
    assert failed.status.description == "RuntimeError: password=[REDACTED]"
    assert [event.name for event in failed.events] == ["sent", "exception"]
    assert done.status.status_code is StatusCode.ERROR


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def test_an_error_that_fails_to_say_what_it_is_is_recorded(tracing: Tracing) -> None:
    with tracing.tracer.start_as_current_span("work"):
        record_error(Silent(), Redactor())
    (event,) = tracing.exported()[0].events
    assert (event.attributes or {})["exception.type"] == f"{__name__}.Silent"
    assert (event.attributes or {})["exception.message"] == "<Silent without text>"
