"""A goal: what is measured, its limit, and an explanation for when it is not met."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

NOT_MEASURED = "not measured"

Results = dict[str, Any]  # by group; a group that could not run has one member, NOT_MEASURED


@dataclass(frozen=True)
class Goal:
    """One row of the table of goals.

    Attributes:
        group: Key in the results.
        what: What is measured.
        limit: The largest value that meets the goal.
        unit: Unit of the limit and of the value.
        value: Returns the value; a `KeyError` or a `TypeError` means that it was not measured.
        rest: Explains a goal that is not met.
    """

    group: str
    what: str
    limit: float
    unit: str
    value: Callable[[Results], float]
    rest: Callable[[Results], str] = lambda _: "The table below has all figures."

    def row(self, results: Results) -> tuple[str, str, str, str]:
        """Return what is measured, the goal, the figure and the verdict."""
        goal = f"≤ {self.limit:g}{self.unit}"
        group = results.get(self.group, {NOT_MEASURED: "the group did not run"})
        if NOT_MEASURED in group:
            return self.what, goal, "", f"not measured: {group[NOT_MEASURED]}"
        try:
            value = self.value(results)
        except (KeyError, TypeError):
            return self.what, goal, "", "not measured: " + _missing(group)
        verdict = "met" if value <= self.limit else self._not_met(results)
        return self.what, goal, f"{value:.3g}{self.unit}", verdict

    def _not_met(self, results: Results) -> str:
        try:
            return f"**not met**. {self.rest(results)}"
        except (KeyError, TypeError):  # the explanation requires figures that are missing
            return "**not met**."


def _missing(group: Results) -> str:
    reasons = [value for value in group.values() if isinstance(value, str)]
    images = group.get("missing", [])
    if images:
        reasons.append(f"missing images: {', '.join(images)}")
    return "; ".join(reasons) or "the figure is missing"
