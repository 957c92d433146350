"""Percentiles trial by trial: what a pooled one cannot say of the next instance.

Requests of one trial share its instance and are no independent evidence, so a percentile of pooled
requests has no interval. Each trial has a percentile of its own; across trials there are a least
and a most, and a ratio to bare metal that is paired by replicate.
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
    """Return a table for each percentile of `TAILS` that some trial has samples enough to show.

    Args:
        samples: As `load` gives them.
        column: The time whose percentiles are taken, in ns.

    Returns:
        `percentile`, and `rows`: `GROUP`, `bare`, `trials` (with samples enough), `left`
        (without), `typical_ms` (geometric mean of the trials' percentiles), `least_ms`, `most_ms`,
        and the ratio's columns (see `estimate.ratio_to_bare_metal`), of percentiles.
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
    asked = trials.group_by(GROUP).agg(pl.len().cast(pl.Int64).alias("asked"))
    typical = geometric(known, GROUP).select(
        *GROUP, (pl.col("value") / NS_PER_MS).alias("typical_ms")
    )
    ratios = to_baseline(known.select(*GROUP, "bare", "replicate", "input", "log"))
    table = ends.join(asked, on=GROUP).join(typical, on=GROUP).join(ratios, on=GROUP, how="left")
    left = (pl.col("asked") - pl.col("trials")).alias("left")
    return in_order(table.with_columns(left).drop("asked")).to_dicts()
