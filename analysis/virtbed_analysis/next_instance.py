"""Where your next instance lies: prediction intervals of single pairs, not of their mean.

The next instance of a cell and the next one of bare metal, paired, give one more d_r. It lies
within mean -+ t(n - 1) * deviation * sqrt(1 + 1 / n) with the confidence of all intervals, if the
replicates are a fair sample and their logarithms are normal. Only the cell's own replicates tell of
its spread: one spread for all cells would be narrower, and would cover 80% for a platform twice as
noisy as the others (see the tests), which is the one that a reader must know of.
"""

from __future__ import annotations

import math
from typing import Any

from virtbed_analysis.effects import Units
from virtbed_analysis.engine import Floats
from virtbed_analysis.intervals import CONFIDENCE, NO_SPREAD, t_quantile

Json = dict[str, Any]
FEWEST = 3
"""With two replicates the interval reaches from nothing to everything."""


def rows(units: Units) -> list[Json]:
    """Return the prediction interval of each compared cell that has enough replicates.

    Fields: the cell, `low` and `high` (ratios), `replicates`, and `rarer`: the share of instances
    that can be of another kind without one of them having been seen, at 95% confidence.
    """
    found = []
    for cell in units.cells():
        logs = units.cost(cell) if cell != units.baseline(cell) else None
        if logs is not None and len(logs) >= FEWEST and float(logs.std(ddof=1)) > NO_SPREAD:
            low, high = interval(logs)
            rarer = 1 - (1 - CONFIDENCE) ** (1 / len(logs))
            ends = {"low": math.exp(low), "high": math.exp(high)}
            found.append({**cell.row(), **ends, "replicates": len(logs), "rarer": rarer})
    return found


def interval(logs: Floats) -> tuple[float, float]:
    """Return the prediction interval of one more logarithm."""
    n = len(logs)
    reach = t_quantile(CONFIDENCE, n - 1) * math.sqrt(1 + 1 / n)
    middle, deviation = float(logs.mean()), float(logs.std(ddof=1))
    return middle - reach * deviation, middle + reach * deviation
