"""Predicts ratios at sizes between measured ones, if leave-one-out validation permits.

The logarithm of a ratio to bare metal is modelled as a + b / cores: one part that is the same at
every size, one that falls with size. A curve predicts only if each of its measured sizes is within
the prediction interval that the others give for it, and only between measured sizes.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virtbed_analysis.intervals import CONFIDENCE, t_quantile

Json = dict[str, Any]
Floats = NDArray[np.float64]
LEAST_SIZES = 5
"""Without one of five sizes, a curve of two parameters has two degrees of freedom."""
_MOST = 50.0  # largest logarithm shown; its exp is beyond any ratio of use


def unmeasured(cores: Floats, logs: Floats) -> Json:
    """Return prediction intervals for sizes between measured ones, or why there are none.

    Args:
        cores: The measured sizes in increasing order.
        logs: The logarithm of the ratio at each size.

    Returns:
        `predicted` (rows of `cores`, `ratio`, `low`, `high`), `error` (root mean square of the
        relative leave-one-out errors), `inside` (number of sizes within the prediction interval
        from the others), `why` (why nothing is predicted; None if something is).
    """
    none: Json = {"predicted": [], "error": None, "inside": None}
    if len(cores) < LEAST_SIZES:
        return none | {"why": f"{len(cores)} of at least {LEAST_SIZES} sizes measured"}
    errors, inside = [], 0
    for left_out in range(len(cores)):
        kept = np.arange(len(cores)) != left_out
        middle, low, high = _predict(cores[kept], logs[kept], cores[left_out])
        errors.append(math.expm1(middle - logs[left_out]))
        inside += bool(low <= logs[left_out] <= high)
    error = float(np.sqrt(np.mean(np.square(errors))))
    checked = none | {"error": error, "inside": inside}
    if inside < math.ceil(CONFIDENCE * len(cores)):
        return checked | {
            "why": f"{len(cores) - inside} of {len(cores)} sizes are outside the intervals that "
            "the others predict for them"
        }
    between = [(int(a) + int(b)) // 2 for a, b in pairwise(cores.tolist()) if b - a > 1]
    predicted = [
        {"cores": size, **dict(zip(("ratio", "low", "high"), map(math.exp, ends), strict=True))}
        for size in between
        if max(map(abs, ends := _predict(cores, logs, float(size)))) < _MOST
    ]
    return checked | {"predicted": predicted, "why": None}


def _predict(cores: Floats, logs: Floats, size: float) -> tuple[float, float, float]:
    """Return log ratio = a + b / cores at a size, with the ends of its prediction interval."""
    design = np.column_stack([np.ones(len(cores)), 1 / cores])
    at = np.array([1.0, 1 / size])
    inverse = np.linalg.inv(design.T @ design)
    parameters = inverse @ design.T @ logs
    freedom = len(cores) - 2
    variance = float(np.sum((logs - design @ parameters) ** 2)) / freedom
    half = t_quantile(CONFIDENCE, freedom) * math.sqrt(variance * (1 + float(at @ inverse @ at)))
    middle = float(at @ parameters)
    return middle, middle - half, middle + half
