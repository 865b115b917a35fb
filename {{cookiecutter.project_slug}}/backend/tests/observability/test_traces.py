from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, Span, Status, StatusCode, Tracer

from app.observability.redaction import TEXT_MAX, Redactor
from app.observability.traces import record_error, redacted_span

SENSITIVE = "hunter2s"


class Tracing:
    """A tracer with an in-memory exporter."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer: Tracer = provider.get_tracer("tests")

    def exported(self) -> list[ReadableSpan]:
        return [redacted_span(each, Redactor()) for each in self.exporter.get_finished_spans()]


@pytest.fixture
def tracing() -> Tracing:
    return Tracing()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("url.full", f"http://a/?api_key={SENSITIVE}&b=1", "http://a/?api_key=[REDACTED]&b=1"),
        ("url.query", f"code={SENSITIVE}&b=1", "code=[REDACTED]&b=1"),
        ("http.request.header.authorization", (f"Basic {SENSITIVE}",), "[REDACTED]"),
        ("password", SENSITIVE, "[REDACTED]"),
        ("messages", ("a", f"pwd={SENSITIVE}"), ("a", "pwd=[REDACTED]")),
        ("calls", ({"token": SENSITIVE}, "b", True), ({"token": "[REDACTED]"}, "b", True)),
        ("input_tokens", 12, 12),
        ("flag", False, False),
        ("plain", "GET /items/1", "GET /items/1"),
    ],
)
def test_attributes_are_redacted(tracing: Tracing, name: str, value: Any, expected: object) -> None:
    with tracing.tracer.start_as_current_span("work", attributes={name: value}):
        pass
    with tracing.tracer.start_as_current_span("work") as span:
        span.set_attribute(name, value)
    for exported in tracing.exported():
        found = (exported.attributes or {})[name]
        assert (tuple(found) if isinstance(found, list) else found) == expected


def add_event_and_raise(span: Span) -> None:
    span.add_event("sent", {"header": f"Bearer {SENSITIVE}"})
    raise RuntimeError(f"password={SENSITIVE}")


def test_span_name_events_links_and_status_are_redacted(tracing: Tracing) -> None:
    other = tracing.tracer.start_span("other")
    link = Link(other.get_span_context(), {"url": f"/?token={SENSITIVE}"})
    with (
        pytest.raises(RuntimeError),
        tracing.tracer.start_as_current_span(f"GET /?token={SENSITIVE}", links=[link]) as span,
    ):
        add_event_and_raise(span)
    with tracing.tracer.start_as_current_span("done") as span:
        span.set_status(Status(StatusCode.ERROR, f"secret: {SENSITIVE}"))
    failed, done = tracing.exported()
    assert SENSITIVE not in failed.to_json() + done.to_json()
    assert failed.name == "GET /?token=[REDACTED]"
    assert failed.status.description == "RuntimeError: password=[REDACTED]"
    assert [event.name for event in failed.events] == ["sent", "exception"]
    assert done.status.status_code is StatusCode.ERROR


class BrokenStr(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def test_exception_with_a_broken_str_is_recorded(tracing: Tracing) -> None:
    with tracing.tracer.start_as_current_span("work"):
        record_error(BrokenStr())
    (event,) = tracing.exported()[0].events
    assert (event.attributes or {})["exception.type"] == f"{__name__}.BrokenStr"
    assert (event.attributes or {})["exception.message"] == "<BrokenStr without text>"


def test_long_traceback_is_truncated_at_its_start(tracing: Tracing) -> None:
    error = ValueError("first")
    for number in range(50):
        try:
            raise ValueError(f"number {number}, password={SENSITIVE}") from error
        except ValueError as caught:
            error = caught
    with tracing.tracer.start_as_current_span("work") as span:
        span.set_attribute("long", "x" * 9000)
        span.record_exception(error)
        record_error(error)
    (exported,) = tracing.exported()
    assert (exported.attributes or {})["long"] == "x" * TEXT_MAX + "..."
    for event in exported.events:  # of the SDK, and of `record_error`
        stack = str((event.attributes or {})["exception.stacktrace"])
        assert TEXT_MAX / 2 < len(stack) <= TEXT_MAX + len("...")
        assert stack.startswith("...")
        assert stack.endswith("number 49, password=[REDACTED]\n")


@pytest.mark.parametrize(
    ("names", "stack", "expected"),
    [
        ([], 5, 5),
        ([], ("a",), ["a"]),
        (["*stacktrace"], "x" * 9000, "[REDACTED]"),
    ],
    ids=["number", "list", "secret name"],
)
def test_stacktrace_is_redacted_like_other_attributes(
    tracing: Tracing, names: list[str], stack: Any, expected: object
) -> None:
    with tracing.tracer.start_as_current_span("work") as span:
        span.set_attribute("exception.stacktrace", stack)
    (exported,) = tracing.exporter.get_finished_spans()
    attributes = redacted_span(exported, Redactor(names)).attributes or {}
    assert attributes["exception.stacktrace"] == expected
