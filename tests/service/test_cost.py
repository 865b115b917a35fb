"""What observing a request costs, in executed bytecode: a regression is one on every machine."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.support.template import ROOT

# Of what the bare service executes for a request: a quarter more than it is today.
MOST = {"metrics": 0.26, "unkept": 0.40, "everything": 0.57}


@cache
def added(project: Path, routes: int, nesting: int) -> tuple[int, dict[str, int]]:
    """Return what the bare service executes for a request, and what is added to that."""
    counts: dict[str, int] = {}
    for traced in ("untraced", "traced"):
        command: list[str | Path] = [sys.executable, "-m", "tests.support.bytecode", project]
        command += [str(routes), str(nesting), traced]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        counts |= json.loads(done.stdout)
    bare = counts.pop("bare")
    return bare, {name: count - bare for name, count in counts.items()}


@pytest.mark.parametrize("observed", MOST)
def test_observing_a_request_adds_no_more_than_its_share(yes_project: Path, observed: str) -> None:
    bare, more = added(yes_project, 10, 1)
    assert 0 < more[observed] <= MOST[observed] * bare


@pytest.mark.parametrize(("routes", "nesting"), [(200, 1), (10, 5)], ids=["routes", "nesting"])
@pytest.mark.parametrize("observed", MOST)
def test_the_cost_does_not_grow_with_the_service(
    yes_project: Path, observed: str, routes: int, nesting: int
) -> None:
    _, small = added(yes_project, 10, 1)
    _, large = added(yes_project, routes, nesting)
    assert large[observed] == pytest.approx(small[observed], rel=0.05)
