"""Old data is really deleted from the volumes. Retention is shortened, and looked after more often than by default."""

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
OFTEN = {
    "loki": ["-compactor.compaction-interval=5s", "-compactor.retention-delete-delay=1s"],
    "tempo": [
        "-backend-scheduler.provider.workbackend-scheduler.retention-interval=3s",
        "-storage.trace.blocklist_poll=3s",
    ],
}


def files(stack: Stack, service: str, pattern: str) -> set[str]:
    """Return the paths below a service's volume that match a pattern of find(1)."""
    volume = f"--volume={stack.project}_{inject.VOLUMES[service][0]}:/volume:ro"
    run = ["run", "--rm", "--network=none", "--user=0:0", volume, inject.BACKEND_IMAGE]
    return set(docker(*run, "find", "/volume", "-path", pattern).split())


@pytest.fixture
def short_retention(faulty: Stack) -> Iterator[Callable[[str], None]]:
    """Return a function that starts a service with a short retention."""
    project = Path(faulty.compose.context)
    services = configuration(project, OVERLAY)["services"]
    patch = {name: {"command": services[name]["command"] + more} for name, more in OFTEN.items()}
    (project / "retention.yml").write_text(yaml.safe_dump({"services": patch}), encoding="utf-8")
    changed: list[str] = []
    # The delay between marking and deleting, for which there is no flag.
    file = project / "observability" / inject.CONFIGURATIONS["tempo"]
    right = file.read_text(encoding="utf-8")
    changed_file = yaml.safe_load(right)
    changed_file["backend_worker"]["compaction"]["compacted_block_retention"] = "1s"
    file.write_text(yaml.safe_dump(changed_file), encoding="utf-8")

    def start(service: str) -> None:
        changed.append(service)
        # Prometheus has its retention as an argument, which the file would fix as it was.
        more = ["-f", "retention.yml"] if service in OFTEN else []
        up = [*more, "up", "--detach", "--no-deps", "--force-recreate", service]
        faulty.run(*up, env=RETENTION)

    yield start
    file.write_text(right, encoding="utf-8")
    for service in changed:
        inject.recreate(faulty, service)


def test_prometheus_deletes_old_metrics(
    faulty: Stack, short_retention: Callable[[str], None], figure: Callable[[str, str], None]
) -> None:
    old = int(time.time()) - 3 * DAY
    new = old + 3 * DAY - 3 * HOUR  # age is counted from the newest block, so there must be one
    samples = f"# TYPE old gauge\nold 1 {old}\nold 1 {new}\n# EOF\n"
    make = (
        "printf '%s' \"$0\" > /tmp/old && "
        "promtool tsdb create-blocks-from openmetrics /tmp/old /prometheus"
    )
    before = files(faulty, "prometheus", "/volume/*/meta.json")
    # In a container without Prometheus' limit: promtool asks for 512 MB, and the volume is in memory.
    image = inject.state(faulty, "prometheus")["Config"]["Image"]
    volume = f"--volume={faulty.project}_prometheus-data:/prometheus"
    run = ["run", "--rm", "--network=none", volume, "--entrypoint=sh", image]
    docker(*run, "-c", make, samples)
    made = sorted(files(faulty, "prometheus", "/volume/*/meta.json") - before)
    assert len(made) == 2  # named in the order in which they were made, the old one first
    gone = deleted(faulty, short_retention, "prometheus", "/volume/*/meta.json", {made[0]})
    assert made[1] in files(faulty, "prometheus", "/volume/*/meta.json")
    figure(
        "metrics older than PROMETHEUS_RETENTION", f"deleted from disk {gone:.0f} s after the start"
    )


def test_loki_deletes_old_lines(
    faulty: Stack, short_retention: Callable[[str], None], figure: Callable[[str, str], None]
) -> None:
    faulty.need("loki")
    marker = uuid.uuid4().hex
    old = (int(time.time()) - 3 * DAY) * 10**9
    stream = {"stream": {"service": marker}, "values": [[str(old), "old line"]]}
    push = requests.post(
        faulty.url("loki") + "/loki/api/v1/push", json={"streams": [stream]}, timeout=10
    )
    assert push.ok, push.text
    before = files(faulty, "loki", "/volume/chunks/fake/*/*")
    requests.post(faulty.url("loki") + "/flush", timeout=10).raise_for_status()
    made = wait_until(
        lambda: files(faulty, "loki", "/volume/chunks/fake/*/*") - before, "chunks on disk"
    )
    mine = {path for path in made if written_before(faulty, path, old)}
    gone = deleted(faulty, short_retention, "loki", "/volume/chunks/fake/*/*", mine)
    query = {"query": f'{{service="{marker}"}}', "start": str(old - 10**9), "end": str(old + 10**9)}
    left = faulty.get("loki", "/loki/api/v1/query_range", **query)["data"]["result"]
    figure("log lines older than LOKI_RETENTION", f"deleted from disk {gone:.0f} s after the start")
    assert left == []


def written_before(stack: Stack, path: str, nanoseconds: int) -> bool:
    """Tell whether a chunk's last line is no newer than a time: its name ends in from:through:checksum, in base 64."""
    name = base64.b64decode(Path(path).name + "==").decode(errors="replace")
    through = int(name.split(":")[-2], 16)
    return through * 10**6 <= nanoseconds + 10**9


def test_tempo_deletes_old_traces(
    faulty: Stack, short_retention: Callable[[str], None], figure: Callable[[str, str], None]
) -> None:
    faulty.need("tempo")
    before = files(faulty, "tempo", "/volume/blocks/single-tenant/*/meta.json")
    assert requests.get(faulty.url("backend") + ITEMS, timeout=10).ok
    made = wait_until(
        lambda: files(faulty, "tempo", "/volume/blocks/single-tenant/*/meta.json") - before,
        "a block on disk",
        timeout=120,
    )
    gone = deleted(
        faulty, short_retention, "tempo", "/volume/blocks/single-tenant/*/meta.json", made
    )
    figure("traces older than TEMPO_RETENTION", f"deleted from disk {gone:.0f} s after the start")


def deleted(
    stack: Stack, start: Callable[[str], None], service: str, pattern: str, paths: set[str]
) -> float:
    """Start a service with a short retention, and return the seconds until these paths are gone."""
    assert paths
    started = time.monotonic()
    start(service)
    wait_until(
        lambda: not paths & files(stack, service, pattern),
        f"{service} to delete {json.dumps(sorted(paths)[:3])}",
        DELETED_SECONDS,
    )
    return time.monotonic() - started
