"""Stored data survives restarts, crashes and upgrades of the containers, without duplicate log lines."""

import os
import shlex
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from scripts.engine import OVERLAY, configuration
from tests.faults import inject, observe
from tests.faults.inject import BACKEND_IMAGE
from tests.support.backend import ITEMS
from tests.support.compose_stack import Stack, running_stack
from tests.support.docker import docker
from tests.support.prerequisites import unavailable
from tests.support.template import Bake
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long

STORED_SECONDS = 30.0
DOCKER_SECONDS = 120.0


@pytest.fixture(scope="module")
def persistent_stack(bake: Bake) -> Iterator[Stack]:
    """Run the overlay with its normal volumes."""
    project = bake(project_slug=BACKEND_IMAGE.split("-backend")[0])
    with running_stack(project, keep_ports=True) as running:
        yield running


@dataclass
class StoredData:
    """The telemetry of one request, and a folder in Grafana.

    Attributes:
        at: When Prometheus had counted the request, in seconds since the epoch.
        requests: Number of requests in Prometheus at that time.
        trace_id: Of the request.
        folder: Its uid in Grafana.
    """

    at: float
    requests: float
    trace_id: str
    folder: str

    @classmethod
    def create(cls, stack: Stack) -> "StoredData":
        """Send the request, create the folder, and wait until both are stored."""
        began = time.time()
        trace_id = requests.get(stack.url("backend") + ITEMS, timeout=10).headers["x-trace-id"]
        wait_until(lambda: observe.scraped_since(stack, began), "a scrape", STORED_SECONDS)
        now = time.time()
        stored = cls(now, observe.request_count(stack, now), trace_id, uuid.uuid4().hex)
        if "grafana" in stack.services:
            content = {"uid": stored.folder, "title": stored.folder}
            grafana(stack, "POST", "/api/folders", content).raise_for_status()
        wait_until(lambda: stored.found(stack), "the data to be stored", STORED_SECONDS)
        return stored

    def found(self, stack: Stack) -> bool:
        """Check that all of it is stored."""
        assert observe.request_count(stack, self.at) == self.requests
        if "tempo" in stack.services:
            assert stack.span_names(self.trace_id) == [f"GET {ITEMS}"]
        if {"loki", "promtail", "docker-proxy"} <= set(stack.services):
            query = f'{{service="backend"}} | trace_id="{self.trace_id}"'
            assert len(stack.lines(query)) == 1
        if "grafana" in stack.services:
            assert grafana(stack, "GET", f"/api/folders/{self.folder}").ok
        return True


def grafana(stack: Stack, method: str, path: str, content: object = None) -> requests.Response:
    """Send a request as Grafana's admin."""
    lines = (Path(stack.compose.context) / ".env").read_text(encoding="utf-8").splitlines()
    password = next(line.split("=", 1)[1] for line in lines if line.startswith("GRAFANA_ADMIN_"))
    url = stack.url("grafana") + path
    return requests.request(method, url, json=content, auth=("admin", password), timeout=10)


def down_and_up(stack: Stack) -> None:
    """Like `make obs-down obs-up`."""
    stack.run("down")
    stack.compose.start()


def restart(stack: Stack) -> None:
    """Like `docker compose restart`."""
    stack.run("restart")


def kill_all(stack: Stack) -> None:
    """Send SIGKILL to all services."""
    for service in stack.services:
        inject.kill(stack, service)


def upgrade(stack: Stack) -> None:
    """Replace all images, as a new version in .env does."""
    services = configuration(Path(stack.compose.context), OVERLAY)["services"]
    images = {}
    for service in set(stack.services) - {"backend"}:
        old = services[service]["image"]
        new = f"upgraded-{service}:{uuid.uuid4().hex}"
        file = f"FROM {old}\nLABEL upgraded=yes\n"
        build = ["docker", "build", "--quiet", "--tag", new, "-"]
        subprocess.run(build, input=file, text=True, check=True, capture_output=True)
        variable = "HAPROXY" if service == "docker-proxy" else service.upper().replace("-", "_")
        images[f"{variable}_IMAGE"] = new
    stack.run("up", "--detach", "--wait", *stack.services, env=images)
    try:
        for service in set(stack.services) - {"backend"}:
            assert inject.inspect(stack, service)["Config"]["Image"].startswith("upgraded-")
    finally:
        docker("image", "rm", "--force", *images.values())


def restart_docker(stack: Stack) -> None:
    """Restart Docker, as after an update. All containers on this machine are restarted."""
    command = os.environ.get("FAULTS_ENGINE_RESTART")
    if not command:
        unavailable("FAULTS_ENGINE_RESTART, a command that restarts Docker, is not set")
    subprocess.run(shlex.split(command), check=True)

    def docker_responds() -> bool:
        assert not subprocess.run(["docker", "info"], capture_output=True, check=False).returncode
        return True

    wait_until(docker_responds, "Docker", DOCKER_SECONDS)


EVENTS: dict[str, Callable[[Stack], None]] = {
    "stack down and up": down_and_up,
    "stack restarted": restart,
    "all containers killed (SIGKILL)": kill_all,
    "images upgraded": upgrade,
    "Docker restarted": restart_docker,
}


@pytest.mark.parametrize("event", EVENTS)
def test_stored_data_survives(
    persistent_stack: Stack, record_result: Callable[[str, str], None], event: str
) -> None:
    stack = persistent_stack
    stored = StoredData.create(stack)
    started = time.monotonic()
    EVENTS[event](stack)
    stack.wait_for_health("healthy", stack.services)
    healthy = time.monotonic() - started
    wait_until(lambda: stored.found(stack), "the stored data", STORED_SECONDS)
    StoredData.create(stack)  # new data can be stored, too
    signals = observe.available_signals(stack)
    names = {"metric": "metrics", "trace": "trace", "log": "log line (exactly once)"}
    found = [name for signal, name in names.items() if signal in signals]
    found += ["the change in Grafana"] if "grafana" in stack.services else []
    record_result(event, f"{', '.join(found)} preserved; healthy after {healthy:.0f} s")
