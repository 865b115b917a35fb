"""The backend's clock is set forward and back while it runs, beside a Prometheus whose clock is right."""

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
STEPS = {"forward an hour": "+1h", "back to the right time": "+0", "back an hour": "-1h"}


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """Return the file that the backend's clock follows: an offset such as ``+1h``."""
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
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # a step changes the time of day only
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


def test_a_step_of_the_clock_costs_no_request_no_count_and_no_span(
    backend: Backend,
    prometheus: Prometheus,
    tempo: Receiver,
    clock: Path,
    figure: Callable[[str, str], None],
) -> None:
    made = 0
    for name, offset in STEPS.items():
        clock.write_text(f"{offset}\n", encoding="utf-8")
        answers = [backend.get(f"{ITEMS}?limit={number + 1}") for number in range(REQUESTS)]
        assert {answer.status_code for answer in answers} == {200}, name
        made += REQUESTS
        counted = f'http_requests_total{{endpoint="{ITEMS}"}}'
        wait_until(lambda: prometheus.number(counted) == made, f"{made} requests after: {name}")  # noqa: B023
        wait_until(lambda: len(tempo.spans) == made, f"{made} spans after: {name}")  # noqa: B023
    longest = backend.value("http_request_duration_seconds_sum")
    assert 0 < longest < made
    figure(
        "clock of the backend set forward and back by an hour",
        f"{made} requests answered, counted and traced, none of them with a negative or an endless time",
    )
