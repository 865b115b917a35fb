"""Send one request to the backend and follow it through the stack: ``make obs-check``.

Runs in a container of the overlay, on its network, and uses only the standard library. Prints one
line per hop with its duration, and the likely cause if a hop fails. Exit code 0 if all hops pass,
else 1.
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
# Matches /api/v1/items, and /orders/api/v1/items behind `uvicorn --root-path /orders`.
SERIES = f'{{job="backend",endpoint=~"(/.*)?{re.escape(PATH)}",method="GET"}}'.replace("\\", r"\\")
DATA_SOURCES = ("prometheus", "loki", "tempo")
DEADLINE_SECONDS = 15.0  # three scrapes
# Raised by reading JSON of an unexpected shape.
UNEXPECTED = (LookupError, TypeError, AttributeError, ValueError)


class Missing(Exception):
    """Something was not found (yet); the message says what was found instead."""


class Unreachable(Missing):
    """A service does not respond."""


@dataclass
class Request:
    """The request to follow.

    Attributes:
        trace_id: 32 hex digits: https://www.w3.org/TR/trace-context/#trace-id
        sent: Unix time in seconds.
        counted_before: Requests to the path that Prometheus had counted before.
    """

    trace_id: str
    sent: float
    counted_before: float


@dataclass
class Hop:
    """One place where the request must be found.

    Attributes:
        find: Returns a description of what was found, or raises `Missing`.
        expected: Description of what must be found.
        likely_cause: What to check if it is not found.
        seconds: How long to retry.
    """

    name: str
    find: Callable[[], str]
    expected: str
    likely_cause: str
    seconds: float = DEADLINE_SECONDS


def get(service: str, path: str, headers: dict[str, str] | None = None, **query: str) -> Any:
    """Return the JSON response of a service.

    Raises:
        Missing: the response is an HTTP error or not JSON.
        Unreachable: there is no response.
    """
    url = URLS[service] + path
    full_url = f"{url}?{urllib.parse.urlencode(query)}" if query else url
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # ignore HTTP_PROXY
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
        raise Missing(f"invalid JSON from {url}: {error}") from error
    except OSError as error:
        raise Unreachable(f"no response from {url}: {error}") from error


def counted() -> float:
    """Return how many requests to the path Prometheus has counted."""
    query = f"sum(http_requests_total{SERIES})"
    result = get("prometheus", "/api/v1/query", query=query)["data"]["result"]
    return float(result[0]["value"][1]) if result else 0.0


def send(request: Request) -> str:
    """Send the request, sampled whatever the sampling ratio is."""
    get("backend", PATH, {"traceparent": f"00-{request.trace_id}-{secrets.token_hex(8)}-01"})
    return f"GET {PATH} succeeded"


def find_count(request: Request) -> str:
    """Check that Prometheus counted the request."""
    after = counted()
    before = request.counted_before if after >= request.counted_before else 0.0  # counter reset
    if after < before + 1:
        raise Missing(f"http_requests_total is {after:g}, as before the request")
    return f"http_requests_total increased from {before:g} to {after:g}"


def find_exemplar(request: Request) -> str:
    """Find an exemplar of the histogram in Prometheus, and follow its trace from here on.

    It is our trace, unless another request replaced the exemplar before the scrape.
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
        raise Missing("no exemplar since the request")
    if request.trace_id not in ids:
        request.trace_id = ids[-1]
    return f"http_request_duration_seconds has an exemplar of trace {request.trace_id}"


def find_trace(request: Request) -> str:
    """Find the server span of the request in Tempo."""
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
    """Find the access log line of the request in Loki."""
    streams = get(
        "loki",
        "/loki/api/v1/query_range",
        query=f'{{service="backend"}} | trace_id="{request.trace_id}"',
        start=f"{request.sent - 60:.0f}",
    )["data"]["result"]
    lines = [line for stream in streams for _, line in stream["values"]]
    if not lines:
        raise Missing("no log line")
    return f"the log line says {json.loads(lines[0])['message']!r}"


