"""Overhead of observability per request, in executed bytecode instructions."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.support.template import ROOT

pytestmark = pytest.mark.slow

# Relative to the baseline, a service without observability. A quarter more than measured.
MAX_OVERHEAD = {"metrics": 0.26, "not_sampled": 0.40, "everything": 0.57}


@cache
def overhead(project: Path, routes: int, nesting: int) -> tuple[int, dict[str, int]]:
    """Return the instructions of the baseline per request, and those that each case adds."""
    counts: dict[str, int] = {}
    for traced in ("untraced", "traced"):
        command: list[str | Path] = [sys.executable, "-m", "tests.support.bytecode", project]
        command += [str(routes), str(nesting), traced]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        counts |= json.loads(done.stdout)
    baseline = counts.pop("baseline")
    return baseline, {name: count - baseline for name, count in counts.items()}


@pytest.mark.parametrize("case", MAX_OVERHEAD)
def test_overhead_stays_within_its_limit(yes_project: Path, case: str) -> None:
    baseline, added = overhead(yes_project, 10, 1)
    assert 0 < added[case] <= MAX_OVERHEAD[case] * baseline


@pytest.mark.parametrize(("routes", "nesting"), [(200, 1), (10, 5)], ids=["routes", "nesting"])
@pytest.mark.parametrize("case", MAX_OVERHEAD)
def test_overhead_does_not_grow_with_the_number_of_routes_and_routers(
    yes_project: Path, case: str, routes: int, nesting: int
) -> None:
    _, small = overhead(yes_project, 10, 1)
    _, large = overhead(yes_project, routes, nesting)
    assert large[case] == pytest.approx(small[case], rel=0.05)
