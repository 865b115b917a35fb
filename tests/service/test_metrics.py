"""Metrics of the running backend."""

import random
import re
import string
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from prometheus_client import parser as text_parser
from websockets.sync.client import connect

from tests.support.backend import HEALTH, ITEMS, OPENMETRICS, Backend, running_backend
from tests.support.waiting import wait_until

REQUESTS, COUNT = "http_requests_total", "http_request_duration_seconds_count"
SUM = "http_request_duration_seconds_sum"
NOT_SAMPLED = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-00"}


@pytest.fixture(scope="module")
def backend(yes_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    database = tmp_path_factory.mktemp("database") / "app.db"
    with running_backend(yes_project, database) as running:
        yield running


def idle(backend: Backend) -> bool:
    return backend.value("active_requests") == 0


@pytest.mark.parametrize("headers", [{}, NOT_SAMPLED], ids=["sampled", "not sampled"])
@pytest.mark.parametrize(
    ("path", "endpoint", "status"),
    [
        (ITEMS, ITEMS, "200"),
        (f"{ITEMS}/1", f"{ITEMS}/{{item_id}}", "404"),
        (f"{ITEMS}/x", f"{ITEMS}/{{item_id}}", "422"),
        ("/v1/things/1", "/v1/things/{thing_id}", "200"),
        ("/v2/things/1", "/v2/things/{thing_id}", "200"),
        ("/mounted/a/slow?seconds=0", "/mounted/{tenant}/slow", "200"),
        ("/plain/a", "/plain/{name}", "200"),
        ("/docs", "/docs", "200"),
        ("/nowhere", "unmatched", "404"),
        ("/mounted/a/nowhere", "/mounted/{tenant}/{path}", "404"),
        ("/extra/raise", "/extra/raise", "500"),
    ],
)
def test_request_is_counted_and_timed_with_its_full_route(
    backend: Backend, path: str, endpoint: str, status: str, headers: dict[str, str]
) -> None:
    labels = {"method": "GET", "endpoint": endpoint}
    before = backend.value(REQUESTS, status=status, **labels), backend.value(COUNT, **labels)
    assert backend.get(path, headers=headers).status_code == int(status)
    after = backend.value(REQUESTS, status=status, **labels), backend.value(COUNT, **labels)
    assert after == (before[0] + 1, before[1] + 1)


def test_health_checks_and_scrapes_are_not_counted(backend: Backend) -> None:
    before = backend.value(REQUESTS)
    for path in (HEALTH, "/metrics", f"{HEALTH}?probe=1"):
        backend.get(path)
    assert backend.value(REQUESTS) == before
    assert not {s.labels.get("endpoint") for s in backend.samples()} & {HEALTH, "/metrics"}


def test_unknown_paths_and_methods_add_no_series(backend: Backend) -> None:
    def series() -> int:
        return len([s for s in backend.samples() if s.name.startswith("http_request")])

    def request(number: int) -> None:
        rng = random.Random(number)  # noqa: S311 (reproducible)
        path = "".join(rng.choices(string.ascii_letters + "/%.;", k=30)).replace("%", "%25")
        method = rng.choice(["GET", "BREW", "".join(rng.choices(string.ascii_uppercase, k=8))])
        requests.request(method, f"{backend.url}/{path}", timeout=30)

    for method in ("GET", "BREW"):
        requests.request(method, f"{backend.url}/nowhere", timeout=30)
    before = series()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(request, range(1000)))
    assert series() == before
    assert not {s.labels.get("method") for s in backend.samples()} - {None, "GET", "_OTHER"}


