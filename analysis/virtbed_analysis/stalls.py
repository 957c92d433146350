"""Which stalls a cell's requests could not show, and where few stalls make its numbers unsure.

Student's t on a logarithm of a trial's total covers what it claims where the total of a trial is
not much skewed. One request in twenty that takes five times as long makes a total of 16 requests
so skewed that 95% intervals cover 90%, and a cell in which none happened to stall covers nothing
(simulated in the tests). The skewness of a total falls with the root of its number of requests.
"""

from __future__ import annotations

import math

import polars as pl

from virtbed_analysis.estimate import GROUP, in_order, steady
from virtbed_analysis.trust import Json

STALL_SHARE = 0.05
"""The stall that every cell should be able to show: one request in twenty."""
MISSED = 0.05
"""The chance of missing a stall that counts as seeing it."""
FEW = math.ceil(math.log(MISSED) / math.log(1 - STALL_SHARE))
"""With fewer requests, a stall of `STALL_SHARE` is missed more often than `MISSED`."""
SKEWED = 0.5
"""The skewness of a trial's total from which on its interval may cover less than it claims."""


def document(samples: pl.DataFrame) -> Json:
    """Return what the requests of each real cell could show of rare stalls.

    Returns:
        `rows`, one per cell: the columns of `GROUP`, `requests`, `per_trial` (the fewest),
        `unseen_one_in` (a stall that hits fewer requests than one in so many is missed in more than
        one sweep of twenty), `skewness` of the requests and of the `total` of a trial, `few` and
        `skewed` (the two warnings), `needed` (requests per trial that would do; null if these do);
        and the limits `few_requests` and `skewed_total`.
    """
    return {
        "few_requests": FEW,
        "skewed_total": SKEWED,
        "rows": [_row(row) for row in _shapes(samples).to_dicts()],
    }


def _shapes(samples: pl.DataFrame) -> pl.DataFrame:
    """Return the number of requests of each cell, and the central moments of their times.

    A time is taken relative to the mean of its input, so that unlike inputs are no skewness.
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
        # Rounded: the order of a sum, and so its last digits, is not given.
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
