"""Confidence intervals for means, ratios of means and shares, and Holm's multiple test.

Elementary estimators on arrays; nothing here knows cells or trials. `engine` makes the intervals of
paired log ratios from them, `slo` those of shares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95
NO_SPREAD = 1e-6
"""Spread of logarithms of times below which values count as equal.

No machine repeats a time to one part in a million. Values that close come from a coarse clock, a
copy or an invention; they show no precision, so no interval from them decides anything.
"""


def simultaneous(several: int, confidence: float = CONFIDENCE) -> float:
    """Return the confidence of each of several simultaneous intervals (Bonferroni correction).

    Args:
        several: Number of intervals.
        confidence: Joint confidence of all of them.

    Example:
        >>> round(simultaneous(5), 4)
        0.99
    """
    return 1 - (1 - confidence) / max(1, several)


@cache
def t_quantile(confidence: float, freedom: float) -> float:
    """Return the quantile of Student's t for a two-sided interval, at (1 + confidence) / 2.

    Args:
        confidence: Of the two-sided interval.
        freedom: Degrees of freedom.

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

    The ends are mean -+ t(n - 1) * deviation / sqrt(n).

    Args:
        mean: Sample means.
        deviation: Sample standard deviations, with n - 1 in the denominator; same shape.
        n: Sample sizes; same shape.
        confidence: Of each two-sided interval.

    Returns:
        Two arrays of that shape; NaN where n < 2, since one observation shows no spread.
    """
    sizes, place = np.unique(n, return_inverse=True)
    quantiles = [t_quantile(confidence, size - 1) if size > 1 else math.nan for size in sizes]
    half = np.array(quantiles)[place] * deviation / np.sqrt(n)
    return mean - half, mean + half


def paired_spread(above: NDArray[np.float64], below: NDArray[np.float64]) -> float:
    """Return the relative standard deviation of a pair's contribution to a ratio of means.

    By the delta method, the contribution of pair r is above_r / mean(above) - below_r /
    mean(below); noise that both sides of a pair share, such as a slow hour, cancels. The relative
    standard error of the ratio is the result divided by sqrt(n).

    Args:
        above: Values of the numerator, shape (n,).
        below: Values of the denominator, shape (n,), paired with `above`.

    Returns:
        The standard deviation (n - 1 in the denominator); NaN with fewer than two pairs.
    """
    if len(above) < 2:
        return math.nan
    return float((above / above.mean() - below / below.mean()).std(ddof=1))


def ratio_interval(
    above: NDArray[np.float64], below: NDArray[np.float64], confidence: float = CONFIDENCE
) -> tuple[float | None, float | None]:
    """Return the ends of the interval of mean(above) / mean(below), from pairs.

    The lower end is ratio * (1 - h), h = t(n - 1) * `paired_spread` / sqrt(n). The upper end is the
    reciprocal of the lower end with the sides exchanged, so the interval does not depend on which
    side is the denominator. An end is None if h >= 1, as when one pair dominates the mean.

    From four pairs on, a second lower end is computed with the largest ratio winsorized to the
    second largest (t with n - 2 degrees of freedom, spread times (n - 1) / (n - 2): the winsorized
    t of Dixon and Tukey, Technometrics 10, 1968, with n - 1 values left as they are). Winsorizing
    can only lower the mean, so the higher of both ends is kept: one very slow instance of a slower
    side does not hide the difference.

    Args:
        above: Values of the numerator, shape (n,).
        below: Values of the denominator, shape (n,), paired with `above`.
        confidence: Of the two-sided interval.
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
        ends.append(_end(milder, below, n - 2, (n - 1) / (n - 2), confidence))
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
    """Return the least number of pairs at which the half-width of a ratio's interval is `gap`.

    Args:
        spread: The `paired_spread`; NaN if not known.
        gap: The half-width, as a share of the ratio.
        confidence: Of the two-sided interval.
        most: The largest number to consider.

    Returns:
        The number, or None if it is more than `most` or the spread is not known.
    """
    n = np.arange(2, most + 1)
    near = stats.t.ppf((1 + confidence) / 2, n - 1) * spread / np.sqrt(n) <= gap
    return int(n[near.argmax()]) if near.any() else None


@cache
def share_bounds(successes: int, of: int, confidence: float) -> tuple[float, float]:
    """Return the exact one-sided lower and upper bounds of a binomial share.

    Clopper and Pearson, "The Use of Confidence or Fiducial Limits Illustrated in the Case of the
    Binomial", Biometrika 26, 1934. Each bound holds with `confidence`; both together are a
    two-sided interval at 2 * confidence - 1.

    Args:
        successes: Number of successes.
        of: Number of trials.
        confidence: Of each one-sided bound.

    Example:
        >>> [round(bound, 3) for bound in share_bounds(1, 20, 0.95)]
        [0.003, 0.216]
    """
    failures = of - successes
    low = float(stats.beta.ppf(1 - confidence, successes, failures + 1)) if successes else 0.0
    high = float(stats.beta.ppf(confidence, successes + 1, failures)) if failures else 1.0
    return low, high


def p_above(values: NDArray[np.float64], limit: float) -> float:
    """Return the p value of the hypothesis that a mean is at most a limit (one-sample t test).

    It is 1 with fewer than two values, or if they show no spread (see `NO_SPREAD`).
    """
    if len(values) < 2 or float(np.ptp(values)) < NO_SPREAD:
        return 1.0
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(stats.t.sf((float(values.mean()) - limit) / error, len(values) - 1))


def holm(p_values: Sequence[float], level: float = 1 - CONFIDENCE) -> list[bool]:
    """Return which hypotheses are rejected at a familywise error rate of `level`.

    Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of
    Statistics 6, 1979: controls the same error rate as Bonferroni's test, with at least its power.
    For decisions without an interval; if intervals are shown, these decide.

    Example:
        >>> holm([0.001, 0.04, 0.03])
        [True, False, False]
    """
    return [p <= level for p in holm_adjusted(p_values)]


def holm_adjusted(p_values: Sequence[float]) -> list[float]:
    """Return p values with Holm's adjustment, in the order given; see `holm`.

    Example:
        >>> [round(p, 3) for p in holm_adjusted([0.001, 0.04, 0.03])]
        [0.003, 0.06, 0.06]
    """
    adjusted, least = [0.0] * len(p_values), 0.0
    for done, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - done) * p_values[place]))
        adjusted[place] = least
    return adjusted
