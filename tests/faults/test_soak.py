"""Long and hostile traffic leaves nothing behind: no memory, files, threads or series."""

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
from tests.faults.resources import Resources, grown
from tests.support.backend import ITEMS
from tests.support.compose_stack import Stack

pytestmark = pytest.mark.long

SOAK_SECONDS = 600
SOAK_RATE = 100.0
RANDOM_REQUESTS = 100_000
CLIENTS = 4
SAMPLES = 15
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE"]


def test_nothing_grows_in_ten_minutes_of_load(
    faulty: Stack, figure: Callable[[str, str], None]
) -> None:
    samples = []
    with running_load(faulty.url("backend"), SOAK_RATE) as load:
        for _ in range(SAMPLES):
            load.go_on_for(SOAK_SECONDS / SAMPLES)
            samples.append(Resources.of(faulty))
    wrong = sum(answer.status != answer.expected for answer in load.answers)
    figure(
        f"{SOAK_SECONDS / 60:g} minutes at {SOAK_RATE:g} requests per second",
        f"{len(load.answers):,} requests, {wrong} answered otherwise than expected, "
        f"p50 {latency_ms(load.answers, 50):.1f} ms, p99 {latency_ms(load.answers, 99):.1f} ms; {summary(samples)}",
    )
    assert wrong == 0
    assert grown(samples) == {}


def test_a_hundred_thousand_random_requests_add_no_label_value(
    faulty: Stack, figure: Callable[[str, str], None]
) -> None:
    address = urllib.parse.urlsplit(faulty.url("backend")).netloc
    send_all(address)  # each route and method is a series, and so is each status that it answers
    send_random(address, 1000, seed=0)
    Resources.of(faulty)  # which waits for a scrape
    values, samples = label_values(faulty), []
    each = math.ceil(RANDOM_REQUESTS / SAMPLES / CLIENTS)
    with ThreadPoolExecutor(CLIENTS) as pool:
        for turn in range(SAMPLES):
            seeds = range(1 + turn * CLIENTS, 1 + (turn + 1) * CLIENTS)
            list(pool.map(lambda seed: send_random(address, each, seed), seeds))
            samples.append(Resources.of(faulty))
    figure(
        f"{RANDOM_REQUESTS:,} requests with random URLs, methods and headers",
        f"no new value of any label; {summary(samples)}",
    )
    assert label_values(faulty) == values
    assert grown(samples) == {}


def summary(samples: Sequence[Resources]) -> str:
    """Return the first and the last sample in words."""
    print(*samples, sep="\n")  # pytest shows all of them when the test fails
    return f"first: {samples[0]}; last: {samples[-1]}"


def label_values(stack: Stack) -> dict[str, set[str]]:
    """Return all values of each label of the requests that were counted."""
    series = [json.loads(labels) for labels in stack.query(observe.REQUESTS)]
    return {name: {each[name] for each in series} for name in ("method", "endpoint", "status")}


def send_all(address: str) -> None:
    """Ask every route that random requests may find, with every method, in each way that it can answer."""
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
            for path in [*paths, *existing, *existing]:  # the second DELETE finds nothing
                connection.request(method, path)
                connection.getresponse().read()


def send_random(address: str, number: int, seed: int) -> None:
    """Make so many requests, whose answers do not matter, one after the other."""
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
    """Return up to 30 characters."""
    return "".join(chance.choices(alphabet, k=chance.randint(1, 30)))
