"""The stack that faults are done to, what is normal for it, and the report of what came of them."""

import json
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from scripts.engine import OVERLAY, configuration
from tests.faults import report
from tests.faults.inject import BACKEND_IMAGE, VOLUMES
from tests.faults.load import RATE, latency_ms, running_load
from tests.faults.observe import Undisturbed
from tests.support.backend import ITEMS
from tests.support.compose_stack import Stack, running_stack
from tests.support.docker import docker
from tests.support.template import Bake

WARM_SECONDS = 3
WINDOWS = 6
WINDOW_SECONDS = 6
VOLUME_SIZE = "1g"  # promtool wants 512 MB for a block
PATIENCE_SECONDS = (
    2.0  # a service that is being started again may take a request and never answer it
)
FACTS = pytest.StashKey[dict[str, Any]]()


@pytest.fixture(scope="session")
def faulty(bake: Bake, pytestconfig: pytest.Config) -> Iterator[Stack]:
    """Run the overlay with volumes that can be filled, and that keep their data while it runs."""
    project = bake(project_slug=BACKEND_IMAGE.split("-backend")[0])
    options = {"type": "tmpfs", "device": "tmpfs", "o": f"size={VOLUME_SIZE},mode=1777"}
    limits = {"volumes": {name: {"driver_opts": options} for name, _ in VOLUMES.values()}}
    (project / "volumes.yml").write_text(yaml.safe_dump(limits), encoding="utf-8")
    with running_stack(project, [*OVERLAY, "volumes.yml"], keep_ports=True) as running:
        services = configuration(project, OVERLAY)["services"]
        images = {name: services[name]["image"] for name in running.services if name != "backend"}
        running.patience = PATIENCE_SECONDS
        # The first item, which the load asks for.
        requests.post(running.url("backend") + ITEMS, json={"name": "1"}, timeout=10)
        pytestconfig.stash[FACTS] = {"machine": report.machine(images), "rate": RATE}
        with kept_volumes(running):
            yield running


@contextmanager
def kept_volumes(running: Stack) -> Iterator[None]:
    """Keep the data of the volumes: a tmpfs is empty again when its last container has stopped.

    node-exporter mounts all of them, too, but its image may be missing.
    """
    name = f"{running.project}-volumes"
    mounts = [
        f"--volume={running.project}_{volume}:{folder}"
        for service, (volume, folder) in VOLUMES.items()
        if service in running.services
    ]
    options = ["--detach", f"--name={name}", "--network=none", *mounts, BACKEND_IMAGE]
    docker("run", *options, "sleep", "infinity")
    try:
        yield
    finally:
        docker("rm", "--force", name)


@pytest.fixture(scope="session")
def undisturbed(faulty: Stack) -> Undisturbed:
    """Return the p99 of the load without a fault, over several windows as long as a fault."""
    with running_load(faulty.url("backend")) as load:
        load.go_on_for(WARM_SECONDS)
        windows = []
        for _ in range(WINDOWS):
            started = len(load.answers)
            load.go_on_for(WINDOW_SECONDS)
            windows.append(latency_ms(load.answers[started:], 99))
    return Undisturbed(statistics.median(windows), max(windows))


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str, str], None]:
    """Return a function that adds a line to the list of figures: what, and how much of it."""

    def record(what: str, figure: str) -> None:
        record_property("figure", json.dumps({"what": what, "figure": figure}))

    return record


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what was recorded; keep it, and write the page, if ``--report`` says where."""
    tests = report.tests_of(terminalreporter.stats)
    lines = [line for table in report.tables(tests) for line in table]
    if lines:
        terminalreporter.section("faults and figures")
        terminalreporter.write("\n".join(lines) + "\n")
    config = terminalreporter.config
    if lines and (path := config.getoption("--report", default=None)):
        report.keep(Path(path), tests, config.stash.get(FACTS, {}))
