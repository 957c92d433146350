"""Rare stalls: which ones a cell's requests could miss, and where they skew its numbers.

Student's t on the logarithms of trials' totals has its nominal coverage if a total is not much
skewed. If one request in twenty takes five times as long, a total of 16 requests is so skewed that
95% intervals cover about 90%, and the interval of a cell in which no request happened to stall does
not cover at all. The tests assert that the interval of such a cell covers, or that it is warned of.
The skewness of a total of n independent requests is that of one request divided by sqrt(n).
"""

from __future__ import annotations

import math

import polars as pl

from virtbed_analysis.estimate import GROUP, in_order, steady
from virtbed_analysis.trust import Json

STALL_SHARE = 0.05
"""The share of stalling requests that every cell should show: one in twenty."""
MISSED = 0.05
"""The accepted probability that a cell shows none of them."""
FEW = math.ceil(math.log(MISSED) / math.log(1 - STALL_SHARE))
"""The least number of requests of a cell: with fewer, the probability is above `MISSED`."""
SKEWED = 0.5
"""The skewness of a trial's total above which its interval may have less than nominal coverage."""


def document(samples: pl.DataFrame) -> Json:
    """Return the report's part on rare stalls.

    Args:
        samples: One row per sample, as `load` returns them.

    Returns:
        `few_requests` and `skewed_total` (the limits), and `rows`, one per real cell: `GROUP`;
        `requests` (of all trials) and `per_trial` (the fewest of a trial); `unseen_one_in` (a stall
        of a smaller share than one in this many requests is missed in more than one sweep of
        twenty); `skewness` (of a request's time relative to its input's mean) and `total` (of a
        trial's total); `few` and `skewed` (the two warnings); `needed` (requests per trial at which
        the total is not skewed; null if it is not).
    """
    return {
        "few_requests": FEW,
        "skewed_total": SKEWED,
        "rows": [_row(row) for row in _shapes(samples).to_dicts()],
    }


def _shapes(samples: pl.DataFrame) -> pl.DataFrame:
    """Return one row per cell: numbers of requests, and sums of powers of relative deviations.

    A time is relative to the mean of its input, so inputs of unequal length add no skewness.
    """
    measured = steady(samples)
    off = pl.col("e2e_ns") / pl.col("e2e_ns").mean() - 1
    moments = (
        measured.group_by(*GROUP, "input", maintain_order=True)
        .agg(off.pow(2).sum().alias("second"), off.pow(3).sum().alias("third"))
        .group_by(GROUP, maintain_order=True)
        .agg(pl.col("second").sum(), pl.col("third").sum())
    )
    counts = (
        measured.group_by(*GROUP, "trial", maintain_order=True)
        .agg(pl.len().alias("own").cast(pl.Int64))
        .group_by(GROUP, maintain_order=True)
        .agg(pl.col("own").sum().alias("requests"), pl.col("own").min().alias("per_trial"))
    )
    return in_order(counts.join(moments, on=GROUP))


def _row(shape: Json) -> Json:
    requests, per_trial = shape["requests"], shape["per_trial"]
    spread, skewness = shape["second"] / requests, 0.0
    if spread > 0:
        # Rounded, since the order of summation, and so the last digits, may vary.
        skewness = max(0.0, round(shape["third"] / requests / spread**1.5, 6))
    total = skewness / math.sqrt(per_trial)
    return {
        **{name: shape[name] for name in GROUP},
        "requests": requests,
        "per_trial": per_trial,
        "unseen_one_in": 1 / (1 - MISSED ** (1 / requests)),
        "skewness": skewness,
        "total": total,
        "few": requests < FEW,
        "skewed": total > SKEWED,
        "needed": math.ceil((skewness / SKEWED) ** 2) if total > SKEWED else None,
    }
