"""Student's t interval for means."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95


def mean_interval(
    mean: NDArray[np.float64],
    deviation: NDArray[np.float64],
    n: NDArray[np.int64],
    confidence: float = CONFIDENCE,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lower and upper ends of Student's t interval for means, elementwise.

    Ends are mean -+ t(n - 1) * deviation / sqrt(n), with the sample standard deviation (n - 1 in
    its denominator). Both are NaN where n < 2: one observation shows no spread.
    """
    half = stats.t.ppf((1 + confidence) / 2, n - 1) * deviation / np.sqrt(n)
    return mean - half, mean + half
