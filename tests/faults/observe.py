"""The effect of a fault: errors and latency of the backend, recovery time of each signal, and lost data."""

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial

from tests.faults.load import Load, Response, latency_ms
from tests.support.compose_stack import Stack
from tests.support.prometheus import exposed
from tests.support.waiting import wait_until

RECOVERY_SECONDS = 30.0
SETTLE_SECONDS = 60.0
LOKI_PAGE_LIMIT = 5000  # Loki's maximum
SCRAPE_SECONDS = 5
TRACE_SAMPLE = 100  # traces to look up, one by one
TRACE_SECONDS = 5.0  # twice the sum of the exporter's interval and timeout
# The limit of p99: noise stays below it (the maximum of 68 recorded results is 4.5 times the baseline), a 12-fold
# slowdown does not. The constant part is for machines where p99 is a few milliseconds, about one scheduler time slice.
P99_FACTOR = 6.0
P99_MARGIN_MS = 20.0
REQUESTS = 'http_requests_total{job="backend"}'
SIGNALS = {
    "metric": ["prometheus"],
    "log": ["loki", "promtail", "docker-proxy"],
    "trace": ["tempo"],
}


@dataclass
class FaultResult:
    """One row of the table of faults.

    Attributes:
        fault: The injected fault.
        service: The affected service.
        requests: Number of requests from the start of the fault until recovery.
        errors: Requests with an unexpected status or without a response.
        p99: Milliseconds.
        baseline_p99: The same without a fault, in the same test run.
        baseline_highest: The highest p99 of the baseline windows of that run.
        recovery: Signal -> recovery time, in seconds after the end of the fault.
        lost: Kind of data -> number of losses that the fault must not cause; see `losses`.
        missing_traces: Of requests during the fault.
        memory_growth: Of the backend, in MiB.
    """

    fault: str
    service: str
    requests: int = 0
    errors: int = 0
    p99: float = 0.0
    baseline_p99: float = 0.0
    baseline_highest: float = 0.0
    recovery: dict[str, float] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    missing_traces: int = 0
    memory_growth: float = 0.0

    def as_json(self) -> str:
        """Return the result for pytest's ``record_property``."""
        return json.dumps(asdict(self))


@dataclass
class Snapshot:
    """The state before a fault.

    Attributes:
        time: In seconds since the epoch.
        requests: Number of requests in Prometheus at that time.
        memory: Of the backend, in MiB.
    """

    time: float
    requests: float
    memory: float

    @classmethod
    def take(cls, stack: Stack) -> "Snapshot":
        """Take a snapshot now."""
        now = time.time()
        return cls(now, request_count(stack, now), memory_mib(stack))


@dataclass
class Baseline:
    """The latency of the backend without a fault, in milliseconds.

    Attributes:
        p99: The median over several windows.
        highest: The highest of them. It is only reported: one stall of the machine makes it useless as a limit.
    """

    p99: float
    highest: float


def record_responses(result: FaultResult, responses: list[Response], baseline: Baseline) -> None:
    """Set errors and latency."""
    result.requests = len(responses)
    result.errors = sum(response.status != response.expected for response in responses)
    result.p99 = latency_ms(responses, 99)
    result.baseline_p99, result.baseline_highest = baseline.p99, baseline.highest


def p99_limit(baseline: float) -> float:
    """Return the highest p99 that passes, in milliseconds."""
    return P99_FACTOR * baseline + P99_MARGIN_MS


def available_signals(stack: Stack) -> list[str]:
    """Return the signals whose services run on this machine."""
    return [name for name, services in SIGNALS.items() if not set(services) & stack.missing.keys()]


def scraped_since(stack: Stack, since: float) -> bool:
    """Return whether Prometheus has scraped the backend since a time."""
    query = f"max(timestamp({REQUESTS}))"
    return max(stack.query(query).values(), default=0.0) > since


def service_recovered(stack: Stack, service: str, since: float) -> bool:
    """Return whether a service has been scraped since a time; backend and docker-proxy: is healthy."""
    if service in ("backend", "docker-proxy"):
        return stack.health(service) == "healthy"
    found = stack.query(f'timestamp(up{{job="{service}"}} == 1)').values()
    return max(found, default=0.0) > since


def trace_since(stack: Stack, load: Load, since: float) -> bool:
    """Return whether Tempo has the trace of a request that was made since a time."""
    completed = [response for response in load.since(since, time.time() - 1) if response.trace_id]
    return bool(completed) and has_trace(stack, completed[-1].trace_id)


def has_trace(stack: Stack, trace_id: str) -> bool:
    """Return whether a trace is in Tempo."""
    return bool(stack.spans(trace_id))


def log_entry_since(stack: Stack, since: float) -> bool:
    """Return whether Loki has an access log entry written since a time."""
    return bool(access_log(stack, since, time.time(), limit=1))


