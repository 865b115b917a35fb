"""Long and random traffic leaks no memory, file descriptors, threads or series."""

import http.client
import json
import math
import random
import string
import urllib.parse
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from tests.faults import observe
from tests.faults.load import latency_ms, running_load
from tests.faults.resources import Resources, excessive_growth
from tests.support.backend import ITEMS
from tests.support.compose_stack import Stack

pytestmark = pytest.mark.long

SOAK_SECONDS = 600
SOAK_RATE = 100.0
RANDOM_REQUESTS = 100_000
CLIENTS = 4
SAMPLES = 15
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE"]


def test_ten_minutes_of_load_leak_no_resources(
    fault_stack: Stack, record_result: Callable[[str, str], None]
) -> None:
    samples = []
    with running_load(fault_stack.url("backend"), SOAK_RATE) as load:
        for _ in range(SAMPLES):
            load.run_for(SOAK_SECONDS / SAMPLES)
            samples.append(Resources.measure(fault_stack))
    errors = sum(response.status != response.expected for response in load.responses)
    record_result(
        f"{SOAK_SECONDS / 60:g} minutes at {SOAK_RATE:g} requests per second",
        f"{len(load.responses):,} requests, {errors} unexpected responses, "
        f"p50 {latency_ms(load.responses, 50):.1f} ms, p99 {latency_ms(load.responses, 99):.1f} ms; {summary(samples)}",
    )
    assert errors == 0
    assert excessive_growth(samples) == {}


def test_a_hundred_thousand_random_requests_add_no_label_value(
    fault_stack: Stack, record_result: Callable[[str, str], None]
) -> None:
    address = urllib.parse.urlsplit(fault_stack.url("backend")).netloc
    send_all(address)  # so that all series of routes, methods and statuses exist
    send_random(address, 1000, seed=0)
    Resources.measure(fault_stack)  # waits for a scrape
    values, samples = label_values(fault_stack), []
    each = math.ceil(RANDOM_REQUESTS / SAMPLES / CLIENTS)
    with ThreadPoolExecutor(CLIENTS) as pool:
        for turn in range(SAMPLES):
            seeds = range(1 + turn * CLIENTS, 1 + (turn + 1) * CLIENTS)
            list(pool.map(lambda seed: send_random(address, each, seed), seeds))
            samples.append(Resources.measure(fault_stack))
    record_result(
        f"{RANDOM_REQUESTS:,} requests with random URLs, methods and headers",
        f"no new label value; {summary(samples)}",
    )
    assert label_values(fault_stack) == values
    assert excessive_growth(samples) == {}


def summary(samples: Sequence[Resources]) -> str:
    """Describe the first and the last sample."""
    print(*samples, sep="\n")  # pytest shows all of them when the test fails
    return f"first: {samples[0]}; last: {samples[-1]}"


def label_values(stack: Stack) -> dict[str, set[str]]:
    """Return all values of each label of the request counter."""
    series = [json.loads(labels) for labels in stack.query(observe.REQUESTS)]
    return {name: {each[name] for each in series} for name in ("method", "endpoint", "status")}


def send_all(address: str) -> None:
    """Request every route that random requests may match, with every method and every possible status."""
    paths = [
        "/",
        "/docs",
        "/docs/",
        "/docs/x",
        "/metrics/",
        "/metrics/x",
        ITEMS,
        f"{ITEMS}/",
        f"{ITEMS}/x",
        f"{ITEMS}/0",
    ]
    existing = [f"{ITEMS}/{number}" for number in range(2, 100)]  # every other test reads item 1
    with closing(http.client.HTTPConnection(address, timeout=30)) as connection:
        for method in [*METHODS, "UNKNOWN"]:
            for path in [*paths, *existing, *existing]:  # the second DELETE returns 404
                connection.request(method, path)
                connection.getresponse().read()


def send_random(address: str, number: int, seed: int) -> None:
    """Make a number of sequential random requests; their responses are ignored."""
    chance = random.Random(seed)  # noqa: S311 (for a test)
    with closing(http.client.HTTPConnection(address, timeout=30)) as connection:
        for turn in range(number):
            known = METHODS[turn % len(METHODS)]
            method = known if turn % 4 else text(chance, string.ascii_uppercase)
            start = chance.choice(["/", f"{ITEMS}/", "/docs/", "/metrics/"])
            path = urllib.parse.quote(start + text(chance, string.printable))
            name = f"x-{text(chance, string.ascii_lowercase)}"
            connection.request(method, path, headers={name: text(chance, string.ascii_letters)})
            connection.getresponse().read()


def text(chance: random.Random, alphabet: str) -> str:
    """Return 1 to 30 random characters."""
    return "".join(chance.choices(alphabet, k=chance.randint(1, 30)))
