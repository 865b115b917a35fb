"""docs/performance.md shows the measured figures, and has a row for each goal."""

import json
from collections import Counter

import pytest

from benchmarks import report
from benchmarks.goal import NOT_MEASURED, Goal
from benchmarks.goals import GOALS

FIGURES = json.loads(report.FIGURES.read_text(encoding="utf-8"))
# How many goals each group of benchmarks has.
NUMBER = {
    **{"metrics": 3, "complete": 2, "http": 3, "exposition": 1},
    **{"footprint": 2, "growth": 2, "freshness": 7, "generator": 2},
}


def test_the_page_is_what_the_figures_give() -> None:
    assert report.DOCUMENT.read_text(encoding="utf-8") == report.page(FIGURES)
    assert report.PLOT.exists()


def test_each_goal_has_its_line() -> None:
    assert Counter(goal.group for goal in GOALS) == NUMBER
    assert report.TITLES.keys() == report.NOTES.keys() == FIGURES["groups"].keys() == NUMBER.keys()
    page = report.DOCUMENT.read_text(encoding="utf-8")
    for goal in GOALS:
        (line,) = [line for line in page.splitlines() if line.startswith(f"| {goal.what} |")]
        assert any(verdict in line for verdict in ("| met |", "| **not met**.", "| not measured: "))


@pytest.mark.parametrize(
    ("results", "verdict"),
    [
        ({"metrics": {"cost": 9}}, "met"),
        ({"metrics": {"cost": 11}}, "**not met**. Because."),
        ({"metrics": {NOT_MEASURED: "no engine"}}, "not measured: no engine"),
        ({"metrics": {"missing": ["tempo"]}}, "not measured: missing images: tempo"),
        (
            {"metrics": {"wrk": "the program wrk is missing"}},
            "not measured: the program wrk is missing",
        ),
        ({}, "not measured: the group did not run"),
    ],
)
def test_what_was_not_measured_is_never_met(results: dict[str, object], verdict: str) -> None:
    goal = Goal(
        "metrics",
        "cost",
        10,
        " µs",
        lambda r: float(r["metrics"]["cost"]),
        rest=lambda _: "Because.",
    )
    assert goal.row(results)[-1] == verdict
