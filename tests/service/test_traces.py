"""Spans that the running backend exports over OTLP/gRPC."""

import uuid
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.support.backend import API, HEALTH, ITEMS, Backend, running_backend
from tests.support.otlp_receiver import Receiver, attributes


def spans_of(backend: Backend, tempo: Receiver, path: str) -> list[Span]:
    """Request a path and return its spans, ordered by start time.

    Spans are exported in the order in which they end. So all of them have arrived when the span
    of a later request has.
    """
    trace_id, last = uuid.uuid4().hex, uuid.uuid4().hex
    for each, target in ((trace_id, path), (last, "/last")):
        backend.get(target, headers={"traceparent": f"00-{each}-{'1' * 16}-01"})
    tempo.wait_for_trace(last)
    spans = [span for span in tempo.spans if span.trace_id.hex() == trace_id]
    return sorted(spans, key=lambda span: span.start_time_unix_nano)


@pytest.mark.parametrize(
    ("path", "route", "name"),
    [
        (f"{ITEMS}/1", f"{ITEMS}/{{item_id}}", f"GET {ITEMS}/{{item_id}}"),
        ("/v2/things/1", "/v2/things/{thing_id}", "GET /v2/things/{thing_id}"),
        ("/mounted/a/slow?seconds=0", "/mounted/{tenant}/slow", "GET /mounted/{tenant}/slow"),
        ("/extra/stream?chunks=3&seconds=0", "/extra/stream", "GET /extra/stream"),
        ("/nowhere", None, "GET"),
    ],
)
def test_request_has_one_server_span_named_after_its_route(
    backend: Backend, tempo: Receiver, path: str, route: str | None, name: str
) -> None:
    (span,) = spans_of(backend, tempo, path)
    assert (span.kind, span.name) == (Span.SPAN_KIND_SERVER, name)
    assert attributes(span).get("http.route") == route
    assert tempo.service_names == {"backend"}


@pytest.mark.parametrize("path", [HEALTH, "/metrics"])
def test_health_checks_and_scrapes_are_not_traced(
    backend: Backend, tempo: Receiver, path: str
) -> None:
    assert spans_of(backend, tempo, path) == []


def test_unhandled_exception_is_recorded_on_the_span(backend: Backend, tempo: Receiver) -> None:
    (span,) = spans_of(backend, tempo, "/extra/raise?message=boom")
    assert span.status.code == Status.STATUS_CODE_ERROR
    (event,) = [event for event in span.events if event.name == "exception"]
    assert attributes(event)["exception.message"] == "boom"


def test_client_disconnect_sets_no_error_status(backend: Backend, tempo: Receiver) -> None:
    stream, upload = uuid.uuid4().hex, uuid.uuid4().hex
    parents = {each: f"00-{each}-{'1' * 16}-01" for each in (stream, upload)}
    url = "/extra/stream?chunks=1000&seconds=0.05"
    with backend.get(url, headers={"traceparent": parents[stream]}, stream=True):
        pass
    backend.disconnect_during_upload(f"traceparent: {parents[upload]}")
    spans = [span for each in parents for span in tempo.wait_for_trace(each)]
    assert [span.status.code for span in spans] == [Status.STATUS_CODE_UNSET] * 2
    assert [attributes(span)["http.response.status_code"] for span in spans] == [200, 499]


def test_trace_of_the_caller_is_continued(backend: Backend, tempo: Receiver) -> None:
    backend.get(ITEMS, headers={"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"})
    (span,) = tempo.wait_for_trace("ab" * 16)
    assert span.parent_span_id.hex() == "cd" * 8


