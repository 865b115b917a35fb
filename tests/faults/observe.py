"""What came of a fault: how the backend answered, when each signal was back, and what was lost."""

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial

from tests.faults.load import Answer, Load, latency_ms
from tests.support.compose_stack import Stack
from tests.support.prometheus import exposed
from tests.support.waiting import wait_until

RECOVERY_SECONDS = 30.0
SETTLED_SECONDS = 60.0
LINES_AT_ONCE = 5000  # most that Loki gives
SCRAPE_SECONDS = 5
LOOKED_UP = 100  # traces, one after the other
TRACE_SECONDS = 5.0  # the exporter's interval and its time-out, twice
# The limit of p99: noise stays below it (the highest of 68 recorded rows is 4.5 times the undisturbed p99), a 12-fold
# slowdown does not. The constant part is for machines where p99 is a few milliseconds, as long as one turn of the scheduler.
TIMES_SLOWER = 6.0
SLOWER_MS = 20.0
REQUESTS = 'http_requests_total{job="backend"}'
SIGNALS = {
    "metric": ["prometheus"],
    "log": ["loki", "promtail", "docker-proxy"],
    "trace": ["tempo"],
}


@dataclass
class Row:
    """One line of the table of faults.

    Attributes:
        fault: What was done.
        service: To what.
        requests: That were made from the fault's begin until all was as before.
        wrong: Those that were answered otherwise than without a fault, or not at all.
        p99: Milliseconds.
        undisturbed: The same without a fault, in the run that this row is from.
        highest: The highest of that run's undisturbed windows.
        back: Signal -> seconds after the end of the fault until a new one was seen.
        lost: What -> how many are missing, of those that the fault may not cost; see `losses`.
        spans: Made during the fault and not in Tempo.
        memory: MiB that the backend has more than before.
    """

    fault: str
    service: str
    requests: int = 0
    wrong: int = 0
    p99: float = 0.0
    undisturbed: float = 0.0
    highest: float = 0.0
    back: dict[str, float] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    spans: int = 0
    memory: float = 0.0

    def as_property(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))


@dataclass
class Before:
    """What was so before a fault.

    Attributes:
        time: In seconds since the epoch.
        counted: Requests in Prometheus at that time.
        memory: Of the backend, in MiB.
    """

    time: float
    counted: float
    memory: float

    @classmethod
    def of(cls, stack: Stack) -> "Before":
        """Look now."""
        now = time.time()
        return cls(now, counted(stack, now), memory(stack))


@dataclass
class Undisturbed:
    """How the backend answers when nothing is wrong, in milliseconds.

    Attributes:
        p99: The median of several windows.
        highest: The highest of them. It is reported only: one stall of the machine makes it useless as a limit.
    """

    p99: float
    highest: float


def answered(row: Row, answers: list[Answer], undisturbed: Undisturbed) -> None:
    """Fill in how the backend answered."""
    row.requests = len(answers)
    row.wrong = sum(answer.status != answer.expected for answer in answers)
    row.p99 = latency_ms(answers, 99)
    row.undisturbed, row.highest = undisturbed.p99, undisturbed.highest


def slowest_p99(undisturbed: float) -> float:
    """Return the highest p99 that passes, in milliseconds, given the undisturbed one."""
    return TIMES_SLOWER * undisturbed + SLOWER_MS


def can_be_seen(stack: Stack) -> list[str]:
    """Return the signals whose services run here."""
    return [name for name, services in SIGNALS.items() if not set(services) & stack.missing.keys()]


def new_metric(stack: Stack, since: float) -> bool:
    """Tell whether the backend has been scraped after a time."""
    query = f"max(timestamp({REQUESTS}))"
    return max(stack.query(query).values(), default=0.0) > since


def service_scraped(stack: Stack, service: str, since: float) -> bool:
    """Tell whether a service has been scraped after a time, if it is one that is scraped."""
    if service in ("backend", "docker-proxy"):
        return stack.health(service) == "healthy"
    found = stack.query(f'timestamp(up{{job="{service}"}} == 1)').values()
    return max(found, default=0.0) > since


def new_trace(stack: Stack, load: Load, since: float) -> bool:
    """Tell whether a request that was made after a time is in Tempo."""
    ended = [answer for answer in load.since(since, time.time() - 1) if answer.trace_id]
    return bool(ended) and has_trace(stack, ended[-1].trace_id)


def has_trace(stack: Stack, trace_id: str) -> bool:
    """Tell whether a trace is in Tempo."""
    return bool(stack.spans(trace_id))


def new_line(stack: Stack, since: float) -> bool:
    """Tell whether a line that was written after a time is in Loki."""
    return bool(lines(stack, since, time.time(), limit=1))


