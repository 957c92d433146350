"""Intervals for means, ratios of means and shares, and Holm's test of several decisions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95
NO_SPREAD = 1e-6
"""Logarithms of times that vary by less show no spread: no machine repeats itself to a millionth.

Values so equal are of a clock too coarse, a copy, or an invention. They are no precision, so no
interval made of them decides anything.
"""


def simultaneous(several: int, confidence: float = CONFIDENCE) -> float:
    """Return the confidence of each of several simultaneous intervals (Bonferroni).

    Example:
        >>> round(simultaneous(5), 4)
        0.99
    """
    return 1 - (1 - confidence) / max(1, several)


@cache
def t_quantile(confidence: float, freedom: float) -> float:
    """Return the quantile of Student's t that an interval has on each side.

    Example:
        >>> round(t_quantile(0.95, 4), 3)
        2.776
    """
    return float(stats.t.ppf((1 + confidence) / 2, freedom))


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
    sizes, place = np.unique(n, return_inverse=True)
    quantiles = [t_quantile(confidence, size - 1) if size > 1 else math.nan for size in sizes]
    half = np.array(quantiles)[place] * deviation / np.sqrt(n)
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
    above: NDArray[np.float64], below: NDArray[np.float64], confidence: float = CONFIDENCE
) -> tuple[float | None, float | None]:
    """Return the ends of the interval of mean(above) / mean(below); None where pairs give no end.

    The lower end is ratio * (1 - h) with h = t(n - 1) * `paired_spread` / sqrt(n): the same
    whichever side is divided by the other, and without end where one pair makes the mean (h >= 1).
    From four pairs on, the pair of the largest ratio is also taken as no larger than the second
    (winsorized: t of n - 2, spread by n / (n - 1); Tukey and McLaughlin, Sankhya A 25, 1963). That
    can only lower the mean, so the higher of both ends is kept: one slow instance of what is slower
    anyway does not hide it. The upper end is the lower one of the sides exchanged.
    """
    low, inverse = (
        _ratio_low(one, other, confidence) for one, other in ((above, below), (below, above))
    )
    return low, None if inverse is None else 1 / inverse


def _ratio_low(
    above: NDArray[np.float64], below: NDArray[np.float64], confidence: float
) -> float | None:
    n = len(above)
    if n < 2:
        return None
    ends = [_end(above, below, n - 1, 1.0, confidence)]
    if n >= 4:
        ratios = above / below
        second, most = np.partition(ratios, -2)[-2:]
        milder = np.where(ratios == most, below * second, above)
        ends.append(_end(milder, below, n - 2, n / (n - 1), confidence))
    return max(ends) if max(ends) > 0 else None


def _end(
    above: NDArray[np.float64],
    below: NDArray[np.float64],
    freedom: int,
    wider: float,
    confidence: float,
) -> float:
    half = t_quantile(confidence, freedom) * paired_spread(above, below) * wider
    return float(above.mean() / below.mean() * (1 - half / math.sqrt(len(above))))


def pairs_needed(spread: float, gap: float, confidence: float, most: int) -> int | None:
    """Return how many pairs bring half an interval of a ratio down to `gap`, a share.

    None if that takes more than `most`, or the spread is not known.
    """
    n = np.arange(2, most + 1)
    near = stats.t.ppf((1 + confidence) / 2, n - 1) * spread / np.sqrt(n) <= gap
    return int(n[near.argmax()]) if near.any() else None


@cache
def share_bounds(found: int, of: int, confidence: float) -> tuple[float, float]:
    """Return the one-sided lower and the one-sided upper bound of a share (Clopper-Pearson).

    Each alone holds with `confidence`; both together are an interval at 2 * confidence - 1.

    Example:
        >>> [round(bound, 3) for bound in share_bounds(1, 20, 0.95)]
        [0.003, 0.216]
    """
    low = float(stats.beta.ppf(1 - confidence, found, of - found + 1)) if found else 0.0
    high = float(stats.beta.ppf(confidence, found + 1, of - found)) if found < of else 1.0
    return low, high


def p_above(values: NDArray[np.float64], limit: float) -> float:
    """Return the one-sided p value of a mean that is no larger than a limit (Student's t).

    1 where the values show no spread, which is no precision.
    """
    if len(values) < 2 or float(np.ptp(values)) < NO_SPREAD:
        return 1.0
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(stats.t.sf((float(values.mean()) - limit) / error, len(values) - 1))


def holm(p_values: Sequence[float], level: float = 1 - CONFIDENCE) -> list[bool]:
    """Return which hypotheses are rejected, at most a share `level` of times any true one.

    Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of
    Statistics 6, 1979: as sure as Bonferroni's, and never less powerful. For decisions; where
    intervals are shown, theirs is the answer.

    Example:
        >>> holm([0.001, 0.04, 0.03])
        [True, False, False]
    """
    return [p <= level for p in holm_adjusted(p_values)]


def holm_adjusted(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number: `holm` rejects those up to its level.

    Example:
        >>> [round(p, 3) for p in holm_adjusted([0.001, 0.04, 0.03])]
        [0.003, 0.06, 0.06]
    """
    adjusted, least = [0.0] * len(p_values), 0.0
    for done, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - done) * p_values[place]))
        adjusted[place] = least
    return adjusted
