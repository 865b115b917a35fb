"""Data older than the retention is deleted from the volumes. Retention and the intervals of its jobs are shortened."""

import base64
import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
import yaml

from scripts.engine import OVERLAY, configuration
from tests.faults import inject
from tests.support.backend import ITEMS
from tests.support.compose_stack import Stack
from tests.support.docker import docker
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long

HOUR = 3600
DAY = 24 * HOUR
DELETED_SECONDS = 180.0
RETENTION = {"PROMETHEUS_RETENTION": "1d", "LOKI_RETENTION": "24h", "TEMPO_RETENTION": "30s"}
SHORT_INTERVALS = {
    "loki": ["-compactor.compaction-interval=5s", "-compactor.retention-delete-delay=1s"],
    "tempo": [
        "-backend-scheduler.provider.workbackend-scheduler.retention-interval=3s",
        "-storage.trace.blocklist_poll=3s",
    ],
}


def files(stack: Stack, service: str, pattern: str) -> set[str]:
    """Return the paths in a service's volume that match a pattern of ``find -path``."""
    volume = f"--volume={stack.project}_{inject.VOLUMES[service][0]}:/volume:ro"
    run = ["run", "--rm", "--network=none", "--user=0:0", volume, inject.BACKEND_IMAGE]
    return set(docker(*run, "find", "/volume", "-path", pattern).split())


@pytest.fixture
def short_retention(fault_stack: Stack) -> Iterator[Callable[[str], None]]:
    """Return a function that starts a service with a short retention."""
    project = Path(fault_stack.compose.context)
    services = configuration(project, OVERLAY)["services"]
    patch = {
        name: {"command": services[name]["command"] + more}
        for name, more in SHORT_INTERVALS.items()
    }
    (project / "retention.yml").write_text(yaml.safe_dump({"services": patch}), encoding="utf-8")
    changed: list[str] = []
    # Tempo has no command-line option for the delay before it deletes a marked block, so change its file.
    file = project / "observability" / inject.CONFIGURATIONS["tempo"]
    original = file.read_text(encoding="utf-8")
    tempo = yaml.safe_load(original)
    tempo["backend_worker"]["compaction"]["compacted_block_retention"] = "1s"
    file.write_text(yaml.safe_dump(tempo), encoding="utf-8")

    def start(service: str) -> None:
        changed.append(service)
        # Not for Prometheus: its retention is part of the command, so the file would restore the original value.
        more = ["-f", "retention.yml"] if service in SHORT_INTERVALS else []
        up = [*more, "up", "--detach", "--no-deps", "--force-recreate", service]
        fault_stack.run(*up, env=RETENTION)

    yield start
    file.write_text(original, encoding="utf-8")
    for service in changed:
        inject.recreate(fault_stack, service)


def test_prometheus_deletes_old_metrics(
    fault_stack: Stack,
    short_retention: Callable[[str], None],
    record_result: Callable[[str, str], None],
) -> None:
    old = int(time.time()) - 3 * DAY
    new = old + 3 * DAY - 3 * HOUR  # age is relative to the newest block, so a new one is required
    samples = f"# TYPE old gauge\nold 1 {old}\nold 1 {new}\n# EOF\n"
    make = (
        "printf '%s' \"$0\" > /tmp/old && "
        "promtool tsdb create-blocks-from openmetrics /tmp/old /prometheus"
    )
    before = files(fault_stack, "prometheus", "/volume/*/meta.json")
    # In a container without a memory limit: promtool requires 512 MB, and the volume is in memory.
    image = inject.inspect(fault_stack, "prometheus")["Config"]["Image"]
    volume = f"--volume={fault_stack.project}_prometheus-data:/prometheus"
    run = ["run", "--rm", "--network=none", volume, "--entrypoint=sh", image]
    docker(*run, "-c", make, samples)
    made = sorted(files(fault_stack, "prometheus", "/volume/*/meta.json") - before)
    assert len(made) == 2  # names sort by creation time, so the old block is first
    seconds = deleted(fault_stack, short_retention, "prometheus", "/volume/*/meta.json", {made[0]})
    assert made[1] in files(fault_stack, "prometheus", "/volume/*/meta.json")
    record_result(
        "metrics older than PROMETHEUS_RETENTION",
        f"deleted from disk {seconds:.0f} s after start-up",
    )


def test_loki_deletes_old_log_lines(
    fault_stack: Stack,
    short_retention: Callable[[str], None],
    record_result: Callable[[str, str], None],
) -> None:
    fault_stack.require("loki")
    marker = uuid.uuid4().hex
    old = (int(time.time()) - 3 * DAY) * 10**9
    stream = {"stream": {"service": marker}, "values": [[str(old), "old line"]]}
    push = requests.post(
        fault_stack.url("loki") + "/loki/api/v1/push", json={"streams": [stream]}, timeout=10
    )
    assert push.ok, push.text
    before = files(fault_stack, "loki", "/volume/chunks/fake/*/*")
    requests.post(fault_stack.url("loki") + "/flush", timeout=10).raise_for_status()
    made = wait_until(
        lambda: files(fault_stack, "loki", "/volume/chunks/fake/*/*") - before, "chunks on disk"
    )
    mine = {path for path in made if written_before(fault_stack, path, old)}
    seconds = deleted(fault_stack, short_retention, "loki", "/volume/chunks/fake/*/*", mine)
    query = {"query": f'{{service="{marker}"}}', "start": str(old - 10**9), "end": str(old + 10**9)}
    left = fault_stack.get("loki", "/loki/api/v1/query_range", **query)["data"]["result"]
    record_result(
        "log lines older than LOKI_RETENTION", f"deleted from disk {seconds:.0f} s after start-up"
    )
    assert left == []


def written_before(stack: Stack, path: str, nanoseconds: int) -> bool:
    """Return whether a chunk's last log line is no newer than a time. Its name is base64 of ``...from:through:checksum``."""
    name = base64.b64decode(Path(path).name + "==").decode(errors="replace")
    through = int(name.split(":")[-2], 16)
    return through * 10**6 <= nanoseconds + 10**9


def test_tempo_deletes_old_traces(
    fault_stack: Stack,
    short_retention: Callable[[str], None],
    record_result: Callable[[str, str], None],
) -> None:
    fault_stack.require("tempo")
    before = files(fault_stack, "tempo", "/volume/blocks/single-tenant/*/meta.json")
    assert requests.get(fault_stack.url("backend") + ITEMS, timeout=10).ok
    made = wait_until(
        lambda: files(fault_stack, "tempo", "/volume/blocks/single-tenant/*/meta.json") - before,
        "a block on disk",
        timeout=120,
    )
    seconds = deleted(
        fault_stack, short_retention, "tempo", "/volume/blocks/single-tenant/*/meta.json", made
    )
    record_result(
        "traces older than TEMPO_RETENTION", f"deleted from disk {seconds:.0f} s after start-up"
    )


def deleted(
    stack: Stack, start: Callable[[str], None], service: str, pattern: str, paths: set[str]
) -> float:
    """Start a service with a short retention, and return the seconds until these paths are deleted."""
    assert paths
    started = time.monotonic()
    start(service)
    wait_until(
        lambda: not paths & files(stack, service, pattern),
        f"{service} to delete {json.dumps(sorted(paths)[:3])}",
        DELETED_SECONDS,
    )
    return time.monotonic() - started
