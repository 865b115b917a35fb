"""A steady load on the backend, whatever happens to the rest: every answer is kept."""

import asyncio
import math
import os
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import httpx2

from tests.support.backend import API, ITEMS
from tests.support.percentile import percentile
from tests.support.waiting import wait_until

RATE = 50.0  # requests per second
TIMEOUT_SECONDS = 30.0
PRIORITY = -10  # of the thread that makes the requests, where the user may set it: nice(1)

# Method, path, status of the answer. The call to the upstream makes a second request of the same trace.
UPSTREAM = ("GET", f"{API}/upstream/items/1", 200)
MIX = [
    ("POST", ITEMS, 201),
    ("GET", f"{ITEMS}/1", 200),
    ("GET", ITEMS, 200),
    ("GET", f"{ITEMS}/1", 200),
    ("GET", "/nowhere", 404),
    ("GET", f"{ITEMS}/1", 200),
    ("GET", ITEMS, 200),
    UPSTREAM,
    ("GET", f"{ITEMS}/1", 200),
    ("DELETE", f"{ITEMS}/999999999", 404),
]


@dataclass(frozen=True)
class Answer:
    """One request that was made, and what came of it.

    Attributes:
        due: When it was to be sent, in seconds since the epoch.
        seconds: From then to the end of the answer, so that waiting to be sent counts too.
        expected: Status that it has without a fault.
        status: Status that it has; None if there was no answer.
        trace_id: From the header of the answer.
        requests: How many requests the backend counts for it.
        item: Name of the item that it creates, if it does.
    """

    due: float
    seconds: float
    expected: int
    status: int | None
    trace_id: str
    requests: int
    item: str | None


@dataclass
class Load:
    """Requests at a steady rate; slow answers do not slow it down (it is an open loop).

    Attributes:
        url: Address of the backend.
        answers: One for each request that has ended, in the order of their ends.
        rate: Requests per second.
    """

    url: str
    rate: float = RATE
    answers: list[Answer] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def go_on_for(self, seconds: float) -> None:
        """Wait until so many more seconds' worth of requests have ended."""
        wanted = len(self.answers) + math.ceil(seconds * self.rate)
        wait_until(
            lambda: len(self.answers) >= wanted,
            f"{wanted} answers",
            timeout=seconds + TIMEOUT_SECONDS,
        )

    def since(self, start: float, end: float = math.inf) -> list[Answer]:
        """Return the answers to requests that were due in this time."""
        return [answer for answer in self.answers if start <= answer.due < end]

    async def _make_all(self) -> None:
        with suppress(OSError):  # so that what is measured is the backend, where one may
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), PRIORITY)
        # Idle connections are closed before uvicorn does it, after 5 s, perhaps just when one is used.
        limits = httpx2.Limits(max_keepalive_connections=20, keepalive_expiry=2)
        async with (
            httpx2.AsyncClient(
                base_url=self.url, timeout=TIMEOUT_SECONDS, limits=limits, trust_env=False
            ) as client,
            asyncio.TaskGroup() as requests,
        ):
            started, number = time.time(), 0
            while not self._stopped.is_set():
                due = started + number / self.rate
                await asyncio.sleep(due - time.time())
                requests.create_task(self._make(client, MIX[number % len(MIX)], due))
                number += 1

    async def _make(
        self, client: httpx2.AsyncClient, what: tuple[str, str, int], due: float
    ) -> None:
        method, path, expected = what
        item = str(uuid.uuid4()) if method == "POST" else None
        try:
            answer = await client.request(method, path, json={"name": item} if item else None)
            status, trace_id = answer.status_code, answer.headers.get("x-trace-id", "")
        except httpx2.HTTPError:
            status, trace_id = None, ""
        requests = 2 if what is UPSTREAM else 1
        seconds = time.time() - due
        self.answers.append(Answer(due, seconds, expected, status, trace_id, requests, item))


@contextmanager
def running_load(url: str, rate: float = RATE) -> Iterator[Load]:
    """Make requests while the block runs, and wait for the last answers at its end."""
    load = Load(url, rate)
    thread = threading.Thread(target=lambda: asyncio.run(load._make_all()))
    thread.start()
    try:
        yield load
    finally:
        load._stopped.set()
        thread.join()


def latency_ms(answers: Sequence[Answer], percent: float) -> float:
    """Return a percentile of the response times, in milliseconds."""
    return percentile([answer.seconds for answer in answers], percent) * 1000