@pytest.mark.parametrize("headers", [{}, {"tracestate": "a=1"}, {"baggage": "a=1"}], ids=str)
def test_trace_that_is_not_sampled_by_its_caller_is_only_in_the_logs(
    backend: Backend, tempo: Receiver, headers: dict[str, str]
) -> None:
    """Its log lines have ids and routes, in this service and in the service that it calls."""
    trace_id, path = uuid.uuid4().hex, f"{API}/upstream/items/1"
    not_sampled = {"traceparent": f"00-{trace_id}-{'1' * 16}-00", **headers}
    assert backend.get(path, headers=not_sampled).headers["x-trace-id"] == trace_id
    endpoints = [f"{API}/upstream/items/{{item_id}}", f"{ITEMS}/{{item_id}}"]
    lines = [backend.wait_for_log(trace_id=trace_id, endpoint=each) for each in endpoints]
    assert len({line["span_id"] for line in lines} | {"1" * 16}) == 3
    spans_of(backend, tempo, "/")  # would be exported after the spans of that trace
    assert trace_id not in {span.trace_id.hex() for span in tempo.spans}


def test_errors_and_slow_requests_are_logged_with_a_sampling_ratio_of_0(
    yes_project: Path, tempo: Receiver, tmp_path: Path
) -> None:
    with running_backend(
        yes_project, tmp_path / "app.db", endpoint=tempo.endpoint, OTEL_TRACES_SAMPLER_ARG="0"
    ) as service:
        before = len(tempo.spans)
        failed, slow = service.get("/extra/raise"), service.get("/extra/slow?seconds=0.3")
        ids = [response.headers["x-trace-id"] for response in (failed, slow)]
        assert service.wait_for_log(logger="app.error")["trace_id"] == ids[0]
        lines = [service.wait_for_log(logger="app.access", trace_id=each) for each in ids]
        assert [line["status"] for line in lines] == [500, 200]
        assert lines[1]["duration_ms"] > 300 > lines[0]["duration_ms"]
    assert len(tempo.spans) == before


def test_span_log_line_and_exemplar_have_the_same_ids(backend: Backend, tempo: Receiver) -> None:
    (span,) = spans_of(backend, tempo, f"{ITEMS}/77")
    line = backend.wait_for_log(path=f"{ITEMS}/77")
    exemplars = [sample.exemplar.labels for sample in backend.samples() if sample.exemplar]
    assert (line["trace_id"], line["span_id"]) == (span.trace_id.hex(), span.span_id.hex())
    assert {"trace_id": line["trace_id"], "span_id": line["span_id"]} in exemplars


def test_outgoing_request_is_part_of_the_trace(backend: Backend, tempo: Receiver) -> None:
    caller, call, called = spans_of(backend, tempo, f"{API}/upstream/items/1")
    assert caller.name == f"GET {API}/upstream/items/{{item_id}}"
    assert (call.kind, call.parent_span_id) == (Span.SPAN_KIND_CLIENT, caller.span_id)
    assert (called.name, called.parent_span_id) == (f"GET {ITEMS}/{{item_id}}", call.span_id)
    assert len({caller.trace_id, call.trace_id, called.trace_id}) == 1
    assert attributes(call)["http.request.method"] == "GET"


@pytest.mark.parametrize(
    ("path", "status"),
    [(ITEMS, 200), (f"{ITEMS}/1", 404), ("/nowhere", 404), ("/extra/raise", 500)],
)
def test_response_has_its_trace_id_in_a_header(
    backend: Backend, tempo: Receiver, path: str, status: int
) -> None:
    response = backend.get(path)
    assert response.status_code == status
    assert tempo.wait_for_trace(response.headers["x-trace-id"])


def test_response_to_an_unhandled_exception_has_the_trace_id_and_no_details(
    backend: Backend,
) -> None:
    response = backend.get("/extra/raise?message=secret")
    trace_id = response.headers["x-trace-id"]
    assert response.json() == {"detail": "Internal Server Error", "trace_id": trace_id}
    backend.wait_for_log(logger="app.error", trace_id=trace_id)


def test_response_without_a_trace_has_no_trace_id_header(backend: Backend) -> None:
    assert "x-trace-id" not in backend.get(HEALTH).headers


def test_sampled_spans_are_counted(backend: Backend, tempo: Receiver) -> None:
    before = backend.value("trace_spans_total")
    assert len(spans_of(backend, tempo, f"{API}/upstream/items/1")) == 3
    assert backend.value("trace_spans_total") == before + 4  # one is the span of /last
