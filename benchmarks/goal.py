"""A goal: what is measured, what it may be at most, and what to say when it is more."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

NOT_MEASURED = "not measured"

Results = dict[str, Any]  # of each group; a group that could not run has one member, NOT_MEASURED


@dataclass(frozen=True)
class Goal:
    """One line of the report.

    Attributes:
        group: Key in the results.
        what: Is measured.
        limit: That the value may not exceed, or must reach.
        unit: Of both.
        value: Takes the results; a missing figure is a `KeyError` or a `TypeError`.
        at_least: The limit must be reached.
        rest: What the cost is made of, told when the goal is not met.
    """

    group: str
    what: str
    limit: float
    unit: str
    value: Callable[[Results], float]
    at_least: bool = False
    rest: Callable[[Results], str] = lambda _: "The table below has all figures."

    def row(self, results: Results) -> tuple[str, str, str, str]:
        """Return what is measured, the goal, the figure and the verdict."""
        goal = f"{'≥' if self.at_least else '≤'} {self.limit:g}{self.unit}"
        group = results.get(self.group, {NOT_MEASURED: "the group did not run"})
        if NOT_MEASURED in group:
            return self.what, goal, "", f"not measured: {group[NOT_MEASURED]}"
        try:
            value = self.value(results)
        except (KeyError, TypeError):
            return self.what, goal, "", "not measured: " + _missing(group)
        met = value >= self.limit if self.at_least else value <= self.limit
        return self.what, goal, f"{value:.3g}{self.unit}", "met" if met else self._not_met(results)

    def _not_met(self, results: Results) -> str:
        try:
            return f"**not met**. {self.rest(results)}"
        except (KeyError, TypeError):  # what it is made of needs more figures than there are
            return "**not met**."


def _missing(group: Results) -> str:
    texts = [value for value in group.values() if isinstance(value, str)]
    missing = [f"the image of {name} is missing" for name in group.get("missing", [])]
    return "; ".join([*texts, *missing]) or "the figure is missing"
