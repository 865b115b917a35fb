"""Lines that no program should write, and more lines than anybody reads."""

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

SEEN_SECONDS = 30.0
FLOOD_SECONDS = 30
FLOOD_RATE = 10_000  # lines per second
DRAINED_SECONDS = 120.0
# Into the stream that the engine reads: that of the container's first process.
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
    """Have the backend's container write bytes to its output."""
    subprocess.run(
        [*stack.compose.compose_command_property, "exec", "-T", "backend", "python", "-c", COPY],
        cwd=stack.compose.context,
        input=content,
        check=True,
        capture_output=True,
    )


def find(stack: Stack, marker: str) -> list[tuple[dict[str, str], str]]:
    """Return the lines with a marker in the order of their writing, each with its labels."""
    parameters = {"query": f'{{service="backend"}} |= "{marker}"', "since": "1h"}
    result = stack.get(
        "loki", "/loki/api/v1/query_range", **parameters, direction="forward", limit="1000"
    )["data"]["result"]
    found = [(int(at), s["stream"], line) for s in result for at, line in s["values"]]
    return [(labels, line) for _, labels, line in sorted(found, key=lambda each: each[0])]


@pytest.fixture
def logging_stack(faulty: Stack) -> Stack:
    """Return the stack, where logs can be collected."""
    faulty.need("loki", "promtail", "docker-proxy")
    return faulty


def collected(
    stack: Stack, content: bytes, marker: str, count: int = 1
) -> list[tuple[dict[str, str], str]]:
    """Write bytes, then an ordinary line, and return what is found of the first when the second is there."""
    after = uuid.uuid4().hex
    write(stack, content)
    write(stack, json.dumps({"level": "info", "message": after}).encode() + b"\n")
    wait_until(lambda: find(stack, after), "the line after it", SEEN_SECONDS)
    found: list[tuple[dict[str, str], str]] = []

    def complete() -> bool:
        found[:] = find(stack, marker)
        return len(found) >= count

    wait_until(complete, f"{count} lines with {marker}", SEEN_SECONDS)
    return found


def test_a_line_of_a_megabyte_is_cut_and_kept(
    logging_stack: Stack, figure: Callable[[str, str], None]
) -> None:
    marker = uuid.uuid4().hex
    line = json.dumps({"level": "error", "message": marker + "x" * 1_000_000}).encode()
    ((_, kept),) = collected(logging_stack, line + b"\n", marker)
    figure("a log line of 1 MB", f"its first {len(kept):,} characters are kept")
    assert kept.startswith(f'{{"level": "error", "message": "{marker}')
    assert len(kept) > 200_000
    assert kept.endswith("...(cut)")


def test_bytes_that_are_no_text_are_kept_readable(logging_stack: Stack) -> None:
    marker = uuid.uuid4().hex
    junk = os.urandom(1000).replace(b"\n", b" ")
    ((labels, kept),) = collected(logging_stack, marker.encode() + junk + b"\n", marker)
    assert kept.startswith(marker)
    assert labels["level"] == "unknown"


def test_a_traceback_is_kept_in_its_order(logging_stack: Stack) -> None:
    marker = uuid.uuid4().hex
    lines = [f"{marker} Traceback (most recent call last):"]
    lines += [f'{marker}   File "app.py", line {number}, in f' for number in range(30)]
    lines += [f"{marker} ValueError: not so"]
    found = collected(logging_stack, "\n".join(lines).encode() + b"\n", marker, len(lines))
    assert [line for _, line in found] == lines


@pytest.mark.long
def test_a_flood_of_lines_arrives_or_is_counted_as_dropped(
    logging_stack: Stack, figure: Callable[[str, str], None]
) -> None:
    stack, marker, wanted = logging_stack, uuid.uuid4().hex, FLOOD_SECONDS * FLOOD_RATE
    before, began = dropped(stack), time.time() - 1
    arguments = [FLOOD, marker, str(FLOOD_SECONDS), str(FLOOD_RATE)]
    took = float(stack.run("exec", "-T", "backend", "python", "-c", *arguments).stdout)
    started = time.monotonic()

    def all_there() -> bool:
        query = f'sum(count_over_time({{service="backend"}} |= "{marker}" [10m]))'
        result = stack.get("loki", "/loki/api/v1/query", query=query)["data"]["result"]
        arrived = float(result[0]["value"][1]) if result else 0.0
        assert arrived + dropped(stack) - before >= wanted
        return True

    wait_until(all_there, f"{wanted} lines", DRAINED_SECONDS)
    seconds = time.monotonic() - started
    lost = dropped(stack) - before
    numbers = Counter(numbers_of(stack, marker, began))
    figure(
        f"{wanted:,} log lines in {took:.0f} s",
        f"{len(numbers):,} arrived, the last within {seconds:.0f} s after it was written, "
        f"{numbers.total() - len(numbers):,} of them twice; {lost:,.0f} counted as dropped",
    )
    assert len(numbers) + lost >= wanted


def numbers_of(stack: Stack, marker: str, start: float) -> Iterator[int]:
    """Return the number in each line of the flood, page by page."""
    at = int(start * 10**9)
    seen: set[tuple[str, str]] = set()  # a page begins with the lines at the end of the one before
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
    """Return how many lines Promtail says it gave up on."""
    return sum(stack.query("sum(promtail_dropped_entries_total)").values())
