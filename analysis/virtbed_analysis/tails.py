"""Percentiles of latency per trial, and their ratios to bare metal.

Requests of one trial share its instance and are not independent, so a percentile of pooled requests
has no interval and does not describe the next instance. Here each trial has its own percentile:
their range over trials is shown, and ratios are paired by replicate.
"""

from __future__ import annotations

import polars as pl

from virtbed_analysis.estimate import (
    GROUP,
    NS_PER_MS,
    TAILS,
    geometric,
    in_order,
    steady,
    tail,
    to_baseline,
)
from virtbed_analysis.trust import Json


def by_trial(samples: pl.DataFrame, column: str = "latency_ns") -> list[Json]:
    """Return a table per percentile of `TAILS` for which some trial has enough samples.

    Args:
        samples: One row per sample, as `load` returns them.
        column: The time whose percentiles are taken, in ns.

    Returns:
        Tables with `percentile` and `rows`, one per cell: `GROUP`; `trials` (with enough samples);
        `left` (trials without); `typical_ms` (geometric mean of the trials' percentiles);
        `least_ms`, `most_ms`; and the columns of `estimate.ratio_to_bare_metal`, of percentiles.
    """
    tables = ({"percentile": p, "rows": _rows(samples, column, p)} for p in TAILS)
    return [table for table in tables if table["rows"]]


def _rows(samples: pl.DataFrame, column: str, percentile: int) -> list[Json]:
    trials = (
        steady(samples)
        .group_by(*GROUP, "bare", "replicate")
        .agg(tail(column, percentile).alias("ns"))
        .with_columns(pl.col("ns").cast(pl.Float64).log().alias("log"), pl.lit("").alias("input"))
        .sort(*GROUP, "replicate")
    )
    known = trials.filter(pl.col("ns").is_not_null() & pl.col("log").is_finite())
    if not known.height:
        return []
    ends = known.group_by(GROUP, maintain_order=True).agg(
        (pl.col("ns").min() / NS_PER_MS).alias("least_ms"),
        (pl.col("ns").max() / NS_PER_MS).alias("most_ms"),
        pl.len().cast(pl.Int64).alias("trials"),
    )
    every = trials.group_by(GROUP).agg(pl.len().cast(pl.Int64).alias("every"))
    typical = geometric(known, GROUP).select(
        *GROUP, (pl.col("value") / NS_PER_MS).alias("typical_ms")
    )
    ratios = to_baseline(known.select(*GROUP, "bare", "replicate", "input", "log"))
    table = ends.join(every, on=GROUP).join(typical, on=GROUP).join(ratios, on=GROUP, how="left")
    left = (pl.col("every") - pl.col("trials")).alias("left")
    return in_order(table.with_columns(left).drop("every")).to_dicts()
