"""Injection through requests, redaction of secrets, and limits for callers."""

import json
import socket
import time
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.backend import API, HEALTH, ITEMS, OPENMETRICS, Backend, running_backend
from tests.support.otlp_receiver import Receiver, attributes

MARK = "injected"  # part of every text in the corpus
CORPUS = {
    "line breaks": f'\r\n{{"level":"critical","message":"{MARK}"}}\r\n',
    "unicode line breaks": f"\u0085\u2028\u2029\x0b\x0c\x1c{MARK}",
    "terminal": f"\x1b]0;{MARK}\x07\x1b[2J\x1b[31m\x9b31m\x08\x7f",
    "text direction": f"\u202e\u2066\u200f{MARK}\u2069\ufeff",
    "json": f'","level":"critical","{MARK}":{{"a":[1,"',
    "labels": f'"}} {MARK} 1\n{MARK}{{a="b"}} 1 # {{trace_id="{MARK}"}}',
    "formats": f"%s%(message)s%n{{0}}{{{MARK}.__class__}}${{{MARK}}}",
    "not unicode": f"\udcff\udcfe{MARK}\x00",
    "huge": MARK * 4000,
}
LOG_FIELDS = {
    *("timestamp", "level", "logger", "message", "trace_id", "span_id", "exception"),
    *("method", "path", "endpoint", "status", "duration_ms", "client", "order"),
}
SPAN_FIELDS = {
    *("http.request.method", "http.request.method_original", "http.response.status_code"),
    *("http.route", "network.protocol.version", "server.address", "server.port", "url.path"),
    *("url.query", "url.scheme", "error.type"),
}
HIDDEN = "hunter2s"


def escaped(text: str) -> str:
    """Return a text with every byte percent-encoded."""
    return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogateescape"))


