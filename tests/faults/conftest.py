"""The stack for fault injection, its baseline without a fault, and the report."""

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
from tests.faults.observe import Baseline
from tests.support.backend import ITEMS
from tests.support.compose_stack import Stack, running_stack
from tests.support.docker import docker
from tests.support.template import Bake

WARM_SECONDS = 3
WINDOWS = 6
WINDOW_SECONDS = 6
VOLUME_SIZE = "1g"  # promtool requires 512 MB for a block
TIMEOUT_SECONDS = 2.0  # a service that is restarting may accept a request and never respond
FACTS = pytest.StashKey[dict[str, Any]]()


@pytest.fixture(scope="session")
def fault_stack(bake: Bake, pytestconfig: pytest.Config) -> Iterator[Stack]:
    """Run the overlay with volumes of limited size, which keep their data while it runs."""
    project = bake(project_slug=BACKEND_IMAGE.split("-backend")[0])
    options = {"type": "tmpfs", "device": "tmpfs", "o": f"size={VOLUME_SIZE},mode=1777"}
    limits = {"volumes": {name: {"driver_opts": options} for name, _ in VOLUMES.values()}}
    (project / "volumes.yml").write_text(yaml.safe_dump(limits), encoding="utf-8")
    with running_stack(project, [*OVERLAY, "volumes.yml"], keep_ports=True) as running:
        services = configuration(project, OVERLAY)["services"]
        images = {name: services[name]["image"] for name in running.services if name != "backend"}
        running.timeout = TIMEOUT_SECONDS
        # The first item, which the load reads.
        requests.post(running.url("backend") + ITEMS, json={"name": "1"}, timeout=10)
        pytestconfig.stash[FACTS] = {"machine": report.machine(images), "rate": RATE}
        with mounted_volumes(running):
            yield running


@contextmanager
def mounted_volumes(running: Stack) -> Iterator[None]:
    """Keep the volumes mounted: a tmpfs loses its data when its last container stops.

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
def baseline(fault_stack: Stack) -> Baseline:
    """Measure p99 without a fault, over several windows as long as a fault."""
    with running_load(fault_stack.url("backend")) as load:
        load.run_for(WARM_SECONDS)
        windows = []
        for _ in range(WINDOWS):
            started = len(load.responses)
            load.run_for(WINDOW_SECONDS)
            windows.append(latency_ms(load.responses[started:], 99))
    return Baseline(statistics.median(windows), max(windows))


@pytest.fixture
def record_result(record_property: Callable[[str, object], None]) -> Callable[[str, str], None]:
    """Return a function that adds a row to the table of other results."""

    def record(name: str, result: str) -> None:
        record_property("result", json.dumps({"name": name, "result": result}))

    return record


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the results; with ``--report``, also save them and write the page."""
    tests = report.collect(terminalreporter.stats)
    rows = [row for table in report.tables(tests) for row in table]
    if rows:
        terminalreporter.section("results of fault injection")
        terminalreporter.write("\n".join(rows) + "\n")
    config = terminalreporter.config
    if rows and (path := config.getoption("--report", default=None)):
        report.save(Path(path), tests, config.stash.get(FACTS, {}))
