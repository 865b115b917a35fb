"""Faults of the backend under load: it is killed, stopped and scaled."""

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
from tests.faults.load import RATE, Response, running_load
from tests.support.backend import HEALTH, ITEMS
from tests.support.compose_stack import Stack
from tests.support.docker import docker
from tests.support.ports import fixed_ports
from tests.support.waiting import wait_until

STEADY_SECONDS = 5
STOP_SECONDS = 5.0  # Docker sends SIGKILL after 10
SLOW_BODY_SECONDS = 1.0
RecordResult = Callable[[str, str], None]


def item_names(stack: Stack) -> set[str]:
    """Return the names of all items in the database."""
    names: set[str] = set()
    while True:
        page = {"limit": 100, "offset": len(names)}
        items = requests.get(stack.url("backend") + ITEMS, params=page, timeout=10).json()
        if not items:
            return names
        names |= {item["name"] for item in items}


def acknowledged(responses: list[Response]) -> set[str]:
    """Return the names of the items that were created with status 201."""
    return {response.item for response in responses if response.item and response.status == 201}


def unexpected_responses(responses: list[Response]) -> list[Response]:
    """Return the responses with an unexpected status; without requests that have no response."""
    return [each for each in responses if each.status not in (each.expected, None)]


def test_a_killed_backend_loses_no_acknowledged_item(
    fault_stack: Stack, record_result: RecordResult
) -> None:
    with running_load(fault_stack.url("backend")) as load:
        load.run_for(STEADY_SECONDS)
        killed = time.time()
        with inject.killed(fault_stack, "backend"):
            load.run_for(STEADY_SECONDS)
    unanswered = [response for response in load.responses if response.status is None]
    downtime = max(response.due + response.seconds for response in unanswered) - killed
    scraped = wait_for_metric(fault_stack, killed)
    missing = acknowledged(load.responses) - item_names(fault_stack)
    record_result(
        "backend killed (SIGKILL)",
        f"down for {downtime:.1f} s, scraped again after {scraped:.1f} s; {len(unanswered)} of {len(load.responses)} requests "
        f"without a response, {len(missing)} acknowledged items lost",
    )
    assert not unexpected_responses(load.responses)
    assert not missing
    assert downtime < observe.RECOVERY_SECONDS
    assert scraped < observe.RECOVERY_SECONDS


def wait_for_metric(stack: Stack, since: float) -> float:
    """Wait until the backend is scraped, and return the seconds since a time."""
    wait_until(
        lambda: observe.scraped_since(stack, since), "a scrape", 2 * observe.RECOVERY_SECONDS
    )
    return time.time() - since


@pytest.mark.parametrize("tempo", ["with Tempo", "without Tempo"])
def test_a_stop_under_load_completes_requests_in_progress(
    fault_stack: Stack, record_result: RecordResult, tempo: str
) -> None:
    if tempo == "with Tempo":
        fault_stack.require("tempo")
    with ExitStack() as cleanup:
        if tempo == "without Tempo":
            cleanup.enter_context(inject.stopped(fault_stack, "tempo"))
        with running_load(fault_stack.url("backend")) as load, ThreadPoolExecutor() as pool:
            load.run_for(STEADY_SECONDS)
            started = threading.Event()
            slow = pool.submit(create_slowly, fault_stack.url("backend"), started)
            assert started.wait(timeout=10)
            stopping = time.time()
            docker("stop", inject.container_id(fault_stack, "backend"))
            finished = inject.inspect(fault_stack, "backend")["State"]["FinishedAt"]
            assert slow.result() == 201
        seconds = datetime.fromisoformat(finished).timestamp() - stopping
        answered = [response for response in load.responses if response.trace_id]
        lost, traces = 0, ""
        if tempo == "with Tempo":
            lost = observe.missing_traces(fault_stack, answered)
            traces = f", {lost} of their traces lost"
        fault_stack.run("start", "backend")
        fault_stack.wait_for_health("healthy", ["backend"])
    record_result(
        f"backend stopped (SIGTERM) {tempo}",
        f"exited after {seconds:.1f} s; the request in progress was completed; {len(answered)} requests were answered{traces}",
    )
    # The upstream call, which the backend makes to itself, may fail while it shuts down.
    late = [each for each in load.responses if (each.requests, each.status) == (2, 502)]
    assert all(each.due + each.seconds > stopping for each in late)
    assert unexpected_responses(load.responses) == late
    assert lost == 0
    assert seconds < STOP_SECONDS


def create_slowly(url: str, started: threading.Event) -> int:
    """Create an item with a body that is sent slowly, and return the status."""

    def slowly() -> Iterator[bytes]:
        for part in ('{"name": "', str(uuid.uuid4()), '"}'):
            yield part.encode()
            started.set()
            time.sleep(SLOW_BODY_SECONDS / 3)

    headers = {"content-type": "application/json"}
    return requests.post(url + ITEMS, data=slowly(), headers=headers, timeout=10).status_code


def test_three_backends_are_all_scraped(fault_stack: Stack, record_result: RecordResult) -> None:
    ports = fixed_ports(3)
    port_range = f"{min(ports)}-{max(ports)}"
    scale = ["up", "--detach", "--wait", "--no-deps", "--scale"]
    started = time.time()
    fault_stack.run(*scale, "backend=3", "backend", env={"BACKEND_PORT": port_range})
    try:
        scraped = wait_for_instances(fault_stack, 3, started)
        urls = replica_urls(fault_stack)
        before = sum(fault_stack.query('sum(http_requests_total{job="backend"})').values())
        with ExitStack() as cleanup:
            loads = [cleanup.enter_context(running_load(url, RATE / 3)) for url in urls]
            loads[0].run_for(STEADY_SECONDS)
        responses = [response for load in loads for response in load.responses]
        expected = before + sum(response.requests for response in responses)
        counted = 'sum(http_requests_total{job="backend"})'
        wait_until(
            lambda: list(fault_stack.query(counted).values()) == [expected],
            f"{expected:g} requests",
        )
    finally:
        scaled_down = time.time()
        fault_stack.run(*scale, "backend=1", "backend")
    removed = wait_for_instances(fault_stack, 1, scaled_down)
    record_result(
        "scaled to 3 backends and back",
        f"all scraped after {scraped:.1f} s; {len(responses)} requests to all three, all answered and counted; "
        f"two removed from Prometheus after {removed:.1f} s",
    )
    assert all(response.status == response.expected for response in responses)


def wait_for_instances(stack: Stack, number: int, since: float) -> float:
    """Wait until Prometheus has exactly this number of instances, and return the seconds since a time."""
    query = (
        f'count(up{{job="backend"}} == 1) == {number} and count(up{{job="backend"}}) == {number}'
    )
    wait_until(lambda: stack.query(query), f"{number} instances", observe.RECOVERY_SECONDS)
    return time.time() - since


def replica_urls(stack: Stack) -> list[str]:
    """Return the URL of each of the backend's containers on the host."""
    ids = stack.run("ps", "--quiet", "backend").stdout.split()
    urls = [f"http://{docker('port', each, '8000/tcp').strip()}" for each in ids]
    assert all(requests.get(url + HEALTH, timeout=10).ok for url in urls)
    return urls
