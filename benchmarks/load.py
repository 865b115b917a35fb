"""Load generators for a local server: at a fixed rate, timed from the due time; or saturating, with wrk."""

import gc
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

CONNECTIONS = 16
TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, order=True)
class Timed:
    """One request.

    Attributes:
        due: When it should have been sent, in seconds of `time.perf_counter`.
        seconds: From `due` until the response was complete, even if the request was sent late. So
            a stall counts for all requests that were due, not only the current one (no coordinated omission).
    """

    due: float
    seconds: float


class Connection:
    """A persistent HTTP connection."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if host not in ("127.0.0.1", "localhost"):
            raise ValueError(f"the server must be on this machine, got {host}")
        self._request = f"GET {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\n\r\n".encode()
        self._socket = socket.create_connection((host, parts.port or 80), TIMEOUT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def get(self) -> bytes:
        """Make one request, which must succeed, and return the response body."""
        self._socket.sendall(self._request)
        response = b""
        while b"\r\n\r\n" not in response:
            response += self._read()
        head, body = response.split(b"\r\n\r\n", 1)
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if not head.startswith(b"HTTP/1.1 200") or not length:
            raise RuntimeError(f"unexpected response: {head!r}")
        while len(body) < int(length[1]):
            body += self._read()
        return body

    def _read(self) -> bytes:
        if part := self._socket.recv(65536):
            return part
        raise ConnectionError("the server closed the connection")

    def close(self) -> None:
        self._socket.close()


@contextmanager
def connections(url: str, number: int) -> Iterator[list[Connection]]:
    """Open a number of connections, and make a request on each of them."""
    opened = [Connection(url) for _ in range(number)]
    try:
        for connection in opened:
            connection.get()
        yield opened
    finally:
        for connection in opened:
            connection.close()


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Avoid garbage collection pauses of this process, which would count as server latency."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def paced(url: str, per_second: float, seconds: float) -> list[Timed]:
    """Make requests at a fixed rate, even if earlier ones have no response yet (open loop).

    Args:
        url: On this machine.
        per_second: The rate.
        seconds: The duration.

    Returns:
        All requests, ordered by due time.
    """
    timed: list[Timed] = []
    failures: list[Exception] = []
    total = int(per_second * seconds)

    def work(connection: Connection, first: int) -> None:
        try:
            for number in range(first, total, CONNECTIONS):
                due = started + number / per_second
                if (wait := due - time.perf_counter()) > 0:
                    time.sleep(wait)
                connection.get()
                timed.append(Timed(due, time.perf_counter() - due))
        except Exception as error:
            failures.append(error)

    with connections(url, CONNECTIONS) as opened, no_garbage_collection():
        started = time.perf_counter() + 0.05
        threads = [
            threading.Thread(target=work, args=(connection, first))
            for first, connection in enumerate(opened)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]
    return sorted(timed)


def saturated(url: str, seconds: float) -> tuple[int, float, float]:
    """Saturate a server with wrk; return the number of requests, their rate, and p99 in ms.

    Args:
        url: On this machine.
        seconds: The duration.

    Raises:
        RuntimeError: some requests failed.
    """
    command = [
        "wrk",
        "--threads=1",
        "--latency",
        f"--connections={CONNECTIONS}",
        f"--duration={seconds:g}s",
        url,
    ]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    number = re.search(r"(\d+) requests in", output)  # 13006 requests in 2.00s
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)  # Requests/sec:   6501.32
    slow = re.search(r"99%\s+([\d.]+)(us|ms|s)\b", output)  # 99%    3.05ms
    if not number or not rate or not slow or "Non-2xx" in output or "Socket errors" in output:
        raise RuntimeError(output)
    milliseconds = float(slow[1]) * {"us": 0.001, "ms": 1, "s": 1000}[slow[2]]
    return int(number[1]), float(rate[1]), milliseconds


def missing_wrk() -> str | None:
    """Return why wrk cannot run, or None."""
    return None if shutil.which("wrk") else "the program wrk is missing"