def sign_in() -> dict[str, str]:
    """Return the headers that Grafana requires, none if anonymous access is enabled."""
    if os.environ.get("OBS_CHECK_GRAFANA_ANONYMOUS", "true") != "false":
        return {}
    user = f"admin:{os.environ.get('OBS_CHECK_GRAFANA_PASSWORD', '')}"
    return {"authorization": f"Basic {base64.b64encode(user.encode()).decode()}"}


def find_data_sources() -> str:
    """Check the health of Grafana's data sources."""
    for uid in DATA_SOURCES:
        health = get("grafana", f"/api/datasources/uid/{uid}/health", sign_in())
        if health.get("status") != "OK":
            raise Missing(f"{uid}: {health}")
    return f"the data sources {', '.join(DATA_SOURCES)} are OK"


def wait_for(find: Callable[[], str], seconds: float) -> str:
    """Call ``find`` until it succeeds, and return its result.

    Raises:
        Missing: the last attempt failed, after this many seconds.
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
                raise Missing(f"an unexpected response: {error!r}") from error
        sleep(0.2)


def passes(hop: Hop) -> bool:
    """Check one hop and print its result."""
    started = monotonic()
    try:
        found = wait_for(hop.find, hop.seconds)
    except Missing as missing:
        print(f"FAIL  {hop.name:<13}{monotonic() - started:6.2f} s")
        print(f"      expected:     {hop.expected}")
        print(f"      got:          {missing}")
        down = isinstance(missing, Unreachable)
        cause = "it is not running: make obs-status, make obs-logs" if down else hop.likely_cause
        print(f"      likely cause: {cause}", flush=True)
        return False
    print(f"ok    {hop.name:<13}{monotonic() - started:6.2f} s  {found}", flush=True)
    return True


def hops_of(request: Request) -> list[Hop]:
    """Return the hops in the order in which the request passes them."""
    return [
        Hop(
            "backend",
            lambda: send(request),
            f"the backend answers GET {PATH}",
            "an error in its log: make obs-logs; or the API lacks this route: set OBS_CHECK_PATH in .env",
        ),
        Hop(
            "prometheus",
            lambda: find_count(request),
            f"one more request counted for {PATH}",
            "Prometheus cannot scrape the backend's /metrics: see its page /targets",
        ),
        Hop(
            "exemplar",
            lambda: find_exemplar(request),
            "an exemplar of http_request_duration_seconds since the request",
            "the backend does not run under opentelemetry-instrument, or samples fewer requests: "
            "TRACED_CALLERS and TRACE_SAMPLE_RATIO in .env",
        ),
        Hop(
            "tempo",
            lambda: find_trace(request),
            f"a trace with the span GET {PATH}",
            "the backend cannot reach tempo:4317: its log has the exporter's error",
        ),
        Hop(
            "loki",
            lambda: find_line(request),
            'a log line of {service="backend"} with the trace id',
            "Promtail cannot read from Docker: check DOCKER_SOCKET in .env and docker-proxy; "
            "or APP_LOG_LEVEL is above INFO",
        ),
        Hop(
            "grafana",
            find_data_sources,
            f"status OK for each of {', '.join(DATA_SOURCES)}",
            "observability/grafana/datasources has a URL that does not respond",
        ),
    ]


def main() -> int:
    """Check the hops given on the command line, by default all; return the exit code."""
    request = Request(secrets.token_hex(16), time(), 0.0)
    hops = hops_of(request)
    names = [hop.name for hop in hops]
    parser = argparse.ArgumentParser(description="Follow one request through the stack.")
    parser.add_argument("hops", nargs="*", metavar="hop", help=f"{', '.join(names)} (default: all)")
    chosen: list[str] = parser.parse_args().hops or names
    if unknown := set(chosen) - set(names):
        parser.error(
            f"unknown hop: {', '.join(sorted(unknown))}; must be one of {', '.join(names)}"
        )
    with suppress(Missing, *UNEXPECTED):  # the hop reports it
        request.counted_before = counted()
    if not passes(hops[0]):
        return 1
    results = [passes(hop) for hop in hops[1:] if hop.name in chosen]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
