"""docs/performance.md matches results.json and has a row for each goal."""

import json
from collections import Counter

import pytest

from benchmarks import report
from benchmarks.goal import NOT_MEASURED, Goal
from benchmarks.goals import GOALS

FIGURES = json.loads(report.FIGURES.read_text(encoding="utf-8"))
TELEMETRY = "the overhead includes FastAPI's own telemetry, which provides the route"
# Goals that are not met, with the reason. Remove a goal from this list when it is met.
NOT_MET = {
    "CPU overhead of the metrics": TELEMETRY,
    "CPU time of a request with metrics, relative to the baseline": TELEMETRY,
    "CPU overhead of the metrics, relative to the cheapest alternative": TELEMETRY,
    "CPU overhead of metrics, traces and access log, relative to the traces of contrib": (
        "metrics and access log are included, but the result of contrib is for the traces alone"
    ),
    "CPU overhead when the caller's trace is not sampled": "the metrics alone exceed the goal",
    "median latency at 200 requests per second, relative to the baseline": (
        "the access log of the core image alone uses more than half of the goal"
    ),
    "CPU overhead on the example resource, relative to the assembled service": (
        "no part dominates: metrics, span, access log and export each add about a quarter"
    ),
    "longest request delay during a scrape of 3,000 series": (
        "even between two scrapes the slowest request is delayed by more than the goal"
    ),
}
# Group -> number of goals.
NUMBER = {
    **{"metrics": 3, "complete": 2, "http": 3, "exposition": 1},
    **{"footprint": 2, "growth": 2, "freshness": 7, "generator": 2},
}


def test_the_page_matches_the_results() -> None:
    assert report.DOCUMENT.read_text(encoding="utf-8") == report.page(FIGURES)
    assert report.PLOT.exists()


def test_each_goal_has_a_row() -> None:
    assert Counter(goal.group for goal in GOALS) == NUMBER
    assert report.TITLES.keys() == report.NOTES.keys() == FIGURES["groups"].keys() == NUMBER.keys()
    page = report.DOCUMENT.read_text(encoding="utf-8")
    for goal in GOALS:
        (row,) = [line for line in page.splitlines() if line.startswith(f"| {goal.name} |")]
        assert goal.row(FIGURES["groups"])[-1] in row


def test_exactly_the_listed_goals_are_not_met() -> None:
    assert with_verdict("**not met**") == NOT_MET.keys()


def test_a_goal_is_not_measured_only_where_an_image_is_missing() -> None:
    assert with_verdict("not measured") == with_verdict("not measured: missing images: ")


def with_verdict(prefix: str) -> set[str]:
    """Return the names of the goals whose verdict has this prefix."""
    return {goal.name for goal in GOALS if goal.row(FIGURES["groups"])[-1].startswith(prefix)}


@pytest.mark.parametrize(
    ("results", "verdict"),
    [
        ({"metrics": {"cost": 9}}, "met"),
        ({"metrics": {"cost": 11}}, "**not met**. Because."),
        ({"metrics": {NOT_MEASURED: "no Docker"}}, "not measured: no Docker"),
        ({"metrics": {"missing": ["tempo"]}}, "not measured: missing images: tempo"),
        (
            {"metrics": {"wrk": "the program wrk is missing"}},
            "not measured: the program wrk is missing",
        ),
        ({}, "not measured: the group did not run"),
    ],
)
def test_a_goal_that_was_not_measured_is_not_met(results: dict[str, object], verdict: str) -> None:
    goal = Goal(
        "metrics",
        "cost",
        10,
        " µs",
        lambda r: float(r["metrics"]["cost"]),
        explain=lambda _: "Because.",
    )
    assert goal.row(results)[-1] == verdict
