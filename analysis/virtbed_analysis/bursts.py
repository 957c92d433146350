"""Bursts of slow requests: correlated ones tell less than as many independent ones."""

from __future__ import annotations

import polars as pl

from virtbed_analysis.estimate import tail
from virtbed_analysis.independence import NEIGHBOURS
from virtbed_analysis.slo import Instance

BURSTS = ("bursts", "slowest", "slow_bursts")
"""What `with_bursts` counts of a request, as in `slo.Instance`."""


def with_bursts(samples: pl.DataFrame, bound_ns: float) -> pl.DataFrame:
    """Return samples, in the order of their trials, with whether each counts for `BURSTS`."""
    waited = pl.col("latency_ns")
    # An input that takes longer than others is no burst, in whatever order inputs come.
    known = samples.filter(waited.is_not_null()).with_columns(
        _beyond=waited > bound_ns, _over=waited / waited.mean().over("trial", "input")
    )
    known = known.with_columns(_slow=pl.col("_over") > tail("_over", 90).over("trial"))
    bursts = known.select(
        "trial", "sample", _first("_beyond").alias("bursts"), pl.col("_slow").alias("slowest"),
        _first("_slow").alias("slow_bursts"),
    )  # fmt: skip
    return samples.join(bursts, on=["trial", "sample"], how="left", maintain_order="left")


def instances(rows: pl.DataFrame) -> list[Instance]:
    """Return what each trial did: rows of `waited`, `beyond` and the sums of `BURSTS`."""
    counts = rows.select("waited", "beyond", *BURSTS)
    return [Instance(*map(int, row)) for row in counts.iter_rows()]


def _first(name: str) -> pl.Expr:
    """Return whether a request is one of those named, and none of its neighbours before it is."""
    before = [
        pl.col(name).shift(by, fill_value=False).over("trial") for by in range(1, NEIGHBOURS + 1)
    ]
    return pl.col(name) & ~pl.any_horizontal(before)
