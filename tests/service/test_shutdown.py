"""Shutdown of the running backend: requests in progress, and export of spans."""

import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.backend import ITEMS, Backend, running_backend
from tests.support.otlp_receiver import receiver
from tests.support.waiting import wait_until

# With this delay, and fewer spans than a batch, only the flush at shutdown exports spans.
LONG_EXPORT_DELAY = {"OTEL_BSP_SCHEDULE_DELAY": "60000"}  # milliseconds
SPANS = 60


def stop(backend: Backend, sent: signal.Signals = signal.SIGTERM) -> float:
    """Send the signal and return the seconds until the process has ended."""
    started = time.monotonic()
    backend.running.process.send_signal(sent)
    backend.running.process.wait(30)
    return time.monotonic() - started


@pytest.fixture(params=["connection refused", "no response", "unknown host"])
def unreachable_endpoint(request: pytest.FixtureRequest) -> Iterator[str]:
    """Return an OTLP endpoint to which spans cannot be exported."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if request.param == "no response":
            listener.listen()
        # A label with more than 63 characters is invalid, so no DNS query leaves this process.
        host = "tempo" * 13 if request.param == "unknown host" else "127.0.0.1"
        yield f"http://{host}:{listener.getsockname()[1]}"


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_all_spans_are_exported_at_shutdown(
    yes_project: Path, tmp_path: Path, sent: signal.Signals
) -> None:
    with (
        receiver() as tempo,
        running_backend(
            yes_project, tmp_path / "app.db", endpoint=tempo.endpoint, **LONG_EXPORT_DELAY
        ) as backend,
    ):
        for _ in range(SPANS):
            backend.get(ITEMS)
        assert tempo.spans == []
        seconds = stop(backend, sent)
        assert len(tempo.spans) == SPANS
        assert seconds < 3


def test_unreachable_trace_store_does_not_delay_shutdown(
    yes_project: Path, tmp_path: Path, unreachable_endpoint: str
) -> None:
    with running_backend(
        yes_project, tmp_path / "app.db", endpoint=unreachable_endpoint, **LONG_EXPORT_DELAY
    ) as backend:
        for _ in range(SPANS):
            assert backend.get(ITEMS).status_code == 200
        assert stop(backend) < 3  # 1.5 s for the flush, and the shutdown of the server


def test_shutdown_is_in_time_despite_a_long_request(
    yes_project: Path, tmp_path: Path, unreachable_endpoint: str
) -> None:
    """Less than 5 s on an idle machine. Docker kills the container after 10 s."""
    with (
        running_backend(
            yes_project, tmp_path / "app.db", endpoint=unreachable_endpoint, **LONG_EXPORT_DELAY
        ) as backend,
        ThreadPoolExecutor() as pool,
    ):
        backend.get(ITEMS)
        response = pool.submit(backend.get, "/extra/slow?seconds=60")
        wait_until(lambda: backend.value("active_requests") == 1, "the request to be in progress")
        assert stop(backend) < 8
        assert isinstance(response.exception(), OSError) or response.result().status_code == 500


def test_requests_in_progress_complete_before_shutdown(yes_project: Path, tmp_path: Path) -> None:
    with (
        running_backend(yes_project, tmp_path / "app.db") as backend,
        ThreadPoolExecutor() as pool,
    ):
        response = pool.submit(backend.get, "/extra/slow?seconds=2")
        wait_until(lambda: backend.value("active_requests") == 1, "the request to be in progress")
        stop(backend)
        assert response.result().status_code == 200
        assert backend.log(logger="app.access", path="/extra/slow", status=200)
