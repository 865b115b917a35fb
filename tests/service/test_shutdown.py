"""How the running service ends: finished requests are answered, and their spans exported."""

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

# Long enough, and fewer spans than a batch, so that only the flush at the end exports anything.
UNHURRIED = {"OTEL_BSP_SCHEDULE_DELAY": "60000"}
SPANS = 60


def stop(backend: Backend, sent: signal.Signals = signal.SIGTERM) -> float:
    """Send the signal and return how many seconds the process took to end."""
    started = time.monotonic()
    backend.running.process.send_signal(sent)
    backend.running.process.wait(30)
    return time.monotonic() - started


@pytest.fixture(params=["refuses", "accepts and never answers", "has no name"])
def dead_endpoint(request: pytest.FixtureRequest) -> Iterator[str]:
    """Return an endpoint where nobody takes spans."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if request.param == "accepts and never answers":
            listener.listen()
        # A label of more than 63 characters: no resolver outside this process is asked for it.
        name = "tempo" * 13 if request.param == "has no name" else "127.0.0.1"
        yield f"http://{name}:{listener.getsockname()[1]}"


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_every_span_is_exported_before_the_end(
    yes_project: Path, tmp_path: Path, sent: signal.Signals
) -> None:
    with (
        receiver() as tempo,
        running_backend(
            yes_project, tmp_path / "app.db", endpoint=tempo.endpoint, **UNHURRIED
        ) as backend,
    ):
        for _ in range(SPANS):
            backend.get(ITEMS)
        assert tempo.spans == []
        seconds = stop(backend, sent)
        assert len(tempo.spans) == SPANS
        assert seconds < 3


def test_an_unreachable_trace_store_does_not_hold_up_the_end(
    yes_project: Path, tmp_path: Path, dead_endpoint: str
) -> None:
    with running_backend(
        yes_project, tmp_path / "app.db", endpoint=dead_endpoint, **UNHURRIED
    ) as backend:
        for _ in range(SPANS):
            assert backend.get(ITEMS).status_code == 200
        assert stop(backend) < 3  # 1.5 s for the flush, and what the server itself takes


def test_the_end_comes_in_time_even_with_a_request_that_never_ends(
    yes_project: Path, tmp_path: Path, dead_endpoint: str
) -> None:
    """In less than 5 s on an idle machine; after 10 s Docker kills the container."""
    with (
        running_backend(
            yes_project, tmp_path / "app.db", endpoint=dead_endpoint, **UNHURRIED
        ) as backend,
        ThreadPoolExecutor() as pool,
    ):
        backend.get(ITEMS)
        answer = pool.submit(backend.get, "/extra/slow?seconds=60")
        wait_until(lambda: backend.value("active_requests") == 1, "the request to be in progress")
        assert stop(backend) < 8
        assert isinstance(answer.exception(), OSError) or answer.result().status_code == 500


def test_requests_in_progress_are_answered_before_the_end(
    yes_project: Path, tmp_path: Path
) -> None:
    with (
        running_backend(yes_project, tmp_path / "app.db") as backend,
        ThreadPoolExecutor() as pool,
    ):
        answer = pool.submit(backend.get, "/extra/slow?seconds=2")
        wait_until(lambda: backend.value("active_requests") == 1, "the request to be in progress")
        stop(backend)
        assert answer.result().status_code == 200
        assert backend.log(logger="app.access", path="/extra/slow", status=200)
