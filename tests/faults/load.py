"""An open-loop load generator for the backend, which records every response."""

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
PRIORITY = -10  # nice value of the load thread, if the user may set it

# Method, path, expected status. The upstream call causes a second request in the same trace.
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
class Response:
    """One request and its response.

    Attributes:
        due: When it should have been sent, in seconds since the epoch.
        seconds: Latency from `due`, so it includes a delay before sending.
        expected: Expected status.
        status: Actual status; None if there was no response.
        trace_id: From the response header.
        requests: How many requests the backend counts for it.
        item: Name of the item that it creates, if any.
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
    """Requests at a constant rate, whatever their latency (open loop).

    Attributes:
        url: Base URL of the backend.
        responses: Of all completed requests, in order of completion.
        rate: Requests per second.
    """

    url: str
    rate: float = RATE
    responses: list[Response] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def run_for(self, seconds: float) -> None:
        """Wait until as many more requests have completed as are sent in this time."""
        wanted = len(self.responses) + math.ceil(seconds * self.rate)
        wait_until(
            lambda: len(self.responses) >= wanted,
            f"{wanted} responses",
            timeout=seconds + TIMEOUT_SECONDS,
        )

    def since(self, start: float, end: float = math.inf) -> list[Response]:
        """Return the responses to requests that were due in this interval."""
        return [response for response in self.responses if start <= response.due < end]

    async def _send_all(self) -> None:
        with suppress(OSError):  # so that delays of the load generator do not count as latency
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), PRIORITY)
        # Close idle connections before uvicorn does, after 5 s; else a request may meet a closed connection.
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
                requests.create_task(self._send(client, MIX[number % len(MIX)], due))
                number += 1

    async def _send(
        self, client: httpx2.AsyncClient, request: tuple[str, str, int], due: float
    ) -> None:
        method, path, expected = request
        item = str(uuid.uuid4()) if method == "POST" else None
        try:
            response = await client.request(method, path, json={"name": item} if item else None)
            status, trace_id = response.status_code, response.headers.get("x-trace-id", "")
        except httpx2.HTTPError:
            status, trace_id = None, ""
        requests = 2 if request is UPSTREAM else 1
        seconds = time.time() - due
        self.responses.append(Response(due, seconds, expected, status, trace_id, requests, item))


@contextmanager
def running_load(url: str, rate: float = RATE) -> Iterator[Load]:
    """Send requests while the block runs, then wait for the last responses."""
    load = Load(url, rate)
    thread = threading.Thread(target=lambda: asyncio.run(load._send_all()))
    thread.start()
    try:
        yield load
    finally:
        load._stopped.set()
        thread.join()


def latency_ms(responses: Sequence[Response], percent: float) -> float:
    """Return a percentile of the latencies, in milliseconds."""
    return percentile([response.seconds for response in responses], percent) * 1000
