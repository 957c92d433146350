"""Prediction intervals for the ratio of the next instance, as opposed to the mean of instances.

The next instance of a cell and the next one of bare metal, paired, give one more d_r. It is within
mean -+ t(n - 1) * deviation * sqrt(1 + 1 / n) at the confidence of all intervals, if the replicates
are a fair sample with normal logarithms. The spread is estimated from the cell's own replicates: a
spread common to all cells would give narrower intervals, but would cover 80% for a platform twice
as noisy as the others (see the tests), which is the platform that readers must be warned of.
"""

from __future__ import annotations

import math
from typing import Any

from virtbed_analysis.effects import Units
from virtbed_analysis.engine import Floats
from virtbed_analysis.intervals import CONFIDENCE, NO_SPREAD, t_quantile

Json = dict[str, Any]
FEWEST = 3
"""Fewest replicates; with two, the interval is too wide to be of use."""


def rows(units: Units) -> list[Json]:
    """Return the prediction interval of each compared cell with enough replicates.

    Args:
        units: The logarithms of a sweep's times.

    Returns:
        One row per cell: the cell, `low` and `high` (ratios), `replicates`, and `rarer`, the share
        of instances that may be of another kind without any replicate having met one (95%
        confidence).
    """
    table = []
    for cell in units.cells():
        logs = units.cost(cell) if cell != units.baseline(cell) else None
        if logs is not None and len(logs) >= FEWEST and float(logs.std(ddof=1)) > NO_SPREAD:
            low, high = interval(logs)
            rarer = 1 - (1 - CONFIDENCE) ** (1 / len(logs))
            ends = {"low": math.exp(low), "high": math.exp(high)}
            table.append({**cell.row(), **ends, "replicates": len(logs), "rarer": rarer})
    return table


def interval(logs: Floats) -> tuple[float, float]:
    """Return the prediction interval of one more logarithm, from n >= 2 logarithms."""
    n = len(logs)
    reach = t_quantile(CONFIDENCE, n - 1) * math.sqrt(1 + 1 / n)
    middle, deviation = float(logs.mean()), float(logs.std(ddof=1))
    return middle - reach * deviation, middle + reach * deviation
