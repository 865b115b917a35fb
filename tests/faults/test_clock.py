"""The backend's clock is set forward and back while it runs; the clock of Prometheus stays correct."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.backend import ITEMS, Backend, running_backend
from tests.support.otlp_receiver import Receiver, receiver
from tests.support.prerequisites import unavailable
from tests.support.prometheus import Prometheus, running_prometheus
from tests.support.waiting import wait_until

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
REQUESTS = 20
STEPS = {"forward an hour": "+1h", "back to the correct time": "+0", "back an hour": "-1h"}


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """Return the file that sets the offset of the backend's clock, for example ``+1h``."""
    if not LIBRARIES or not shutil.which("faketime"):
        unavailable("the program faketime is missing")
    file = tmp_path / "clock"
    file.write_text("+0\n", encoding="utf-8")
    return file


@pytest.fixture
def tempo() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


@pytest.fixture
def backend(yes_project: Path, tmp_path: Path, clock: Path, tempo: Receiver) -> Iterator[Backend]:
    variables = {
        "LD_PRELOAD": str(LIBRARIES[0]),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # only the wall clock is changed
    }
    database = tmp_path / "app.db"
    with running_backend(yes_project, database, endpoint=tempo.endpoint, **variables) as running:
        yield running


@pytest.fixture
def prometheus(backend: Backend, tmp_path: Path) -> Iterator[Prometheus]:
    folder = tmp_path / "prometheus"
    folder.mkdir()
    with running_prometheus(backend.url.removeprefix("http://"), folder) as running:
        yield running


def test_a_clock_step_loses_no_request_metric_or_span(
    backend: Backend,
    prometheus: Prometheus,
    tempo: Receiver,
    clock: Path,
    record_result: Callable[[str, str], None],
) -> None:
    sent = 0
    for name, offset in STEPS.items():
        clock.write_text(f"{offset}\n", encoding="utf-8")
        responses = [backend.get(f"{ITEMS}?limit={number + 1}") for number in range(REQUESTS)]
        assert {response.status_code for response in responses} == {200}, name
        sent += REQUESTS
        counted = f'http_requests_total{{endpoint="{ITEMS}"}}'
        wait_until(lambda: prometheus.number(counted) == sent, f"{sent} requests after: {name}")  # noqa: B023
        wait_until(lambda: len(tempo.spans) == sent, f"{sent} spans after: {name}")  # noqa: B023
    longest = backend.value("http_request_duration_seconds_sum")
    assert 0 < longest < sent
    record_result(
        "clock of the backend set forward and back by an hour",
        f"{sent} requests answered, counted and traced, none with a negative or infinite duration",
    )
