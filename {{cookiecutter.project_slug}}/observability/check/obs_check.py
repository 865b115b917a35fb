"""Sends one request to the backend and follows it through the stack: ``make obs-check``.

Runs in a container of the overlay, on its network, with nothing but the standard library. Prints
one line per hop with the time that it took, and for a failed hop why. Exit code 0 if every hop
holds, else 1.
"""

import argparse
import base64
import json
import os
import re
import secrets
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic, sleep, time
from typing import Any

URLS = {
    name: os.environ.get(f"OBS_CHECK_{name.upper()}", f"http://{name}:{port}")
    for name, port in [
        ("backend", 8000),
        ("prometheus", 9090),
        ("alertmanager", 9093),
        ("tempo", 3200),
        ("loki", 3100),
        ("grafana", 3000),
    ]
}
PATH = os.environ.get("OBS_CHECK_PATH", "/api/v1/items")
# As metrics and spans name the route: behind `uvicorn --root-path /orders` it begins with /orders.
SERIES = f'{{job="backend",endpoint=~"(/.*)?{re.escape(PATH)}",method="GET"}}'.replace("\\", r"\\")
DATA_SOURCES = ("prometheus", "loki", "tempo")
DEADLINE_SECONDS = 15.0  # three scrapes
# What reading JSON of another shape raises.
UNEXPECTED = (LookupError, TypeError, AttributeError, ValueError)


class Missing(Exception):
    """What was looked for is not there (yet); the message says what came instead."""


class Unreachable(Missing):
    """A service does not answer at all."""


@dataclass
class Request:
    """The request that is followed.

    Attributes:
        trace_id: 32 hex digits: https://www.w3.org/TR/trace-context/#trace-id
        sent: Unix time in seconds.
        counted_before: How many requests to the path Prometheus had seen.
    """

    trace_id: str
    sent: float
    counted_before: float


@dataclass
class Hop:
    """One place where the request must show up.

    Attributes:
        find: Returns what was found, in words, or raises `Missing`.
        expected: What must be there, in words.
        likely_cause: Where to look when it is not.
        seconds: How long to look for it.
    """

    name: str
    find: Callable[[], str]
    expected: str
    likely_cause: str
    seconds: float = DEADLINE_SECONDS


def get(service: str, path: str, headers: dict[str, str] | None = None, **query: str) -> Any:
    """Return the JSON that a service answers.

    Raises:
        Missing: it answers something else than 200 with JSON.
        Unreachable: it does not answer.
    """
    url = URLS[service] + path
    full_url = f"{url}?{urllib.parse.urlencode(query)}" if query else url
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never by a proxy
    try:
        with opener.open(
            urllib.request.Request(full_url, headers=headers or {}),  # noqa: S310 (our own http://)
            timeout=3,
        ) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        body = error.read(200).decode(errors="replace")
        raise Missing(f"HTTP {error.code} from {url}: {body!r}") from error
    except ValueError as error:
        raise Missing(f"no JSON from {url}: {error}") from error
    except OSError as error:
        raise Unreachable(f"no answer from {url}: {error}") from error


def counted() -> float:
    """Return how many requests to our path Prometheus has seen."""
    query = f"sum(http_requests_total{SERIES})"
    result = get("prometheus", "/api/v1/query", query=query)["data"]["result"]
    return float(result[0]["value"][1]) if result else 0.0


def send(request: Request) -> str:
    """Send the request, sampled whatever the backend's own ratio is."""
    get("backend", PATH, {"traceparent": f"00-{request.trace_id}-{secrets.token_hex(8)}-01"})
    return f"GET {PATH} was answered"


def find_count(request: Request) -> str:
    """Find the request counted in Prometheus."""
    after = counted()
    before = request.counted_before if after >= request.counted_before else 0.0  # restarted
    if after < before + 1:
        raise Missing(f"http_requests_total is {after:g}, as before the request")
    return f"http_requests_total went from {before:g} to {after:g}"


def find_exemplar(request: Request) -> str:
    """Find a trace id on the histogram in Prometheus, and follow that trace from here on.

    It is ours, unless another request, at least as new, took its place before the scrape.
    """
    exemplars = get(
        "prometheus",
        "/api/v1/query_exemplars",
        query=f"http_request_duration_seconds_bucket{SERIES}",
        start=f"{request.sent:.3f}",
        end=f"{time() + 1:.3f}",
    )["data"]
    ids = [each["labels"].get("trace_id") for series in exemplars for each in series["exemplars"]]
    if not ids:
        raise Missing("no exemplar since then")
    if request.trace_id not in ids:
        request.trace_id = ids[-1]
    return f"http_request_duration_seconds leads to trace {request.trace_id}"


