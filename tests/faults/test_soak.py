"""Long and hostile traffic leaves nothing behind: no memory, files, threads or series."""

import http.client
import json
import random
import string
import urllib.parse
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import pytest

from tests.backend import ITEMS
from tests.faults import observe
from tests.faults.load import percentile, running_load
from tests.running import wait_until
from tests.stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.long]

SOAK_SECONDS = 600
WARM_SECONDS = 60  # until every thread and buffer is there that this load needs
SOAK_RATE = 100.0
RANDOM_REQUESTS = 100_000
CLIENTS = 4
MEMORY_MIB = 10.0
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE"]


@dataclass
class Resources:
    """What the backend has at one time."""

    memory: float  # MiB
    files: float
    threads: int
    series: float

    @classmethod
    def of(cls, stack: Stack) -> "Resources":
        """Look now; a scrape of now is waited for."""
        now = observe.Before.of(stack).time
        wait_until(lambda: observe.new_metric(stack, now), "a scrape")
        threads = stack.run(
            "exec", "-T", "backend", "sh", "-c", "ls /proc/*/task | grep -c '^[0-9]'"
        )
        query = 'scrape_samples_scraped{job="backend"}'
        (series,) = stack.query(query).values()
        files = observe.backend_value(stack, "process_open_fds")
        return cls(observe.memory(stack), files, int(threads.stdout), series)

    def __str__(self) -> str:
        return (
            f"{self.memory:.1f} MiB, {self.files:g} file descriptors, {self.threads} threads, "
            f"{self.series:g} series"
        )


def test_nothing_grows_in_ten_minutes_of_load(
    faulty: Stack, figure: Callable[[str, str], None]
) -> None:
    with running_load(faulty.url("backend"), SOAK_RATE) as load:
        load.go_on_for(WARM_SECONDS)
        before = Resources.of(faulty)
        load.go_on_for(SOAK_SECONDS)
        after = Resources.of(faulty)
    wrong = sum(answer.status != answer.expected for answer in load.answers)
    figure(
        f"{SOAK_SECONDS / 60:g} minutes at {SOAK_RATE:g} requests per second",
        f"{len(load.answers):,} requests, {wrong} answered otherwise than expected, "
        f"p50 {percentile(load.answers, 0.5):.1f} ms, p99 {percentile(load.answers, 0.99):.1f} ms; before: {before}; after: {after}",
    )
    assert wrong == 0
    assert after.memory - before.memory < MEMORY_MIB
    assert after.files <= before.files + 2  # a scrape or a batch of spans may be under way
    assert after.threads <= before.threads + 1
    assert after.series == before.series


def test_a_hundred_thousand_random_requests_add_no_label_value(
    faulty: Stack, figure: Callable[[str, str], None]
) -> None:
    address = urllib.parse.urlsplit(faulty.url("backend")).netloc
    send_all(address)  # each route and method is a series, and so is each status that it answers
    send_random(address, 1000, seed=0)
    before, values = Resources.of(faulty), label_values(faulty)
    with ThreadPoolExecutor(CLIENTS) as pool:
        each = RANDOM_REQUESTS // CLIENTS
        list(pool.map(lambda seed: send_random(address, each, seed), range(1, CLIENTS + 1)))
    after = Resources.of(faulty)
    figure(
        f"{RANDOM_REQUESTS:,} requests with random URLs, methods and headers",
        f"no new value of any label; before: {before}; after: {after}",
    )
    assert label_values(faulty) == values  # how they combine is chance, and bounded by their number
    assert after.memory - before.memory < MEMORY_MIB


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