def test_exemplars_require_openmetrics_and_both_formats_parse(backend: Backend) -> None:
    backend.get(ITEMS)
    bucket = f'http_request_duration_seconds_bucket{{endpoint="{ITEMS}"'
    openmetrics, text = backend.get("/metrics", headers=OPENMETRICS), backend.get("/metrics")
    assert "openmetrics-text" in openmetrics.headers["content-type"]
    # http_request_duration_seconds_bucket{endpoint="/api/v1/items",...} 3.0 # {trace_id="0af7..."
    assert re.search(re.escape(bucket) + r'.* # \{.*trace_id="[0-9a-f]{32}"', openmetrics.text)
    assert "text/plain" in text.headers["content-type"]
    assert "trace_id" not in text.text
    families = text_parser.text_string_to_metric_families(text.text)
    assert {"http_requests", "http_request_duration_seconds", "active_requests"} <= {
        family.name for family in families
    }


@pytest.mark.parametrize("flags", ["00", "01"], ids=["not sampled", "sampled"])
def test_exemplars_link_only_to_sampled_traces(backend: Backend, flags: str) -> None:
    trace_id = f"{flags}{random.getrandbits(120):030x}"
    backend.get(ITEMS, headers={"traceparent": f"00-{trace_id}-{'1' * 16}-{flags}"})
    exemplars = [sample.exemplar.labels for sample in backend.samples() if sample.exemplar]
    assert (trace_id in [labels["trace_id"] for labels in exemplars]) == (flags == "01")


def test_concurrent_requests_are_active_until_their_end_and_counted(backend: Backend) -> None:
    before = backend.value(REQUESTS, endpoint="/extra/slow")
    with ThreadPoolExecutor(200) as pool:
        responses = [pool.submit(backend.get, "/extra/slow?seconds=6") for _ in range(200)]
        wait_until(lambda: backend.value("active_requests") == 200, "200 active requests")
        assert {response.result().status_code for response in responses} == {200}
    assert idle(backend)
    assert backend.value(REQUESTS, endpoint="/extra/slow") == before + 200


def test_duration_of_a_stream_includes_its_whole_body(backend: Backend) -> None:
    before = backend.value(SUM, endpoint="/extra/stream")
    assert len(backend.get("/extra/stream?chunks=5&seconds=0.1").content) == 5000
    wait_until(lambda: idle(backend), "no active requests")
    assert backend.value(SUM, endpoint="/extra/stream") - before >= 0.5


def test_stream_that_fails_is_counted_with_status_500(backend: Backend) -> None:
    failed = {"endpoint": "/extra/stream", "status": "500"}
    before = backend.value(REQUESTS, **failed)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        backend.get("/extra/stream?chunks=5&seconds=0&fail_after=2")
    wait_until(lambda: backend.value(REQUESTS, **failed) == before + 1, "the failure to be counted")
    assert idle(backend)


def test_request_is_not_active_after_its_client_disconnects(backend: Backend) -> None:
    with backend.get("/extra/stream?chunks=1000&seconds=0.05", stream=True):
        assert backend.value("active_requests") == 1
    wait_until(lambda: idle(backend), "the aborted request to end")


def test_client_disconnect_before_the_response_is_counted_with_status_499(
    backend: Backend,
) -> None:
    upload = {"method": "POST", "endpoint": "/extra/upload"}
    backend.disconnect_during_upload()
    wait_until(lambda: backend.value(REQUESTS, **upload) == 1, "the upload to be counted")
    assert backend.value(REQUESTS, status="499", **upload) == 1
    assert backend.wait_for_log(logger="app.access", path="/extra/upload")["status"] == 499
    assert idle(backend)


def test_background_task_is_not_part_of_the_request(backend: Backend) -> None:
    before = backend.value(SUM, endpoint="/extra/background")
    backend.get("/extra/background?seconds=1")
    assert idle(backend)
    assert backend.value(SUM, endpoint="/extra/background") - before < 1


def test_websockets_are_not_counted(backend: Backend) -> None:
    before = backend.value(REQUESTS)
    with connect(f"{backend.url.replace('http', 'ws')}/extra/echo") as websocket:
        websocket.send("hello")
        assert websocket.recv() == "hello"
    assert (backend.value(REQUESTS), idle(backend)) == (before, True)


def test_scrape_contains_process_metrics(backend: Backend) -> None:
    assert backend.value("process_resident_memory_bytes") > 1e7
    assert backend.value("process_cpu_seconds_total") > 0
