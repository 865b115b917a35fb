"""Percentiles."""

import math
from collections.abc import Sequence


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that is at least as large as this percentage of all values."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]