def find_trace(request: Request) -> str:
    """Find the request's server span in Tempo."""
    trace = get("tempo", f"/api/v2/traces/{request.trace_id}").get("trace") or {}
    names = [
        span["name"]
        for resource in trace.get("resourceSpans", [])
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    if not any(name.startswith("GET /") and name.endswith(PATH) for name in names):
        raise Missing(f"a trace with the spans {names}")
    return f"the trace has {len(names)} span{'s' * (len(names) != 1)}: {', '.join(names)}"


def find_line(request: Request) -> str:
    """Find the request's access log line in Loki."""
    streams = get(
        "loki",
        "/loki/api/v1/query_range",
        query=f'{{service="backend"}} | trace_id="{request.trace_id}"',
        start=f"{request.sent - 60:.0f}",
    )["data"]["result"]
    lines = [line for stream in streams for _, line in stream["values"]]
    if not lines:
        raise Missing("no line")
    return f"the line says {json.loads(lines[0])['message']!r}"


def sign_in() -> dict[str, str]:
    """Return the headers that Grafana asks for, if it does."""
    if os.environ.get("OBS_CHECK_GRAFANA_ANONYMOUS", "true") != "false":
        return {}
    user = f"admin:{os.environ.get('OBS_CHECK_GRAFANA_PASSWORD', '')}"
    return {"authorization": f"Basic {base64.b64encode(user.encode()).decode()}"}


def find_data_sources() -> str:
    """Ask Grafana whether it reaches its data sources."""
    for uid in DATA_SOURCES:
        health = get("grafana", f"/api/datasources/uid/{uid}/health", sign_in())
        if health.get("status") != "OK":
            raise Missing(f"{uid}: {health}")
    return f"the data sources {', '.join(DATA_SOURCES)} answer"


def wait_for(find: Callable[[], str], seconds: float) -> str:
    """Return what ``find`` returns, tried until so many seconds are over.

    Raises:
        Missing: the last answer, when the time is over.
    """
    deadline = monotonic() + seconds
    while True:
        try:
            return find()
        except Missing:
            if monotonic() > deadline:
                raise
        except UNEXPECTED as error:
            if monotonic() > deadline:
                raise Missing(f"an unexpected answer: {error!r}") from error
        sleep(0.2)


def passes(hop: Hop) -> bool:
    """Try one hop and print its line."""
    started = monotonic()
    try:
        found = wait_for(hop.find, hop.seconds)
    except Missing as missing:
        print(f"FAIL  {hop.name:<13}{monotonic() - started:6.2f} s")
        print(f"      expected:     {hop.expected}")
        print(f"      came instead: {missing}")
        down = isinstance(missing, Unreachable)
        cause = "it is not running: make obs-status, make obs-logs" if down else hop.likely_cause
        print(f"      likely cause: {cause}", flush=True)
        return False
    print(f"ok    {hop.name:<13}{monotonic() - started:6.2f} s  {found}", flush=True)
    return True


def hops_of(request: Request) -> list[Hop]:
    """Return the hops in the order in which the request takes them."""
    return [
        Hop(
            "backend",
            lambda: send(request),
            f"the backend answers GET {PATH}",
            "an error is in its log: make obs-logs; or the API lost that route: set OBS_CHECK_PATH in .env",
        ),
        Hop(
            "prometheus",
            lambda: find_count(request),
            f"one more request counted for {PATH}",
            "Prometheus does not reach the backend's /metrics: see its page /targets",
        ),
        Hop(
            "exemplar",
            lambda: find_exemplar(request),
            "a trace id on http_request_duration_seconds, since the request was sent",
            "the backend does not run under opentelemetry-instrument, or traces fewer requests: "
            "TRACED_CALLERS and TRACE_SAMPLE_RATIO in .env",
        ),
        Hop(
            "tempo",
            lambda: find_trace(request),
            f"a trace with the span GET {PATH}",
            "the backend does not reach tempo:4317: its log says what the exporter got",
        ),
        Hop(
            "loki",
            lambda: find_line(request),
            'a line of {service="backend"} with the trace id',
            "Promtail cannot read from the engine: is DOCKER_SOCKET right, docker-proxy healthy? "
            "Or APP_LOG_LEVEL is above INFO",
        ),
        Hop(
            "grafana",
            find_data_sources,
            f"status OK for each of {', '.join(DATA_SOURCES)}",
            "observability/grafana/datasources names an address that does not answer",
        ),
    ]


def main() -> int:
    """Check the hops named on the command line, all by default; return the exit code."""
    request = Request(secrets.token_hex(16), time(), 0.0)
    hops = hops_of(request)
    names = [hop.name for hop in hops]
    parser = argparse.ArgumentParser(description="Follow one request through the stack.")
    parser.add_argument("hops", nargs="*", metavar="hop", help=f"{', '.join(names)} (default: all)")
    chosen: list[str] = parser.parse_args().hops or names
    if unknown := set(chosen) - set(names):
        parser.error(f"no such hop: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    with suppress(Missing, *UNEXPECTED):  # the hop itself will report it
        request.counted_before = counted()
    if not passes(hops[0]):
        return 1
    results = [passes(hop) for hop in hops[1:] if hop.name in chosen]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
