"""Sizes that were not measured: predicted between those that were, or not at all.

The logarithm of a ratio to bare metal is a part that stays and one that falls with size, a + b /
cores. A curve predicts only if each of its sizes lies in the prediction interval that the others
give of it (leave one out), and only between measured sizes: beyond them nothing holds it.
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
"""Of a curve of two parameters: without one of them, two degrees of freedom are left."""
_MOST = 50.0  # of a logarithm: exp of more is no ratio that anyone could act on


def unmeasured(cores: Floats, logs: Floats) -> Json:
    """Return prediction intervals for sizes between measured ones, or why there are none.

    Args:
        cores: The measured sizes, rising.
        logs: The logarithm of the ratio at each.

    Returns:
        `predicted` (`cores`, `ratio`, `low`, `high`), `error` (root mean square of the relative
        errors of leaving one size out), `inside` (how many of the sizes lay within the prediction
        interval that the others gave), `why` (why none is predicted).
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
    found = none | {"error": error, "inside": inside}
    if inside < math.ceil(CONFIDENCE * len(cores)):
        return found | {
            "why": f"{len(cores) - inside} of {len(cores)} sizes lay outside what the others "
            "predicted of them"
        }
    between = [(int(a) + int(b)) // 2 for a, b in pairwise(cores.tolist()) if b - a > 1]
    predicted = [
        {"cores": size, **dict(zip(("ratio", "low", "high"), map(math.exp, ends), strict=True))}
        for size in between
        if max(map(abs, ends := _predict(cores, logs, float(size)))) < _MOST
    ]
    return found | {"predicted": predicted, "why": None}


def _predict(cores: Floats, logs: Floats, size: float) -> tuple[float, float, float]:
    """Return the value of log ratio = a + b / cores at a size, with its prediction interval."""
    design = np.column_stack([np.ones(len(cores)), 1 / cores])
    at = np.array([1.0, 1 / size])
    inverse = np.linalg.inv(design.T @ design)
    parameters = inverse @ design.T @ logs
    freedom = len(cores) - 2
    variance = float(np.sum((logs - design @ parameters) ** 2)) / freedom
    half = t_quantile(CONFIDENCE, freedom) * math.sqrt(variance * (1 + float(at @ inverse @ at)))
    middle = float(at @ parameters)
    return middle, middle - half, middle + half
