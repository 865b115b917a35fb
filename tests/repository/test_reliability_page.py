"""docs/reliability.md against the figures that are kept, the tests that exist, and the limits of the faults."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults import observe, report
from tests.faults.resources import Resources, grown
from tests.support.template import ROOT

FILE = ROOT / "docs/reliability.json"


@pytest.fixture
def kept() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


def test_the_page_shows_what_is_kept(kept: dict[str, Any]) -> None:
    assert FILE.with_suffix(".md").read_text(encoding="utf-8") == report.page(kept)


def test_every_fault_was_run_or_is_named_as_skipped(kept: dict[str, Any]) -> None:
    collect = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "", "tests/faults"]
    listed = subprocess.run(collect, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = {
        line.removeprefix("tests/faults/")
        for line in listed.splitlines()
        if line.startswith("tests/faults/")
    }
    assert names == kept["tests"].keys()
    for name, test in kept["tests"].items():
        assert test["outcome"] != "failed", name
        assert (test["outcome"] == "skipped") == bool(test["reason"]), name


def test_every_fault_passes_the_limit_of_its_own_run(kept: dict[str, Any]) -> None:
    rows = [row for test in kept["tests"].values() for row in test["fault"]]
    assert rows
    for row in rows:
        limit = observe.slowest_p99(row["undisturbed"])
        assert row["p99"] <= limit < 12 * row["undisturbed"], row


def test_a_skipped_test_does_not_replace_a_result(tmp_path: Path) -> None:
    file = tmp_path / "reliability.json"
    result = {"outcome": "passed", "day": "2026-11-25", "reason": "", "fault": [], "figure": []}
    report.keep(file, {"a": result}, {})
    skipped = result | {"outcome": "skipped", "reason": "the image is missing"}
    assert report.keep(file, {"a": skipped, "b": skipped}, {})["tests"] == {
        "a": result,
        "b": skipped,
    }


def test_a_leak_is_growth_and_a_warm_up_or_a_burst_is_not() -> None:
    burst = [0, 0, 0, 30, 30]
    steady = [Resources(80 + min(turn, 4), 20, 20 + burst[turn % 5], 100) for turn in range(15)]
    assert grown(steady) == {}
    leak = [Resources(80 + turn / 2, 20 + turn, 20 + turn, 100 + turn) for turn in range(15)]
    assert grown(leak).keys() == {"memory", "files", "threads", "series"}