def send(backend: Backend, head: bytes) -> bytes:
    """Send a possibly invalid request as raw bytes and return the response."""
    address = urlsplit(backend.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(head)
        response = b""
        try:
            while part := connection.recv(65536):
                response += part
        except ConnectionResetError:
            pass  # the server did not read the whole request
        return response


def all_spans(backend: Backend, tempo: Receiver) -> list[Span]:
    """Wait for the span of one more request, which is exported last, and return all spans."""
    trace_id = uuid.uuid4().hex
    backend.get("/last", headers={"traceparent": f"00-{trace_id}-{'1' * 16}-01"})
    tempo.wait_for_trace(trace_id)
    backend.wait_for_log(trace_id=trace_id)
    return tempo.spans


@pytest.mark.parametrize("text", CORPUS.values(), ids=CORPUS)
def test_request_content_is_never_interpreted(backend: Backend, tempo: Receiver, text: str) -> None:
    raw = text.encode("utf-8", "surrogateescape")
    end = b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    target = f"/extra/log?message={escaped(text)}&{escaped(text)}={escaped(text)}".encode()
    for head in (
        b"GET /" + escaped(text).encode() + end + b"\r\n",
        b"GET " + target + end + b"\r\n",
        b"GET /extra/raise?message=" + escaped(text).encode() + end + b"\r\n",
        b"GET /" + raw + end + b"\r\n",
        raw + b" /" + end + b"\r\n",
        MARK.upper().encode() + b" /" + end + b"\r\n",
        b"GET /" + end + b"X-Header: " + raw + b"\r\n\r\n",
        b"GET /" + end + b"User-Agent: " + raw + b"\r\nHost: " + raw + b"\r\n\r\n",
        b"GET /" + end + b"traceparent: " + raw + b"\r\ntracestate: a=" + raw + b"\r\n\r\n",
        b"GET /" + end + raw + b": x\r\n\r\n",
    ):
        send(backend, head)
    spans = all_spans(backend, tempo)

    output = backend.running.log.read_bytes().decode("ascii")
    assert all(line.isprintable() for line in output.split("\n"))
    lines = [json.loads(line) for line in output.split("\n") if line]
    assert {name for line in lines for name in line} <= LOG_FIELDS
    assert {line["level"] for line in lines} <= {"info", "warning", "error"}
    assert MARK not in str({(line["logger"], line.get("endpoint")) for line in lines})
    assert max(len(line.get("path", "")) for line in lines) <= 512
    assert max(map(len, output.split("\n"))) <= 200_000  # all characters escaped

    assert {name for span in spans for name in attributes(span)} <= SPAN_FIELDS
    assert MARK not in str({span.name for span in spans})
    items = [*spans, *(event for span in spans for event in span.events)]
    assert max(len(str(value)) for each in items for value in attributes(each).values()) <= 4099

    samples = backend.samples()  # fails if the response cannot be parsed
    assert MARK not in backend.get("/metrics", headers=OPENMETRICS).text
    assert {name for sample in samples if sample.exemplar for name in sample.exemplar.labels} == {
        "trace_id",
        "span_id",
    }


def test_secrets_in_a_request_are_redacted_in_logs_spans_and_metrics(
    backend: Backend, tempo: Receiver
) -> None:
    query = f"message=password%3D{HIDDEN}&access_token={HIDDEN}&X-Amz-Signature={HIDDEN}"
    query += f"&code={HIDDEN}&user[password]={HIDDEN}&token%5B%5D={HIDDEN}&pwd+={HIDDEN}"
    query += f"&q=%7B%22password%22%3A%22{HIDDEN}%22%7D"
    headers = {
        "authorization": f"Bearer {HIDDEN}",
        "cookie": f"session={HIDDEN}; id={HIDDEN}",
        "x-api-key": HIDDEN,
    }
    for path in ("/extra/log", "/extra/raise", "/extra/secrets", f"/a;token={HIDDEN}"):
        backend.get(f"{path}?{query}", headers=headers)
    spans = all_spans(backend, tempo)
    assert "password=[REDACTED]" in backend.log(logger="app.error")[-1]["exception"]
    assert "access_token=[REDACTED]" in str([attributes(span).get("url.query") for span in spans])
    assert HIDDEN not in backend.running.output()
    assert HIDDEN not in str(spans)
    assert HIDDEN not in backend.get("/metrics", headers=OPENMETRICS).text


def test_secrets_in_spans_of_the_application_are_redacted(
    backend: Backend, tempo: Receiver
) -> None:
    backend.get(f"/extra/span?secret={HIDDEN}")
    (custom,) = [span for span in all_spans(backend, tempo) if span.name == "custom"]
    assert attributes(custom) == {"password": "[REDACTED]"}
    assert [event.name for event in custom.events] == ["requested", "exception"]
    assert custom.status.message == "RuntimeError: Bearer [REDACTED]"
    assert HIDDEN not in str(tempo.spans)


def test_log_line_that_cannot_be_formatted_does_not_fail_the_request(backend: Backend) -> None:
    assert backend.get("/extra/unloggable").status_code == 200
    assert "..." in str(backend.wait_for_log(message="cyclic")["order"])
    assert backend.wait_for_log(message="%d (cannot be formatted: TypeError)")["trace_id"]


def test_baggage_of_a_caller_is_not_propagated(backend: Backend) -> None:
    backend.get("/extra/call?secret=x&path=/extra/secrets", headers={"baggage": "user=jane"})
    headers = backend.log(logger="app.extra")[-1]["headers"]
    assert "traceparent" in headers
    assert "baggage" not in headers


def test_secrets_in_the_url_of_an_outgoing_request_are_redacted(
    backend: Backend, tempo: Receiver
) -> None:
    backend.get(f"/extra/call?secret={HIDDEN}")
    calls = [span for span in all_spans(backend, tempo) if span.kind == Span.SPAN_KIND_CLIENT]
    assert attributes(calls[-1])["url.full"] == (f"{backend.url}{ITEMS}?api_key=[REDACTED]&limit=1")
    assert HIDDEN not in str(tempo.spans)


@pytest.mark.parametrize("prefix", ["", "+"], ids=["replaced", "extended"])
def test_redacted_names_can_be_set(yes_project: Path, tmp_path: Path, prefix: str) -> None:
    names = f"{prefix}colour, *size"
    with running_backend(
        yes_project, tmp_path / "app.db", APP_REDACTED_PARAMETERS=names
    ) as service:
        for message in ("Colour=red", "shoe_size=42", "token=t", "the last"):
            service.get("/extra/log", params={"message": message})
        service.wait_for_log(message="the last")
        messages = [line["message"] for line in service.log(logger="app.extra")]
        token = "token=[REDACTED]" if prefix else "token=t"
        assert messages == ["Colour=[REDACTED]", "shoe_size=[REDACTED]", token, "the last"]


def test_metrics_require_the_token_if_one_is_set(yes_project: Path, tmp_path: Path) -> None:
    with running_backend(
        yes_project, tmp_path / "app.db", **{"APP_METRICS_TOKEN": "the token"}
    ) as service:
        responses = [
            service.get("/metrics", headers={"authorization": value} if value else {})
            for value in (None, "the token", "Bearer", "Bearer the tokeN", "Bearer tökén")
        ]
        assert {response.status_code for response in responses} == {401}
        assert {response.headers["www-authenticate"] for response in responses} == {"Bearer"}
        assert not [response for response in responses if "python_info" in response.text]
        authorized = service.get("/metrics", headers={"authorization": "Bearer the token"})
        assert (authorized.status_code, "python_info" in authorized.text) == (200, True)
        assert service.get(HEALTH).ok
        assert "the token" not in service.running.output()


def test_traces_sampled_by_callers_are_limited(
    yes_project: Path, tempo: Receiver, tmp_path: Path
) -> None:
    """Callers cannot avoid the limit with trace ids below the service's own sampling ratio."""
    settings = {"OTEL_TRACES_SAMPLER_ARG": "0.001", "APP_TRACED_CALLERS": "5"}
    with running_backend(
        yes_project, tmp_path / "app.db", endpoint=tempo.endpoint, **settings
    ) as limited:
        before, started = len(tempo.spans), time.monotonic()
        for _ in range(100):
            sampled = f"00-{uuid.uuid4().hex[:16]}{'0' * 16}-{'1' * 16}-01"
            limited.get(ITEMS, headers={"traceparent": sampled})
        seconds = time.monotonic() - started
        limited.running.process.terminate()
        limited.running.process.wait(15)
        assert 5 <= len(tempo.spans) - before <= 5 + 5 * seconds + 3


def test_sampling_ratio_applies_above_the_limit(backend: Backend, tempo: Receiver) -> None:
    """With the default ratio of 1, every trace of a caller is complete."""
    ids = [uuid.uuid4().hex for _ in range(40)]
    for trace_id in ids:
        backend.get(ITEMS, headers={"traceparent": f"00-{trace_id}-{'1' * 16}-01"})
    assert set(ids) <= {span.trace_id.hex() for span in all_spans(backend, tempo)}


def test_outgoing_request_continues_the_trace_of_the_caller(
    backend: Backend, tempo: Receiver
) -> None:
    trace_id = uuid.uuid4().hex
    traced = {"traceparent": f"00-{trace_id}-{'1' * 16}-01", "tracestate": "vendor=1"}
    backend.get(f"{API}/upstream/items/1", headers=traced)
    spans = [span for span in all_spans(backend, tempo) if span.trace_id.hex() == trace_id]
    assert [span.trace_state for span in spans] == ["vendor=1"] * 3
