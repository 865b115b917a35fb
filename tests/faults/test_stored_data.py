"""What was stored is there after everything that may happen to the containers, each line once."""

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
ENGINE_SECONDS = 120.0


@pytest.fixture(scope="module")
def kept(bake: Bake) -> Iterator[Stack]:
    """Run the overlay with its ordinary volumes."""
    project = bake(project_slug=BACKEND_IMAGE.split("-backend")[0])
    with running_stack(project, keep_ports=True) as running:
        yield running


@dataclass
class Stored:
    """One request, and a folder that somebody made in Grafana.

    Attributes:
        at: When it was seen in Prometheus, in seconds since the epoch.
        counted: What Prometheus said then.
        trace_id: Of the request.
        folder: Its uid in Grafana.
    """

    at: float
    counted: float
    trace_id: str
    folder: str

    @classmethod
    def make(cls, stack: Stack) -> "Stored":
        """Make the request and the folder, and wait until both are stored."""
        began = time.time()
        trace_id = requests.get(stack.url("backend") + ITEMS, timeout=10).headers["x-trace-id"]
        wait_until(lambda: observe.new_metric(stack, began), "a scrape", STORED_SECONDS)
        now = time.time()
        stored = cls(now, observe.counted(stack, now), trace_id, uuid.uuid4().hex)
        if "grafana" in stack.services:
            content = {"uid": stored.folder, "title": stored.folder}
            grafana(stack, "POST", "/api/folders", content).raise_for_status()
        wait_until(lambda: stored.found(stack), "all of it to be stored", STORED_SECONDS)
        return stored

    def found(self, stack: Stack) -> bool:
        """Tell whether all of it is there."""
        assert observe.counted(stack, self.at) == self.counted
        if "tempo" in stack.services:
            assert stack.span_names(self.trace_id) == [f"GET {ITEMS}"]
        if {"loki", "promtail", "docker-proxy"} <= set(stack.services):
            query = f'{{service="backend"}} | trace_id="{self.trace_id}"'
            assert len(stack.lines(query)) == 1
        if "grafana" in stack.services:
            assert grafana(stack, "GET", f"/api/folders/{self.folder}").ok
        return True


def grafana(stack: Stack, method: str, path: str, content: object = None) -> requests.Response:
    """Make a request as Grafana's admin."""
    lines = (Path(stack.compose.context) / ".env").read_text(encoding="utf-8").splitlines()
    password = next(line.split("=", 1)[1] for line in lines if line.startswith("GRAFANA_ADMIN_"))
    url = stack.url("grafana") + path
    return requests.request(method, url, json=content, auth=("admin", password), timeout=10)


def down_and_up(stack: Stack) -> None:
    """As `make obs-down obs-up`."""
    stack.run("down")
    stack.compose.start()


def restart(stack: Stack) -> None:
    """As `docker compose restart`."""
    stack.run("restart")


def kill_all(stack: Stack) -> None:
    """SIGKILL for every program at nearly the same time."""
    for service in stack.services:
        inject.kill(stack, service)


def upgrade(stack: Stack) -> None:
    """Every image is another one, as after a new version in .env."""
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
            assert inject.state(stack, service)["Config"]["Image"].startswith("upgraded-")
    finally:
        docker("image", "rm", "--force", *images.values())


def restart_engine(stack: Stack) -> None:
    """As after an update of the engine. All containers of this machine end and start again."""
    command = os.environ.get("FAULTS_ENGINE_RESTART")
    if not command:
        unavailable("FAULTS_ENGINE_RESTART, a command that restarts the engine, is not set")
    subprocess.run(shlex.split(command), check=True)

    def answers() -> bool:
        assert not subprocess.run(["docker", "info"], capture_output=True, check=False).returncode
        return True

    wait_until(answers, "the engine", ENGINE_SECONDS)


WAYS: dict[str, Callable[[Stack], None]] = {
    "down and up": down_and_up,
    "restart": restart,
    "all killed (SIGKILL)": kill_all,
    "image upgrade": upgrade,
    "engine restarted": restart_engine,
}


@pytest.mark.parametrize("way", WAYS)
def test_what_was_stored_is_there_after(
    kept: Stack, figure: Callable[[str, str], None], way: str
) -> None:
    stored = Stored.make(kept)
    started = time.monotonic()
    WAYS[way](kept)
    kept.wait_for_health("healthy", kept.services)
    healthy = time.monotonic() - started
    wait_until(lambda: stored.found(kept), "all that was stored", STORED_SECONDS)
    Stored.make(kept)  # and more can be stored
    signals = observe.can_be_seen(kept)
    names = {"metric": "metrics", "trace": "trace", "log": "log line (once)"}
    found = [name for signal, name in names.items() if signal in signals]
    found += ["the change in Grafana"] if "grafana" in kept.services else []
    figure(way, f"{', '.join(found)} are kept; healthy after {healthy:.0f} s")
