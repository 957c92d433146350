"""Percentiles trial by trial: what a pooled one cannot say of the next instance.

Requests of one trial share its instance and are no independent evidence, so a percentile of pooled
requests has no interval. Each trial has a percentile of its own; across trials there are a least
and a most, and a ratio to bare metal that is paired by replicate.
"""

from __future__ import annotations

import polars as pl

from virtbed_analysis.cells import CELL
from virtbed_analysis.estimate import (
    NS_PER_MS,
    TAILS,
    geometric,
    in_order,
    steady,
    tail,
    to_baseline,
)
from virtbed_analysis.trust import Json


def by_trial(samples: pl.DataFrame, column: str = "e2e_ns") -> list[Json]:
    """Return a table for each percentile of `TAILS` that some trial has samples enough to show.

    Args:
        samples: As `load` gives them.
        column: The time whose percentiles are taken, in ns.

    Returns:
        `percentile`, and `rows`: `CELL`, `weights`, `bare`, `trials` (with samples enough), `left`
        (without), `typical_ms` (geometric mean of the trials' percentiles), `least_ms`, `most_ms`,
        and the ratio's columns (see `estimate.ratio_to_bare_metal`), of percentiles.
    """
    tables = ({"percentile": p, "rows": _rows(samples, column, p)} for p in TAILS)
    return [table for table in tables if table["rows"]]


def _rows(samples: pl.DataFrame, column: str, percentile: int) -> list[Json]:
    trials = (
        steady(samples)
        .group_by(*CELL, "bare", "weights", "replicate")
        .agg(tail(column, percentile).alias("ns"))
        .with_columns(pl.col("ns").cast(pl.Float64).log().alias("log"), pl.lit("").alias("input"))
        .sort(*CELL, "replicate")
    )
    known = trials.filter(pl.col("ns").is_not_null() & pl.col("log").is_finite())
    if not known.height:
        return []
    ends = known.group_by(CELL, maintain_order=True).agg(
        pl.col("weights").first(),
        (pl.col("ns").min() / NS_PER_MS).alias("least_ms"),
        (pl.col("ns").max() / NS_PER_MS).alias("most_ms"),
        pl.len().cast(pl.Int64).alias("trials"),
    )
    asked = trials.group_by(CELL).agg(pl.len().cast(pl.Int64).alias("asked"))
    typical = geometric(known, CELL).select(
        *CELL, (pl.col("value") / NS_PER_MS).alias("typical_ms")
    )
    ratios = to_baseline(known.select(*CELL, "bare", "replicate", "input", "log"))
    table = ends.join(asked, on=CELL).join(typical, on=CELL).join(ratios, on=CELL, how="left")
    left = (pl.col("asked") - pl.col("trials")).alias("left")
    return in_order(table.with_columns(left).drop("asked")).to_dicts()