def lines(stack: Stack, start: float, end: float, limit: int = LINES_AT_ONCE) -> list[str]:
    """Return the backend's access lines of a time, one page of them."""
    answer = stack.get(
        "loki",
        "/loki/api/v1/query_range",
        query='{service="backend"} |= `"app.access"`',
        start=f"{start:.9f}",
        end=f"{end:.9f}",
        limit=f"{limit}",
        direction="forward",
    )
    return [line for stream in answer["data"]["result"] for _, line in stream["values"]]


def times_back(stack: Stack, load: Load, service: str, since: float) -> dict[str, float]:
    """Wait until every signal is seen again, and return how many seconds each took."""
    checks: dict[str, Callable[[], bool]] = {
        "metric": lambda: new_metric(stack, since),
        "log": lambda: new_line(stack, since),
        "trace": lambda: new_trace(stack, load, since),
    }
    waiting = {name: checks[name] for name in can_be_seen(stack)}
    waiting[service] = lambda: service_scraped(stack, service, since)

    def wait(name: str) -> float:
        wait_until(lambda: _true(waiting[name]), f"a new {name}", 2 * RECOVERY_SECONDS)
        return time.time() - since

    with ThreadPoolExecutor() as pool:  # one that does not answer must not hold up the others
        back = dict(zip(waiting, pool.map(wait, waiting), strict=True))
    back["service"] = back.pop(service)
    return back


def _true(check: Callable[[], bool]) -> bool:
    try:
        return check()
    except (OSError, KeyError):
        return False


def losses(stack: Stack, before: Before, answers: list[Answer]) -> dict[str, int]:
    """Return how many requests miss in the metrics, and how many log lines miss or are there twice.

    Args:
        stack: With the load ended.
        before: What Prometheus must still know.
        answers: To requests since the last start of the backend, all of them answered.
    """
    old = counted(stack, before.time)
    lost = {"metric": _uncounted(stack), "old metric": round(max(0, before.counted - old))}
    if "log" in can_be_seen(stack):
        expected = Counter({a.trace_id: a.requests for a in answers if a.trace_id})
        start = min(answer.due for answer in answers) - 1
        end = max(answer.due + answer.seconds for answer in answers) + 1
        found: Counter[str] = Counter()

        def all_found() -> bool:
            found.clear()
            found.update(trace_ids(stack, start, end))
            assert not expected - found, f"{(expected - found).total()} lines are missing"
            return True

        _settle(all_found)
        lost["log"] = (expected - found).total()
        lost["log twice"] = Counter({i: found[i] - expected[i] for i in expected}).total()
        lost["log twice"] += lost["log"]  # missing ones were counted as less than none
    return lost


def trace_ids(stack: Stack, start: float, end: float) -> Iterable[str]:
    """Return the trace id of every access line of a time."""
    while start < end:
        until = min(start + 20, end)  # so that a page is never full
        page = lines(stack, start, until)
        assert len(page) < LINES_AT_ONCE
        yield from (str(json.loads(line)["trace_id"]) for line in page)
        start = until


def _settle(check: Callable[[], bool], seconds: float = SETTLED_SECONDS) -> None:
    """Wait for what is still under way; when it does not come, that is a loss and is counted."""
    with suppress(TimeoutError):
        wait_until(check, "what is under way", seconds)


def _uncounted(stack: Stack) -> int:
    """Return how many requests the backend has counted that Prometheus never sees."""
    difference = 0.0

    def equal() -> bool:
        nonlocal difference
        # An instance that ended while Prometheus was away is not stale, only old.
        recent = f"and timestamp({REQUESTS}) > time() - {2 * SCRAPE_SECONDS}"
        seen = sum(stack.query(f"{REQUESTS} {recent}").values())
        difference = backend_value(stack, "http_requests_total") - seen
        assert difference == 0
        return True

    _settle(equal)
    return round(difference)


def counted(stack: Stack, at: float) -> float:
    """Return how many requests Prometheus knew of at a time, as it says now."""
    query = {"query": f"sum({REQUESTS})", "time": f"{at:.3f}"}
    result = stack.get("prometheus", "/api/v1/query", **query)["data"]["result"]
    return float(result[0]["value"][1]) if result else 0.0


def memory(stack: Stack) -> float:
    """Return the MiB that the backend has in memory."""
    return backend_value(stack, "process_resident_memory_bytes") / 2**20


def backend_value(stack: Stack, name: str) -> float:
    """Return the sum of a metric in the backend's own /metrics."""
    return sum(exposed(stack.url("backend"), name))


def missing_traces(stack: Stack, answers: list[Answer]) -> int:
    """Return how many of the requests are not in Tempo, of at most `LOOKED_UP`, even after a while."""
    ids = [answer.trace_id for answer in answers if answer.trace_id]
    missing = set(random.sample(ids, min(LOOKED_UP, len(ids))))

    def none_missing() -> bool:
        found = [i for i in missing if _true(partial(has_trace, stack, i))]
        missing.difference_update(found)
        assert not missing
        return True

    _settle(none_missing, TRACE_SECONDS)
    return len(missing)
