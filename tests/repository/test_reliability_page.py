"""docs/reliability.md matches docs/reliability.json, the existing tests, and the limits of the fault tests."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults import observe, report
from tests.faults.resources import Resources, excessive_growth
from tests.support.template import ROOT

FILE = ROOT / "docs/reliability.json"


@pytest.fixture
def results() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


def test_the_page_matches_the_results(results: dict[str, Any]) -> None:
    assert FILE.with_suffix(".md").read_text(encoding="utf-8") == report.page(results)


def test_every_test_has_a_result_or_is_listed_as_skipped(results: dict[str, Any]) -> None:
    collect = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "", "tests/faults"]
    listed = subprocess.run(collect, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = {
        line.removeprefix("tests/faults/")
        for line in listed.splitlines()
        if line.startswith("tests/faults/")
    }
    assert names == results["tests"].keys()
    for name, test in results["tests"].items():
        assert test["outcome"] != "failed", name
        assert (test["outcome"] == "skipped") == bool(test["reason"]), name


def test_every_fault_is_within_the_limit_of_its_own_run(results: dict[str, Any]) -> None:
    rows = [row for test in results["tests"].values() for row in test["fault"]]
    assert rows
    for row in rows:
        limit = observe.p99_limit(row["baseline_p99"])
        assert row["p99"] <= limit < 12 * row["baseline_p99"], row


def test_a_skipped_test_does_not_replace_a_result(tmp_path: Path) -> None:
    file = tmp_path / "reliability.json"
    result = {"outcome": "passed", "day": "2026-11-25", "reason": "", "fault": [], "result": []}
    report.save(file, {"a": result}, {})
    skipped = result | {"outcome": "skipped", "reason": "the image is missing"}
    assert report.save(file, {"a": skipped, "b": skipped}, {})["tests"] == {
        "a": result,
        "b": skipped,
    }


def test_a_leak_is_growth_but_a_warm_up_or_burst_is_not() -> None:
    burst = [0, 0, 0, 30, 30]
    steady = [Resources(80 + min(turn, 4), 20, 20 + burst[turn % 5], 100) for turn in range(15)]
    assert excessive_growth(steady) == {}
    leak = [Resources(80 + turn / 2, 20 + turn, 20 + turn, 100 + turn) for turn in range(15)]
    assert excessive_growth(leak).keys() == {"memory", "files", "threads", "series"}
