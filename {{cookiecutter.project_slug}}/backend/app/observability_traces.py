"""What is traced, how much of it, and that it leaves in time; a part of ``app.observability``."""

import os
import re
import threading
import traceback
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from time import monotonic
from typing import Any

import anyio
from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from fastapi.telemetry._api import _RequestTelemetry
from fastapi.telemetry._asgi import NativeTelemetry
from opentelemetry import propagate, trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
)
from opentelemetry.util.types import Attributes
from prometheus_client import Counter
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from app.observability_redaction import REDACTED, TEXT_MAX, Redactor, text_of

FLUSH_SECONDS = 1.5
TELEMETRY_KEY = "fastapi.telemetry"  # where FastAPI keeps what it knows of a request, in the scope
# What a caller sends that does not keep its trace: https://www.w3.org/TR/trace-context/#traceparent-header
_UNKEPT = re.compile(rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f][02468ace]")
_MORE_CONTEXT = frozenset({b"tracestate", b"baggage"})


class CallerLimit(Sampler):
    """Lets callers have so many of their requests traced in a second, and no more.

    A ``traceparent`` header says whether the caller keeps the trace. Followed without limit, it
    would let anybody fill the trace store, whatever share of traces the service itself keeps.
    Beyond the limit that share decides; by a random id, for callers choose their trace ids.

    Args:
        sampler: Decides for all other spans.
        per_second: How many requests, on average; as many may come at once.
    """

    def __init__(self, sampler: Sampler, per_second: float) -> None:
        self._sampler = sampler
        self._per_second = per_second
        self._left = self._most = max(per_second, 1.0) if per_second > 0 else 0.0
        self._asked = monotonic()

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: trace.SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[trace.Link] | None = None,
        trace_state: trace.TraceState | None = None,
    ) -> SamplingResult:
        """Return the decision for a span that is about to begin."""
        parent = trace.get_current_span(parent_context).get_span_context()
        forced = parent.is_valid and parent.is_remote and parent.trace_flags.sampled
        if not forced or self._take():
            return self._sampler.should_sample(
                parent_context, trace_id, name, kind, attributes, links, trace_state
            )
        trace_id = RandomIdGenerator().generate_trace_id()
        new = self._sampler.should_sample(Context(), trace_id, name, kind, attributes, links)
        return SamplingResult(new.decision, new.attributes, parent.trace_state)

    def _take(self) -> bool:
        now = monotonic()
        self._left = min(self._most, self._left + (now - self._asked) * self._per_second)
        self._asked = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def drops_what_callers_do_not_keep(self) -> bool:
        """Tell whether nothing is ever kept below a caller that does not keep its trace."""
        parent = trace.SpanContext(1, 1, is_remote=True)
        context = trace.set_span_in_context(trace.NonRecordingSpan(parent))
        # A share of traces, if that is what decides, begins with the smallest id.
        result = self._sampler.should_sample(context, 0, "", trace.SpanKind.SERVER)
        return isinstance(self._sampler, ParentBased) and result.decision is Decision.DROP

    def get_description(self) -> str:
        """Return what this is, for people."""
        return f"CallerLimit({self._per_second:g}/s, {self._sampler.get_description()})"


class Telemetry(NativeTelemetry):
    """FastAPI's own tracing, without the work for spans that nobody will see.

    When the caller does not keep its trace, and so neither do we, a request gets ids and a route,
    and no span is made. When nothing is traced at all it gets a route, and its caller's ids.

    Args:
        config: As FastAPI has it.
        provider: The tracer provider in it, whose sampler decides.
    """

    def __init__(self, config: TelemetryConfig, provider: TracerProvider) -> None:
        super().__init__(config)
        self._ids = provider.id_generator
        sampler = provider.sampler
        self._traces_nothing = sampler is ALWAYS_OFF
        self._drops_unkept = self._traces_nothing or (
            isinstance(sampler, CallerLimit) and sampler.drops_what_callers_do_not_keep()
        )
        if "traceparent" not in propagate.get_global_textmap().fields:
            self._drops_unkept = False  # whatever callers say in it

    async def __call__(
        self,
        *,
        app: ASGIApp,
        scope: Scope,
        receive: Receive,
        send: Send,
        legacy_otel: bool = False,
    ) -> None:
        """Pass a request on, inside its span or with ids only."""
        exclude = self.config["exclude"]
        ids = None
        if scope["type"] == "http" and not (exclude and exclude(scope)):
            ids = self._without_span(scope)
        if ids is None:
            await super().__call__(
                app=app, scope=scope, receive=receive, send=send, legacy_otel=legacy_otel
            )
            return
        prefix = scope.get("app_root_path", scope.get("root_path", "")).rstrip("/")
        scope[TELEMETRY_KEY] = _RequestTelemetry(  # FastAPI writes the route into it
            span=None, span_method="", data=None, _mount_prefix=prefix
        )
        token = None
        if ids.is_valid:
            token = attach(trace.set_span_in_context(trace.NonRecordingSpan(ids)))
        try:
            await app(scope, receive, send)
        finally:
            if token is not None:
                detach(token)
            del scope[TELEMETRY_KEY]

    def _without_span(self, scope: Scope) -> trace.SpanContext | None:
        """Return the ids of a request that needs no span; None leaves it to FastAPI."""
        trace_id = 0
        for name, value in scope["headers"]:
            if name == b"traceparent":
                unkept = _UNKEPT.fullmatch(value)
                if trace_id or not unkept or not self._drops_unkept:
                    return None
                trace_id = int(unkept[1], 16)
            elif name in _MORE_CONTEXT:
                return None
        if trace_id:
            return trace.SpanContext(trace_id, self._ids.generate_span_id(), is_remote=False)
        return trace.INVALID_SPAN_CONTEXT if self._traces_nothing else None


