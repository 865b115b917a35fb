"""Sampling, redaction and export of spans."""

import asyncio
import re
import sys
import threading
import traceback
from collections.abc import Callable
from functools import wraps
from importlib.metadata import entry_points
from time import monotonic
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Sampler, SamplingResult

from app.observability.metrics import SPANS
from app.observability.redaction import STACK, TEXT_MAX, Redactor, text_of

KEPT = ("context", "parent", "resource", "kind", "start_time", "end_time", "instrumentation_scope")


class CallerLimit(Sampler):
    """Limits how many requests per second are sampled because the caller set the sampled flag.

    Without a limit, any caller could fill the trace store. Above it, ``sampler`` decides by a random
    trace id, because callers can choose one that is sampled: https://www.w3.org/TR/trace-context/#sampled-flag
    """

    def __init__(self, sampler: Sampler, per_second: float) -> None:
        self._sampler = sampler
        self._per_second = per_second
        self._tokens = self._max_tokens = max(per_second, 1.0) if per_second > 0 else 0.0
        self._last_request = monotonic()

    def should_sample(
        self, parent_context: Context | None, trace_id: int, *args: Any, **kwargs: Any
    ) -> SamplingResult:
        parent = trace.get_current_span(parent_context).get_span_context()
        caller_samples = parent.is_valid and parent.is_remote and parent.trace_flags.sampled
        if not caller_samples or self._take_token():
            return self._sampler.should_sample(parent_context, trace_id, *args, **kwargs)
        trace_id = RandomIdGenerator().generate_trace_id()
        result = self._sampler.should_sample(Context(), trace_id, *args, **kwargs)
        return SamplingResult(result.decision, result.attributes, parent.trace_state)

    def _take_token(self) -> bool:
        last, self._last_request = self._last_request, monotonic()
        self._tokens += (self._last_request - last) * self._per_second
        taken = self._tokens >= 1
        self._tokens = min(self._tokens, self._max_tokens) - taken
        return taken

    def get_description(self) -> str:
        return f"CallerLimit({self._per_second:g}/s, {self._sampler.get_description()})"


class CountingProcessor(SpanProcessor):
    """Counts sampled spans that ended, to compare with the spans that the trace store receives."""

    def on_end(self, span: ReadableSpan) -> None:
        SPANS.inc()  # only called for sampled spans


def set_up_provider(redactor: Redactor, caller_limit: float, print_spans: bool) -> None:
    """Add the sampling limit, the span counter and the redaction to the tracer provider."""
    redact_exports(redactor)
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider) and not isinstance(provider.sampler, CallerLimit):
        provider.sampler = CallerLimit(provider.sampler, caller_limit)
        provider.add_span_processor(CountingProcessor())
        if print_spans:
            exporter = ConsoleSpanExporter(formatter=_span_line)
            provider.add_span_processor(SimpleSpanProcessor(exporter))


def ensure_provider() -> None:
    """Set a tracer provider if there is none: without one FastAPI does not look up routes."""
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        trace.set_tracer_provider(TracerProvider(ALWAYS_OFF))


def _span_line(span: ReadableSpan) -> str:
    # Ids without 0x, as in logs and exemplars:  "trace_id": "0xab"  ->  "trace_id": "ab"
    return re.sub(r'("(?:trace|span|parent)_id": ")0x', r"\1", span.to_json(indent=None)) + "\n"


def redact_exports(redactor: Redactor) -> None:
    """Make every imported span exporter export redacted copies of its spans.

    ``opentelemetry-instrument`` has already attached the exporters, and the SDK has no accessor for
    them. So this wraps the public ``export`` of their classes. Redaction runs in the export thread.
    """

    def with_redaction(export: Callable[..., Any]) -> Callable[..., Any]:
        return wraps(export)(
            lambda self, spans: export(self, [redacted_span(span, redactor) for span in spans])
        )

    for entry in entry_points(group="opentelemetry_traces_exporter"):
        exporter = getattr(sys.modules.get(entry.module), entry.attr, None)
        if exporter and not hasattr(exporter.export, "__wrapped__"):
            exporter.export = with_redaction(exporter.export)


def redacted_span(span: ReadableSpan, redactor: Redactor) -> ReadableSpan:
    """Return a redacted copy of an ended span."""

    def redact(attributes: Any) -> dict[str, Any]:
        plain = (attributes or {}).copy()  # a plain dict is faster
        values = {name: redactor.named(name, value) for name, value in plain.items()}
        if query := values.get("url.query"):
            values["url.query"] = redactor.text(f"?{query}")[1:]
        return values

    attributes, status = redact(span.attributes), span.status
    if status.description:
        status = trace.Status(status.status_code, redactor.short(status.description))
    error, seen = attributes.get("error.type"), [event.name for event in span.events]
    if (span.kind, error) == (trace.SpanKind.SERVER, "ConnectionError") and "exception" not in seen:
        # FastAPI sets this when a client disconnects from a stream. It is not a server error.
        del attributes["error.type"]
        status = trace.Status()
    events = [Event(each.name, redact(each.attributes), each.timestamp) for each in span.events]
    links = [trace.Link(each.context, redact(each.attributes)) for each in span.links]
    redacted: Any = {"attributes": attributes, "events": events, "links": links, "status": status}
    copied: Any = {name: getattr(span, name) for name in KEPT}
    return ReadableSpan(redactor.text(span.name), **copied, **redacted)


def record_error(error: BaseException) -> None:
    """Add an exception event with the end of its traceback to the current span."""
    kind, stack = type(error), "".join(traceback.format_exception(error))
    if len(stack) > TEXT_MAX:  # cut whole lines, because redaction needs the name before a value
        stack = "...\n" + stack[len("...\n") - TEXT_MAX :].partition("\n")[2]
    attributes = {
        "exception.type": f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."),
        "exception.message": text_of(error),
        STACK: stack,
    }
    trace.get_current_span().add_event("exception", attributes)


async def shut_down() -> None:
    """Export all ended spans. uvicorn ends with a signal, so atexit handlers do not run."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        thread = threading.Thread(target=provider.shutdown, daemon=True)
        thread.start()
        # Seconds. Without a limit the SDK waits for an unreachable trace store until Docker kills it.
        await asyncio.to_thread(thread.join, 1.5)
