"""The stack that faults are done to, what is normal for it, and the report of what came of them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.engine import OVERLAY, configuration
from tests.conftest import Bake
from tests.faults import report
from tests.faults.inject import BACKEND_IMAGE, VOLUMES
from tests.faults.load import RATE, percentile, running_load
from tests.stack import Stack, running_stack

UNDISTURBED_SECONDS = 20
VOLUME_SIZE = "1g"  # promtool wants 512 MB for a block
PATIENCE_SECONDS = (
    2.0  # a service that is being started again may take a request and never answer it
)
FACTS = pytest.StashKey[dict[str, Any]]()


@pytest.fixture(scope="session")
def faulty(bake: Bake, pytestconfig: pytest.Config) -> Iterator[Stack]:
    """Run the overlay with volumes that can be filled. They keep what they have as long as one of
    their containers runs, and node-exporter has them all."""
    project = bake(project_slug=BACKEND_IMAGE.split("-backend")[0])
    options = {"type": "tmpfs", "device": "tmpfs", "o": f"size={VOLUME_SIZE},mode=1777"}
    limits = {"volumes": {name: {"driver_opts": options} for name, _ in VOLUMES.values()}}
    (project / "volumes.yml").write_text(yaml.safe_dump(limits), encoding="utf-8")
    with running_stack(project, [*OVERLAY, "volumes.yml"], fixed_ports=True) as running:
        services = configuration(project, OVERLAY)["services"]
        images = {name: services[name]["image"] for name in running.services if name != "backend"}
        running.patience = PATIENCE_SECONDS
        pytestconfig.stash[FACTS] = {"images": images, "rate": RATE}
        yield running


@pytest.fixture(scope="session")
def undisturbed(faulty: Stack, pytestconfig: pytest.Config) -> float:
    """Return the p99 of the load in milliseconds when nothing is wrong."""
    with running_load(faulty.url("backend")) as load:
        load.go_on_for(2)
        warm = len(load.answers)
        load.go_on_for(UNDISTURBED_SECONDS)
    p99 = percentile(load.answers[warm:], 0.99)
    pytestconfig.stash[FACTS]["undisturbed"] = p99
    return p99


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str, str], None]:
    """Return a function that adds a line to the list of figures: what, and how much of it."""

    def record(what: str, figure: str) -> None:
        record_property("figure", json.dumps({"what": what, "figure": figure}))

    return record


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what was recorded; write the page if ``--report`` says where."""
    stats = terminalreporter.stats
    reports = [*stats.get("passed", []), *stats.get("failed", [])]
    faults, figures = report.tables(reports)
    if faults or figures:
        terminalreporter.section("faults and figures")
        for line in [*faults, *figures]:
            terminalreporter.write_line(line)
    config = terminalreporter.config
    path = config.getoption("--report", default=None)
    if path and faults:
        skipped = sorted({_reason(each) for each in stats.get("skipped", [])})
        Path(path).write_text(report.page(reports, skipped, config.stash[FACTS]), encoding="utf-8")


def _reason(skipped: Any) -> str:
    name = skipped.nodeid.rpartition("::")[2]
    return f"`{name}`: {skipped.longrepr[2].removeprefix('Skipped: ')}"
