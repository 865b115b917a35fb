"""docs/reliability.md against the figures that are kept, and against the tests that there are."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.faults import report

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
        assert (test["outcome"] == "skipped") == bool(test["reason"]), name
