"""The spans that the running service exports by OTLP/gRPC."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.backend import HEALTH, ITEMS, Backend, Receiver, attributes, receiver, running_backend


@pytest.fixture(scope="module")
def tempo() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


@pytest.fixture(scope="module")
def backend(
    yes_project: Path, tempo: Receiver, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Backend]:
    database = tmp_path_factory.mktemp("database") / "app.db"
    with running_backend(yes_project, database, endpoint=tempo.endpoint) as running:
        yield running


def spans_of(backend: Backend, tempo: Receiver, path: str) -> list[Span]:
    """Request the path, and another after it, and return the first's spans."""
    before = len(tempo.spans)
    backend.get(path)
    backend.get("/last")
    tempo.wait_for(before + 1)
    while attributes(tempo.spans[-1]).get("url.path") != "/last":
        tempo.wait_for(len(tempo.spans) + 1)
    return tempo.spans[before:-1]


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
def test_a_request_is_one_server_span_named_by_its_route(
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


def test_an_unhandled_error_is_on_the_span(backend: Backend, tempo: Receiver) -> None:
    (span,) = spans_of(backend, tempo, "/extra/raise?message=boom")
    assert span.status.code == Status.STATUS_CODE_ERROR
    (event,) = [event for event in span.events if event.name == "exception"]
    assert attributes(event)["exception.message"] == "boom"


def test_the_callers_trace_goes_on(backend: Backend, tempo: Receiver) -> None:
    before = len(tempo.spans)
    backend.get(ITEMS, headers={"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"})
    span = tempo.wait_for(before + 1)[-1]
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == ("ab" * 16, "cd" * 8)


def test_span_log_line_and_exemplar_share_one_trace_id(backend: Backend, tempo: Receiver) -> None:
    (span,) = spans_of(backend, tempo, f"{ITEMS}/77")
    line = backend.wait_for_log(path=f"{ITEMS}/77")
    exemplars = [sample.exemplar.labels for sample in backend.samples() if sample.exemplar]
    assert (line["trace_id"], line["span_id"]) == (span.trace_id.hex(), span.span_id.hex())
    assert {"trace_id": line["trace_id"], "span_id": line["span_id"]} in exemplars
