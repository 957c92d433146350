"""Whether a ratio's interval can be trusted: what its replicates show against it, and cannot show.

Student's t interval supposes that the per-replicate logarithms d_r are independent and alike on
both sides of their mean. Four signs against that are looked for in each cell: skew, one replicate
far out, ratios that wander from replicate to replicate, and a second interval (bootstrap-t) that
disagrees. A few replicates show little: `doubts.Limit` says in numbers what as many cannot show.

References: Efron, "Nonparametric Standard Errors and Confidence Intervals", Canadian Journal of
Statistics 9, 1981 (bootstrap-t); von Neumann, "Distribution of the Ratio of the Mean Square
Successive Difference to the Variance", Annals of Mathematical Statistics 12, 1941,
doi:10.1214/aoms/1177731677.
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
"""The two intervals disagree if an end is this many times as far off as Student's t has it."""
FEWEST_SECOND = 5
"""From so many replicates on there is a second interval: resamples of fewer repeat themselves."""
FEWEST_FAR = 10
"""From so many on its disagreement is a sign: of 5 alike replicates it disagrees 1 time in 3."""
_LEVEL_SKEW, _LEVEL_WANDERING = 0.025, 0.05  # of the p values of the signs
FEWEST_SKEW, FEWEST_WANDERING = 4, 5


def unseen(replicates: int) -> float:
    """Return the largest share of slow instances that `replicates` may have missed altogether.

    The upper end of the one-sided Clopper-Pearson interval for none seen, 1 - 0.05^(1/n): with 5
    replicates, an instance that is slow in 45% of starts is not seen once in twenty sweeps.
    """
    return float(1 - (1 - CONFIDENCE) ** (1 / replicates))


@dataclass(frozen=True)
class Signs:
    """What cells of n replicates show: an array each, one value per cell.

    Attributes:
        skewness: Of the logarithms; above 0, some replicates are far above the rest.
        skewness_p: How often noise that is alike on both sides is as skewed.
        outlier: The place of the replicate that is furthest from the mean.
        outlier_p: How often the furthest of normal noise is as far.
        correlation: Of neighbours in time (lag 1).
        wandering_p: How often as many ratios in random order differ as little from their neighbours
            (one-sided permutation test of von Neumann's ratio).
        low: Lower end of the second interval; NaN with fewer than `FEWEST_SECOND`.
        high: Upper end.
        far: How many times as far as Student's t the second interval reaches, at its further end.
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
    """Look for signs against Student's t interval.

    Args:
        logs: Shape (cells, n): per-replicate logarithms, in the order of the replicates.

    Returns:
        NaN for the p values, and so no sign, where n is too small or a cell has no spread.
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
    """Return the bootstrap-t interval of the mean of each row.

    The quantiles of Student's t are replaced by those of the resamples' own t statistics, so that
    an interval reaches further on the side to which the noise is skewed. Resamples are drawn by a
    seed that depends on n alone: equal replicates give an equal interval, in whatever company.
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
        kept = spread > NO_SPREAD  # a resample of one replicate alone has no t
        t = (drawn.mean(axis=1)[kept] - own.mean()) / spread[kept]
        below, above = np.quantile(t, tails) * own.std(ddof=1)
        low[cell], high[cell] = own.mean() - above, own.mean() - below
    return low, high


def _deviation(logs: Floats) -> Floats:
    """Return the standard deviation of each row; 0 for a single value, which shows none."""
    return logs.std(axis=1, ddof=1) if logs.shape[1] > 1 else np.zeros(len(logs))


def _shape(scaled: Floats) -> tuple[Floats, Floats]:
    """Return the skewness of standardised rows, and how far off the furthest value is."""
    return (scaled**3).mean(axis=1), abs(scaled).max(axis=1)


@cache
def _alike(n: int) -> tuple[Floats, Floats]:
    """Return the sorted skewness and furthest value of many normal samples of n."""
    samples = np.random.default_rng(n).normal(size=(9_999, n))
    apart = samples - samples.mean(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        skewness, furthest = _shape(apart / _deviation(samples)[:, None])
    return np.sort(abs(skewness)), np.sort(furthest)


def _exceeding(null: Floats, found: Floats) -> Floats:
    return (len(null) - np.searchsorted(null, found) + 1) / (len(null) + 1)


def _as_close(apart: Floats) -> Floats:
    """Return the share of random orders whose neighbours differ as little as those found."""
    n = apart.shape[1]
    generator = np.random.default_rng(n)
    orders = generator.random((RESAMPLES, n)).argsort(axis=1)
    found = (np.diff(apart, axis=1) ** 2).sum(axis=1)
    as_close = np.array(
        [
            np.count_nonzero((np.diff(own[orders], axis=1) ** 2).sum(axis=1) <= total * (1 + 1e-9))
            for own, total in zip(apart, found, strict=True)
        ]
    )
    return (as_close + 1) / (RESAMPLES + 1)


def _reach(logs: Floats, low: Floats, high: Floats) -> Floats:
    cells, n = logs.shape
    mean = logs.mean(axis=1)
    ends = mean_interval(mean, _deviation(logs), np.full(cells, n))
    with np.errstate(divide="ignore", invalid="ignore"):
        far: Floats = np.fmax((high - mean) / (ends[1] - mean), (mean - low) / (mean - ends[0]))
    return far


def flagged(seen: Signs, n: int) -> dict[str, NDArray[np.bool_]]:
    """Return by kind which cells show a sign: the rule behind `warnings`."""
    return {
        "far-out": seen.outlier_p < _LEVEL_SKEW,
        "skewed": seen.skewness_p < _LEVEL_SKEW,
        # One replicate far out, first or last, has one neighbour that it differs from, not two.
        "wandering": (seen.wandering_p < _LEVEL_WANDERING) & (seen.correlation > 0),
        "second-interval": (seen.far > FAR) & np.bool_(n >= FEWEST_FAR),
    }