class DisconnectProcessor(SpanProcessor):
    """Takes the error off a stream whose client went away: it is none of the service.

    FastAPI says ``ConnectionError`` of it. An error of that name that nobody handled has an event
    by `record_error`, and one that was handled has an answer.
    """

    def _on_ending(self, span: Span) -> None:
        if span._status.status_code is not trace.StatusCode.ERROR:
            return
        attributes: Any = span._attributes
        values = attributes._dict  # see RedactingProcessor
        if (
            values.get("error.type") == "ConnectionError"
            and values.get("http.response.status_code", 500) < 500
            and not any(event.name == "exception" for event in span._events)
        ):
            del values["error.type"]
            span._status = trace.Status()


class RedactingProcessor(SpanProcessor):
    """Hides secrets in all that a span has when it ends: nothing is exported before that."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor

    # The SDK has no public way to change a span that ends. This hook comes before all on_end, and
    # only the fields behind the read-only properties can be changed by then.
    def _on_ending(self, span: Span) -> None:
        self._redact(span._attributes)
        span._name = self._redactor.text(span._name)
        if span._events:
            for event in span._events:
                self._redact(event.attributes)
        if span._links:
            for link in span._links:
                self._redact(link.attributes)
        if span._status.description:
            text = self._redactor.short(span._status.description)
            span._status = trace.Status(span._status.status_code, text)

    def _redact(self, attributes: Any) -> None:
        values = attributes._dict
        for name, value in values.items():
            if isinstance(value, str):
                clean = self._clean(name, value)
                if clean is not value:
                    values[name] = clean[: attributes.max_value_len]  # it may have become longer
            elif value is not None and not isinstance(value, int | float):
                values[name] = self._redactor.named(name, value)

    def _clean(self, name: str, value: str) -> str:
        if name == "url.query":
            return self._redactor.query(value)
        return REDACTED if self._redactor.hides(name) else self._redactor.text(value)


@cache
def _spans_made() -> Counter:
    return Counter("trace_spans", "Spans that ended and are to be exported.")


class CountingProcessor(SpanProcessor):
    """Counts what is to be exported, so that it can be compared with what arrives."""

    def on_end(self, span: ReadableSpan) -> None:
        """Count the span; those that are not sampled never come here."""
        _spans_made().inc()


def check_sampler() -> None:
    """Refuse a share of traces that is none; the SDK would keep all of them, with a warning.

    Raises:
        ValueError: ``OTEL_TRACES_SAMPLER_ARG`` is not a number from 0 to 1.
    """
    share = os.environ.get("OTEL_TRACES_SAMPLER_ARG")
    if not share or not os.environ.get("OTEL_TRACES_SAMPLER", "").endswith("traceidratio"):
        return
    try:
        right = 0 <= float(share) <= 1
    except ValueError:
        right = False
    if not right:
        raise ValueError(
            f"OTEL_TRACES_SAMPLER_ARG={share!r} (TRACE_SAMPLE_RATIO in .env): allowed are numbers"
            " from 0 to 1, the share of traces that is kept"
        )


def set_up_provider(
    redactor: Redactor, caller_limit: float, print_spans: bool = False
) -> TracerProvider:
    """Return the configured provider, or one that records nothing where there is none.

    Without any provider FastAPI would not look up the route, which the metrics need.
    """
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        return TracerProvider(ALWAYS_OFF)
    if not isinstance(provider.sampler, CallerLimit):
        provider.sampler = CallerLimit(provider.sampler, caller_limit)
        provider.add_span_processor(DisconnectProcessor())
        provider.add_span_processor(RedactingProcessor(redactor))
        provider.add_span_processor(CountingProcessor())
        if print_spans:
            exporter = ConsoleSpanExporter(formatter=_span_line)
            provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


def _span_line(span: ReadableSpan) -> str:
    # The ids as logs and metrics have them, without the SDK's 0x.
    return str(span.to_json(indent=None)).replace('"0x', '"') + "\n"


def record_error(error: Exception, redactor: Redactor) -> None:
    """Put an error on the current span, with the end of its traceback, which tells most."""
    span = trace.get_current_span()
    if span.is_recording():
        kind, lines = type(error), "".join(traceback.format_exception(error))
        text = {
            "exception.type": f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."),
            "exception.message": redactor.short(text_of(error)),
            "exception.stacktrace": redactor.text(lines)[-TEXT_MAX:],
        }
        span.add_event("exception", text)


def with_flush(lifespan: Lifespan[FastAPI], provider: TracerProvider) -> Lifespan[FastAPI]:
    """Return ``lifespan`` with the export of all finished spans added at its end.

    The server ends itself with the signal that stopped it, so that handlers at exit never run;
    and the SDK waits for an unreachable trace store for longer than Docker waits for a container.
    """

    @asynccontextmanager
    async def flushing_lifespan(app: FastAPI) -> AsyncIterator[Any]:
        async with lifespan(app) as state:
            yield state
        flush = threading.Thread(target=provider.shutdown, daemon=True)
        flush.start()
        await anyio.to_thread.run_sync(flush.join, FLUSH_SECONDS)

    return flushing_lifespan