def access_log(stack: Stack, start: float, end: float, limit: int = LOKI_PAGE_LIMIT) -> list[str]:
    """Return one page of the backend's access log in this interval."""
    response = stack.get(
        "loki",
        "/loki/api/v1/query_range",
        query='{service="backend"} |= `"app.access"`',
        start=f"{start:.9f}",
        end=f"{end:.9f}",
        limit=f"{limit}",
        direction="forward",
    )
    return [line for stream in response["data"]["result"] for _, line in stream["values"]]


def recovery_times(stack: Stack, load: Load, service: str, since: float) -> dict[str, float]:
    """Wait until every signal has recovered, and return the recovery times in seconds."""
    checks: dict[str, Callable[[], bool]] = {
        "metric": lambda: scraped_since(stack, since),
        "log": lambda: log_entry_since(stack, since),
        "trace": lambda: trace_since(stack, load, since),
    }
    waiting = {name: checks[name] for name in available_signals(stack)}
    waiting[service] = lambda: service_recovered(stack, service, since)

    def wait(name: str) -> float:
        wait_until(lambda: _succeeds(waiting[name]), f"recovery of {name}", 2 * RECOVERY_SECONDS)
        return time.time() - since

    with ThreadPoolExecutor() as pool:  # a service that does not respond must not delay the others
        times = dict(zip(waiting, pool.map(wait, waiting), strict=True))
    times["service"] = times.pop(service)
    return times


def _succeeds(check: Callable[[], bool]) -> bool:
    try:
        return check()
    except (OSError, KeyError):
        return False


def losses(stack: Stack, before: Snapshot, responses: list[Response]) -> dict[str, int]:
    """Return how many requests are missing in the metrics, and how many log lines are missing or duplicated.

    Args:
        stack: After the load has ended.
        before: What Prometheus must still have.
        responses: To all requests since the last start of the backend, none of them missing.
    """
    old = request_count(stack, before.time)
    lost = {
        "metric": _missing_in_prometheus(stack),
        "earlier metric": round(max(0, before.requests - old)),
    }
    if "log" in available_signals(stack):
        expected = Counter({a.trace_id: a.requests for a in responses if a.trace_id})
        start = min(response.due for response in responses) - 1
        end = max(response.due + response.seconds for response in responses) + 1
        found: Counter[str] = Counter()

        def all_found() -> bool:
            found.clear()
            found.update(trace_ids(stack, start, end))
            assert not expected - found, f"{(expected - found).total()} log lines are missing"
            return True

        _wait_to_settle(all_found)
        lost["log"] = (expected - found).total()
        lost["duplicate log"] = Counter({i: found[i] - expected[i] for i in expected}).total()
        lost["duplicate log"] += lost["log"]  # missing lines count as negative in the total
    return lost


def trace_ids(stack: Stack, start: float, end: float) -> Iterable[str]:
    """Return the trace ID of every access log entry in this interval."""
    while start < end:
        until = min(start + 20, end)  # short enough for one page
        page = access_log(stack, start, until)
        assert len(page) < LOKI_PAGE_LIMIT
        yield from (str(json.loads(line)["trace_id"]) for line in page)
        start = until


def _wait_to_settle(check: Callable[[], bool], seconds: float = SETTLE_SECONDS) -> None:
    """Wait for data in transit; after the timeout, the caller counts the missing data as lost."""
    with suppress(TimeoutError):
        wait_until(check, "data in transit", seconds)


def _missing_in_prometheus(stack: Stack) -> int:
    """Return how many requests in the backend's own counter are missing in Prometheus."""
    difference = 0.0

    def equal() -> bool:
        nonlocal difference
        # An instance that ended while Prometheus was down has no staleness marker, so its last sample is only old.
        recent = f"and timestamp({REQUESTS}) > time() - {2 * SCRAPE_SECONDS}"
        seen = sum(stack.query(f"{REQUESTS} {recent}").values())
        difference = backend_metric(stack, "http_requests_total") - seen
        assert difference == 0
        return True

    _wait_to_settle(equal)
    return round(difference)


def request_count(stack: Stack, at: float) -> float:
    """Return the number of requests in Prometheus at a time, queried now."""
    query = {"query": f"sum({REQUESTS})", "time": f"{at:.3f}"}
    result = stack.get("prometheus", "/api/v1/query", **query)["data"]["result"]
    return float(result[0]["value"][1]) if result else 0.0


def memory_mib(stack: Stack) -> float:
    """Return the resident memory of the backend, in MiB."""
    return backend_metric(stack, "process_resident_memory_bytes") / 2**20


def backend_metric(stack: Stack, name: str) -> float:
    """Return the sum of a metric in the backend's ``/metrics``."""
    return sum(exposed(stack.url("backend"), name))


def missing_traces(stack: Stack, responses: list[Response]) -> int:
    """Return how many traces are missing in Tempo after a timeout, of at most `TRACE_SAMPLE` random requests."""
    ids = [response.trace_id for response in responses if response.trace_id]
    missing = set(random.sample(ids, min(TRACE_SAMPLE, len(ids))))

    def none_missing() -> bool:
        found = [i for i in missing if _succeeds(partial(has_trace, stack, i))]
        missing.difference_update(found)
        assert not missing
        return True

    _wait_to_settle(none_missing, TRACE_SECONDS)
    return len(missing)
