"""The backend itself is killed, stopped, restarted, and run as three, under load."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime

import pytest
import requests

from tests.faults import inject, observe
from tests.faults.load import RATE, Answer, running_load
from tests.support.backend import HEALTH, ITEMS
from tests.support.compose_stack import Stack
from tests.support.docker import docker
from tests.support.ports import fixed_ports
from tests.support.waiting import wait_until

STEADY_SECONDS = 5
STOP_SECONDS = 5.0  # of Docker's 10
SLOW_BODY_SECONDS = 1.0
Figure = Callable[[str, str], None]


def stored(stack: Stack) -> set[str]:
    """Return the names of all items."""
    names: set[str] = set()
    while True:
        page = {"limit": 100, "offset": len(names)}
        items = requests.get(stack.url("backend") + ITEMS, params=page, timeout=10).json()
        if not items:
            return names
        names |= {item["name"] for item in items}


def created(answers: list[Answer]) -> set[str]:
    """Return the names of the items whose creation was acknowledged."""
    return {answer.item for answer in answers if answer.item and answer.status == 201}


def other_answers(answers: list[Answer]) -> list[Answer]:
    """Return the answers that are neither as expected nor missing."""
    return [each for each in answers if each.status not in (each.expected, None)]


def test_a_killed_backend_comes_back_with_all_that_it_acknowledged(
    faulty: Stack, figure: Figure
) -> None:
    with running_load(faulty.url("backend")) as load:
        load.go_on_for(STEADY_SECONDS)
        killed = time.time()
        with inject.killed(faulty, "backend"):
            load.go_on_for(STEADY_SECONDS)
    unanswered = [answer for answer in load.answers if answer.status is None]
    away = max(answer.due + answer.seconds for answer in unanswered) - killed
    back = wait_for_metric(faulty, killed)
    missing = created(load.answers) - stored(faulty)
    figure(
        "backend killed (SIGKILL)",
        f"away for {away:.1f} s, scraped again after {back:.1f} s; {len(unanswered)} of {len(load.answers)} requests "
        f"unanswered, {len(missing)} acknowledged items lost",
    )
    assert not other_answers(load.answers)
    assert not missing
    assert away < observe.RECOVERY_SECONDS
    assert back < observe.RECOVERY_SECONDS


def wait_for_metric(stack: Stack, since: float) -> float:
    """Return the seconds until the backend was scraped after a time."""
    wait_until(lambda: observe.new_metric(stack, since), "a scrape", 2 * observe.RECOVERY_SECONDS)
    return time.time() - since


@pytest.mark.parametrize("tempo", ["with Tempo", "without Tempo"])
def test_a_stop_under_load_finishes_what_it_has_begun(
    faulty: Stack, figure: Figure, tempo: str
) -> None:
    if tempo == "with Tempo":
        faulty.need("tempo")
    with ExitStack() as lasting:
        if tempo == "without Tempo":
            lasting.enter_context(inject.stopped(faulty, "tempo"))
        with running_load(faulty.url("backend")) as load, ThreadPoolExecutor() as pool:
            load.go_on_for(STEADY_SECONDS)
            begun = threading.Event()
            slow = pool.submit(create_slowly, faulty.url("backend"), begun)
            assert begun.wait(timeout=10)
            stopping = time.time()
            docker("stop", inject.container(faulty, "backend"))
            finished = inject.state(faulty, "backend")["State"]["FinishedAt"]
            assert slow.result() == 201
        seconds = datetime.fromisoformat(finished).timestamp() - stopping
        answered = [answer for answer in load.answers if answer.trace_id]
        lost, kept = 0, ""
        if tempo == "with Tempo":
            lost = observe.missing_traces(faulty, answered)
            kept = f", {lost} of their traces lost"
        faulty.run("start", "backend")
        faulty.wait_for_health("healthy", ["backend"])
    figure(
        f"backend stopped (SIGTERM) {tempo}",
        f"ended after {seconds:.1f} s; the request in progress was answered; {len(answered)} requests were answered{kept}",
    )
    # A service that calls itself may be on its way out by the time of the inner call.
    late = [each for each in load.answers if (each.requests, each.status) == (2, 502)]
    assert all(each.due + each.seconds > stopping for each in late)
    assert other_answers(load.answers) == late
    assert lost == 0
    assert seconds < STOP_SECONDS


def create_slowly(url: str, begun: threading.Event) -> int:
    """Create an item with a body that takes a while to come, and return the status."""

    def slowly() -> Iterator[bytes]:
        for part in ('{"name": "', str(uuid.uuid4()), '"}'):
            yield part.encode()
            begun.set()
            time.sleep(SLOW_BODY_SECONDS / 3)  # a slow client

    headers = {"content-type": "application/json"}
    return requests.post(url + ITEMS, data=slowly(), headers=headers, timeout=10).status_code


def test_three_backends_share_the_work_and_are_all_seen(faulty: Stack, figure: Figure) -> None:
    ports = fixed_ports(3)
    span = f"{min(ports)}-{max(ports)}"
    scale = ["up", "--detach", "--wait", "--no-deps", "--scale"]
    started = time.time()
    faulty.run(*scale, "backend=3", "backend", env={"BACKEND_PORT": span})
    try:
        seen = wait_for_instances(faulty, 3, started)
        urls = replica_urls(faulty)
        before = sum(faulty.query('sum(http_requests_total{job="backend"})').values())
        with ExitStack() as lasting:
            loads = [lasting.enter_context(running_load(url, RATE / 3)) for url in urls]
            loads[0].go_on_for(STEADY_SECONDS)
        answers = [answer for load in loads for answer in load.answers]
        wanted = before + sum(answer.requests for answer in answers)
        counted = 'sum(http_requests_total{job="backend"})'
        wait_until(lambda: list(faulty.query(counted).values()) == [wanted], f"{wanted:g} requests")
    finally:
        scaled_down = time.time()
        faulty.run(*scale, "backend=1", "backend")
    gone = wait_for_instances(faulty, 1, scaled_down)
    figure(
        "scaled to 3 backends and back",
        f"all seen by Prometheus after {seen:.1f} s; {len(answers)} requests over all three, every one answered and "
        f"counted; the two gone from it after {gone:.1f} s",
    )
    assert all(answer.status == answer.expected for answer in answers)


def wait_for_instances(stack: Stack, number: int, since: float) -> float:
    """Return the seconds until Prometheus sees exactly so many instances."""
    query = (
        f'count(up{{job="backend"}} == 1) == {number} and count(up{{job="backend"}}) == {number}'
    )
    wait_until(lambda: stack.query(query), f"{number} instances", observe.RECOVERY_SECONDS)
    return time.time() - since


def replica_urls(stack: Stack) -> list[str]:
    """Return where each of the backend's containers answers on this machine."""
    ids = stack.run("ps", "--quiet", "backend").stdout.split()
    urls = [f"http://{docker('port', each, '8000/tcp').strip()}" for each in ids]
    assert all(requests.get(url + HEALTH, timeout=10).ok for url in urls)
    return urls
