"""Intervals for means, ratios of means and shares, and Holm's test of several decisions."""

from __future__ import annotations

import math
from collections.abc import Sequence

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


def paired_spread(above: NDArray[np.float64], below: NDArray[np.float64]) -> float:
    """Return the standard deviation of a pair's part in the ratio of two means, as a share of it.

    The part of pair r is above_r / mean(above) - below_r / mean(below) (the delta method): what
    both sides of a pair share, such as a slow hour, cancels. NaN with fewer than two pairs.
    """
    if len(above) < 2:
        return math.nan
    return float((above / above.mean() - below / below.mean()).std(ddof=1))


def ratio_interval(
    value: float, spread: float, n: int, confidence: float
) -> tuple[float, float] | None:
    """Return the interval of a ratio of means of `n` pairs; None where they do not bound it.

    With h = t(n - 1) * spread / sqrt(n) its ends are value * (1 - h) and value / (1 - h): the same
    whichever side is divided by the other, wider than value * exp(-+h), and without an end where
    one pair makes the mean (h >= 1), however far off it lies.
    """
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * spread / math.sqrt(n) if n > 1 else 1.0
    return (value * (1 - half), value / (1 - half)) if half < 1 else None


def pairs_needed(spread: float, gap: float, confidence: float, most: int) -> int | None:
    """Return how many pairs bring half an interval of a ratio down to `gap`, a share.

    None if that takes more than `most`, or the spread is not known.
    """
    n = np.arange(2, most + 1)
    near = stats.t.ppf((1 + confidence) / 2, n - 1) * spread / np.sqrt(n) <= gap
    return int(n[near.argmax()]) if near.any() else None


def share_bounds(found: int, of: int, confidence: float) -> tuple[float, float]:
    """Return the one-sided lower and the one-sided upper bound of a share (Clopper-Pearson).

    Each alone holds with `confidence`; both together are an interval at 2 * confidence - 1.
    """
    low = float(stats.beta.ppf(1 - confidence, found, of - found + 1)) if found else 0.0
    high = float(stats.beta.ppf(confidence, found + 1, of - found)) if found < of else 1.0
    return low, high


def holm(p_values: Sequence[float], level: float = 1 - CONFIDENCE) -> list[bool]:
    """Return which hypotheses are rejected, at most a share `level` of times any true one.

    Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of
    Statistics 6, 1979: as sure as Bonferroni's, and never less powerful. For decisions; where
    intervals are shown, theirs is the answer.
    """
    rejected = [False] * len(p_values)
    for done, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[place] > level / (len(p_values) - done):
            break
        rejected[place] = True
    return rejected
