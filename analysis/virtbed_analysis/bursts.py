"""Bursts of slow requests within a trial, counted for `slo` and `independence`.

Slow requests of one burst are correlated, so they carry less information than as many independent
ones. This module marks and counts bursts; `independence` makes an effective sample size of them.
"""

from __future__ import annotations

import polars as pl

from virtbed_analysis.estimate import tail
from virtbed_analysis.independence import NEIGHBOURS
from virtbed_analysis.slo import Instance

BURSTS = ("bursts", "slowest", "slow_bursts")
"""The columns that `with_bursts` adds, in the order of the fields of `slo.Instance`."""


def with_bursts(samples: pl.DataFrame, bound_ns: float) -> pl.DataFrame:
    """Return samples with a Boolean column per name of `BURSTS`.

    Args:
        samples: One row per sample, in the order of the trial: `trial`, `sample`, `input`,
            `latency_ns`.
        bound_ns: The latency above which a request is slow.

    Returns:
        The samples in their order, with `bursts` (the first of a burst above the bound), `slowest`
        (among the slowest tenth of its trial, relative to its input's mean) and `slow_bursts` (the
        first of a burst of those). All are null where `latency_ns` is.
    """
    waited = pl.col("latency_ns")
    # Relative to its input's mean, since an input that always takes long is not a burst.
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
    """Return an `Instance` per row; a row is a trial with `waited`, `beyond`, sums of `BURSTS`."""
    counts = rows.select("waited", "beyond", *BURSTS)
    return [Instance(*map(int, row)) for row in counts.iter_rows()]


def _first(name: str) -> pl.Expr:
    """Return whether a Boolean column is true, and false in the `NEIGHBOURS` rows before."""
    before = [
        pl.col(name).shift(by, fill_value=False).over("trial") for by in range(1, NEIGHBOURS + 1)
    ]
    return pl.col(name) & ~pl.any_horizontal(before)
