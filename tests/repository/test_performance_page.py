"""docs/performance.md shows the measured figures, and has a row for each goal."""

import json
from collections import Counter

import pytest

from benchmarks import report
from benchmarks.goal import NOT_MEASURED, Goal
from benchmarks.goals import GOALS

FIGURES = json.loads(report.FIGURES.read_text(encoding="utf-8"))
TELEMETRY = "FastAPI's own telemetry, which provides the route, is part of the added time"
# Goals that are not met now, each with the reason. Remove a goal from this list when it is met again.
NOT_MET = {
    "processor time added by the metrics": TELEMETRY,
    "processor time of a request with metrics, relative to the bare service": TELEMETRY,
    "processor time added by the metrics, relative to the cheapest alternative": TELEMETRY,
    "processor time added by metrics, trace and access log, relative to the trace of contrib": (
        "metrics and access log are included, but the figure of contrib is for the trace alone"
    ),
    "processor time added when the caller's trace is not sampled": (
        "the metrics alone exceed the goal"
    ),
    "median latency at 200 requests per second, relative to the bare service": (
        "the access log of the core image alone uses more than half of the goal"
    ),
    "processor time added to the example resource, relative to the assembled service": (
        "no part dominates: metrics, span, access log and export each add about a quarter"
    ),
    "longest delay of a request by a scrape of 3,000 series": (
        "even between two scrapes the slowest request is delayed by more than the goal"
    ),
}
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
        assert goal.row(FIGURES["groups"])[-1] in line


def test_exactly_the_listed_goals_are_not_met() -> None:
    assert verdicts("**not met**") == NOT_MET.keys()


def test_a_goal_is_not_measured_only_where_an_image_is_missing() -> None:
    assert verdicts("not measured") == verdicts("not measured: missing images: ")


def verdicts(start: str) -> set[str]:
    """Return the goals whose verdict starts like this."""
    return {goal.what for goal in GOALS if goal.row(FIGURES["groups"])[-1].startswith(start)}


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
