"""A goal: the measured value, its limit, and an explanation if the goal is not met."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

NOT_MEASURED = "not measured"

Results = dict[str, Any]  # by group; a group that could not run has the single key NOT_MEASURED


@dataclass(frozen=True)
class Goal:
    """One row of the table of goals.

    Attributes:
        group: Key in the results.
        name: What is measured.
        limit: The largest value that meets the goal.
        unit: Unit of the limit and of the value.
        value: Returns the value; a `KeyError` or a `TypeError` means that it was not measured.
        explain: Explains a goal that is not met.
    """

    group: str
    name: str
    limit: float
    unit: str
    value: Callable[[Results], float]
    explain: Callable[[Results], str] = lambda _: "The table below has all figures."

    def row(self, results: Results) -> tuple[str, str, str, str]:
        """Return the name, the goal, the value and the verdict."""
        goal = f"≤ {self.limit:g}{self.unit}"
        group = results.get(self.group, {NOT_MEASURED: "the group did not run"})
        if NOT_MEASURED in group:
            return self.name, goal, "", f"not measured: {group[NOT_MEASURED]}"
        try:
            value = self.value(results)
        except (KeyError, TypeError):
            return self.name, goal, "", "not measured: " + _missing(group)
        verdict = "met" if value <= self.limit else self._not_met(results)
        return self.name, goal, f"{value:.3g}{self.unit}", verdict

    def _not_met(self, results: Results) -> str:
        try:
            return f"**not met**. {self.explain(results)}"
        except (KeyError, TypeError):  # the explanation requires figures that are missing
            return "**not met**."


def _missing(group: Results) -> str:
    reasons = [value for value in group.values() if isinstance(value, str)]
    images = group.get("missing", [])
    if images:
        reasons.append(f"missing images: {', '.join(images)}")
    return "; ".join(reasons) or "the figure is missing"
