"""Unusual log output: very long lines, binary data, tracebacks, and a flood of log lines."""

import json
import os
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.support.compose_stack import Stack
from tests.support.waiting import wait_until

STORED_SECONDS = 30.0
FLOOD_SECONDS = 30
FLOOD_RATE = 10_000  # log lines per second
DRAINED_SECONDS = 120.0
# Writes to the standard output of the main process, which Docker reads.
COPY = "import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, open('/proc/1/fd/1', 'wb'))"
FLOOD = """
import sys, time
marker, seconds, rate = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
out, started, written = open('/proc/1/fd/1', 'wb', buffering=0), time.monotonic(), 0
while written < seconds * rate:
    due = min(int((time.monotonic() - started) * rate), seconds * rate)
    for number in range(written, due):
        out.write(b'{"level": "info", "message": "%s %d", "padding": "%s"}\\n' % (marker.encode(), number, b'x' * 60))
    written = due
    time.sleep(0.01)
print(time.monotonic() - started)
"""


def write(stack: Stack, content: bytes) -> None:
    """Write bytes to the standard output of the backend's container."""
    subprocess.run(
        [*stack.compose.compose_command_property, "exec", "-T", "backend", "python", "-c", COPY],
        cwd=stack.compose.context,
        input=content,
        check=True,
        capture_output=True,
    )


def find(stack: Stack, marker: str) -> list[tuple[dict[str, str], str]]:
    """Return the log lines that contain a marker, with their labels, ordered by time."""
    parameters = {"query": f'{{service="backend"}} |= "{marker}"', "since": "1h"}
    result = stack.get(
        "loki", "/loki/api/v1/query_range", **parameters, direction="forward", limit="1000"
    )["data"]["result"]
    found = [(int(at), s["stream"], line) for s in result for at, line in s["values"]]
    return [(labels, line) for _, labels, line in sorted(found, key=lambda each: each[0])]


@pytest.fixture
def logging_stack(fault_stack: Stack) -> Stack:
    """Return the stack; skip the test if log collection is not available."""
    fault_stack.require("loki", "promtail", "docker-proxy")
    return fault_stack


def collected(
    stack: Stack, content: bytes, marker: str, count: int = 1
) -> list[tuple[dict[str, str], str]]:
    """Write bytes and a final log line; when the latter is stored, return the log lines that contain the marker."""
    last = uuid.uuid4().hex
    write(stack, content)
    write(stack, json.dumps({"level": "info", "message": last}).encode() + b"\n")
    wait_until(lambda: find(stack, last), "the final log line", STORED_SECONDS)
    found: list[tuple[dict[str, str], str]] = []

    def complete() -> bool:
        found[:] = find(stack, marker)
        return len(found) >= count

    wait_until(complete, f"{count} log lines with {marker}", STORED_SECONDS)
    return found


def test_a_log_line_of_a_megabyte_is_truncated(
    logging_stack: Stack, record_result: Callable[[str, str], None]
) -> None:
    marker = uuid.uuid4().hex
    line = json.dumps({"level": "error", "message": marker + "x" * 1_000_000}).encode()
    ((_, stored),) = collected(logging_stack, line + b"\n", marker)
    record_result("a log line of 1 MB", f"truncated to {len(stored):,} characters")
    assert stored.startswith(f'{{"level": "error", "message": "{marker}')
    assert len(stored) > 200_000
    assert stored.endswith("...(cut)")


def test_binary_log_output_is_stored(logging_stack: Stack) -> None:
    marker = uuid.uuid4().hex
    junk = os.urandom(1000).replace(b"\n", b" ")
    ((labels, stored),) = collected(logging_stack, marker.encode() + junk + b"\n", marker)
    assert stored.startswith(marker)
    assert labels["level"] == "unknown"


def test_a_traceback_keeps_its_order(logging_stack: Stack) -> None:
    marker = uuid.uuid4().hex
    lines = [f"{marker} Traceback (most recent call last):"]
    lines += [f'{marker}   File "app.py", line {number}, in f' for number in range(30)]
    lines += [f"{marker} ValueError: not so"]
    found = collected(logging_stack, "\n".join(lines).encode() + b"\n", marker, len(lines))
    assert [line for _, line in found] == lines


@pytest.mark.long
def test_a_flood_of_log_lines_is_stored_or_counted_as_dropped(
    logging_stack: Stack, record_result: Callable[[str, str], None]
) -> None:
    stack, marker, expected = logging_stack, uuid.uuid4().hex, FLOOD_SECONDS * FLOOD_RATE
    before, start = dropped(stack), time.time() - 1
    arguments = [FLOOD, marker, str(FLOOD_SECONDS), str(FLOOD_RATE)]
    duration = float(stack.run("exec", "-T", "backend", "python", "-c", *arguments).stdout)
    written = time.monotonic()

    def all_stored() -> bool:
        query = f'sum(count_over_time({{service="backend"}} |= "{marker}" [10m]))'
        result = stack.get("loki", "/loki/api/v1/query", query=query)["data"]["result"]
        stored = float(result[0]["value"][1]) if result else 0.0
        assert stored + dropped(stack) - before >= expected
        return True

    wait_until(all_stored, f"{expected} log lines", DRAINED_SECONDS)
    seconds = time.monotonic() - written
    lost = dropped(stack) - before
    numbers = Counter(numbers_of(stack, marker, start))
    record_result(
        f"{expected:,} log lines in {duration:.0f} s",
        f"{len(numbers):,} stored, the last within {seconds:.0f} s after it was written; "
        f"{numbers.total() - len(numbers):,} duplicates; {lost:,.0f} counted as dropped",
    )
    assert len(numbers) + lost >= expected


def numbers_of(stack: Stack, marker: str, start: float) -> Iterator[int]:
    """Yield the number in each log line of the flood, page by page."""
    at = int(start * 10**9)
    seen: set[tuple[str, str]] = set()  # a page starts with the last log lines of the previous one
    while True:
        parameters = {"query": f'{{service="backend"}} |= "{marker}"', "start": str(at)}
        page = stack.get(
            "loki", "/loki/api/v1/query_range", **parameters, direction="forward", limit="5000"
        )["data"]["result"]
        lines = [(when, line) for stream in page for when, line in stream["values"]]
        new = [each for each in lines if each not in seen]
        if not new:
            return
        yield from (int(json.loads(line)["message"].split()[1]) for _, line in new)
        at, seen = max(int(when) for when, _ in lines), set(lines)


def dropped(stack: Stack) -> float:
    """Return the number of log lines that Promtail has counted as dropped."""
    return sum(stack.query("sum(promtail_dropped_entries_total)").values())
