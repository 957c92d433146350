"""Checks of the assumptions behind a ratio's interval, from its per-replicate log ratios d_r.

Student's t interval assumes that the d_r are independent and symmetric about their mean. Four signs
against that are tested in each cell: skewness, an outlier, autocorrelation over replicates, and a
second interval (bootstrap-t) that disagrees. A few replicates show little; `doubts.Limit` states
the coverage that remains possible. `doubts` turns the signs into warnings.

Sources: Efron, "Nonparametric Standard Errors and Confidence Intervals", Canadian Journal of
Statistics 9, 1981 (bootstrap-t); von Neumann, "Distribution of the Ratio of the Mean Square
Successive Difference to the Variance", Annals of Mathematical Statistics 12, 1941,
doi:10.1214/aoms/1177731677 (autocorrelation).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from virtbed_analysis.intervals import CONFIDENCE, NO_SPREAD, mean_interval

Floats = NDArray[np.float64]

RESAMPLES = 999
FAR = 2.0
"""Disagreement: an end of the second interval this many times as far from the mean as the first."""
FEWEST_SECOND = 5
"""The least number of replicates of a second interval: with fewer, resamples repeat themselves."""
FEWEST_FAR = 10
"""The least number at which disagreement is a sign: with 5 normal replicates it occurs 1 in 3."""
_LEVEL_SKEW, _LEVEL_WANDERING = 0.025, 0.05  # significance levels of the tests
FEWEST_SKEW, FEWEST_WANDERING = 4, 5


def unseen(replicates: int) -> float:
    """Return the largest share of slow instances of which `replicates` may have shown none.

    It is the one-sided 95% upper limit of Clopper and Pearson for 0 of n, 1 - 0.05^(1/n).

    Example:
        >>> round(unseen(5), 2)
        0.45
    """
    return float(1 - (1 - CONFIDENCE) ** (1 / replicates))


@dataclass(frozen=True)
class Signs:
    """Test statistics of cells of n replicates: arrays of shape (cells,).

    Attributes:
        skewness: Sample skewness of the d_r; above 0, some replicates are far above the rest.
        skewness_p: Two-sided p value of the skewness under normal noise (Monte Carlo).
        outlier: Index of the replicate that is furthest from the mean.
        outlier_p: P value of its standardized distance under normal noise (Monte Carlo).
        correlation: Lag-1 autocorrelation over replicates.
        wandering_p: One-sided p value of positive autocorrelation (permutation test of von
            Neumann's ratio).
        low: Lower end of the bootstrap-t interval; NaN with fewer than `FEWEST_SECOND` replicates.
        high: Upper end.
        far: The larger ratio of the two intervals' distances from the mean to an end (bootstrap-t
            over Student's t).
    """

    skewness: Floats
    skewness_p: Floats
    outlier: NDArray[np.int64]
    outlier_p: Floats
    correlation: Floats
    wandering_p: Floats
    low: Floats
    high: Floats
    far: Floats


def signs(logs: Floats) -> Signs:
    """Compute the test statistics of `Signs`.

    Args:
        logs: Shape (cells, n): per-replicate log ratios, in the order of replicates.

    Returns:
        The signs; p values are NaN, so no sign, if n is too small or a cell has no spread.
    """
    n = logs.shape[1]
    apart = logs - logs.mean(axis=1, keepdims=True)
    spread = _deviation(logs)
    none = spread < NO_SPREAD
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = apart / spread[:, None]
        skewness, furthest = _shape(scaled)
        correlation = (apart[:, 1:] * apart[:, :-1]).sum(axis=1) / (apart**2).sum(axis=1)
    low, high = studentized(logs)
    no_sign = np.full(len(logs), np.nan)
    skewness_p = outlier_p = wandering_p = no_sign
    if n >= FEWEST_SKEW:
        skews, outliers = _alike(n)
        skewness_p = np.where(none, np.nan, _exceeding(skews, abs(skewness)))
        outlier_p = np.where(none, np.nan, _exceeding(outliers, furthest))
    if n >= FEWEST_WANDERING:
        wandering_p = np.where(none, np.nan, _as_close(apart))
    return Signs(
        skewness=skewness,
        skewness_p=skewness_p,
        outlier=abs(apart).argmax(axis=1),
        outlier_p=outlier_p,
        correlation=correlation,
        wandering_p=wandering_p,
        low=low,
        high=high,
        far=_reach(logs, low, high),
    )


def studentized(logs: Floats, confidence: float = CONFIDENCE) -> tuple[Floats, Floats]:
    """Return the bootstrap-t interval of the mean of each row (Efron 1981).

    The quantiles of Student's t are replaced by those of the t statistics of `RESAMPLES` resamples,
    so the interval is longer on the side to which the noise is skewed. The seed depends on n only,
    so equal replicates give an equal interval, whatever other cells there are.

    Args:
        logs: Shape (cells, n): per-replicate log ratios.
        confidence: Of the two-sided interval.

    Returns:
        Lower and upper ends, shape (cells,); NaN with fewer than `FEWEST_SECOND` replicates or
        without spread.
    """
    cells, n = logs.shape
    if n < FEWEST_SECOND:
        return np.full(cells, np.nan), np.full(cells, np.nan)
    random = np.random.default_rng(n)
    chosen = random.integers(0, n, (RESAMPLES, n))
    low, high = np.full(cells, np.nan), np.full(cells, np.nan)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    for cell in np.flatnonzero(_deviation(logs) >= NO_SPREAD):
        own = logs[cell]
        drawn = own[chosen]
        spread = _deviation(drawn)
        kept = spread > NO_SPREAD  # a resample that repeats one replicate has no t statistic
        t = (drawn.mean(axis=1)[kept] - own.mean()) / spread[kept]
        below, above = np.quantile(t, tails) * own.std(ddof=1)
        low[cell], high[cell] = own.mean() - above, own.mean() - below
    return low, high


def _deviation(logs: Floats) -> Floats:
    """Return the sample standard deviation of each row; 0 for a single value."""
    return logs.std(axis=1, ddof=1) if logs.shape[1] > 1 else np.zeros(len(logs))


def _shape(scaled: Floats) -> tuple[Floats, Floats]:
    """Return the skewness and the largest absolute value of standardized rows."""
    return (scaled**3).mean(axis=1), abs(scaled).max(axis=1)


@cache
def _alike(n: int) -> tuple[Floats, Floats]:
    """Return the null distributions of `_shape`: sorted values of 9999 normal samples of n."""
    samples = np.random.default_rng(n).normal(size=(9_999, n))
    apart = samples - samples.mean(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        skewness, furthest = _shape(apart / _deviation(samples)[:, None])
    return np.sort(abs(skewness)), np.sort(furthest)


def _exceeding(null: Floats, values: Floats) -> Floats:
    """Return Monte Carlo p values: the share of a sorted null sample that is at least as large."""
    return (len(null) - np.searchsorted(null, values) + 1) / (len(null) + 1)


def _as_close(apart: Floats) -> Floats:
    """Return permutation p values of small squared differences between consecutive values."""
    n = apart.shape[1]
    generator = np.random.default_rng(n)
    orders = generator.random((RESAMPLES, n)).argsort(axis=1)
    totals = (np.diff(apart, axis=1) ** 2).sum(axis=1)
    as_close = np.array(
        [
            np.count_nonzero((np.diff(own[orders], axis=1) ** 2).sum(axis=1) <= total * (1 + 1e-9))
            for own, total in zip(apart, totals, strict=True)
        ]
    )
    return (as_close + 1) / (RESAMPLES + 1)


def _reach(logs: Floats, low: Floats, high: Floats) -> Floats:
    """Return `Signs.far` of each row."""
    cells, n = logs.shape
    mean = logs.mean(axis=1)
    ends = mean_interval(mean, _deviation(logs), np.full(cells, n))
    with np.errstate(divide="ignore", invalid="ignore"):
        far: Floats = np.fmax((high - mean) / (ends[1] - mean), (mean - low) / (mean - ends[0]))
    return far


def flagged(seen: Signs, n: int) -> dict[str, NDArray[np.bool_]]:
    """Return by kind of sign which cells show it, arrays of shape (cells,); `doubts` words them.

    Args:
        seen: The statistics of cells.
        n: Their number of replicates.
    """
    return {
        "far-out": seen.outlier_p < _LEVEL_SKEW,
        "skewed": seen.skewness_p < _LEVEL_SKEW,
        # An outlier at either end has only one neighbour, which lowers von Neumann's ratio; the
        # sign of the correlation excludes that case.
        "wandering": (seen.wandering_p < _LEVEL_WANDERING) & (seen.correlation > 0),
        "second-interval": (seen.far > FAR) & np.bool_(n >= FEWEST_FAR),
    }
