"""Ratios that are confounded with time: how far apart the pairs ran, and what drift makes of it.

Cells of a replicate run one after another in random order, so that drift falls on all alike. With
few replicates, an order that was not random, or a sweep that went on much later, it does not: a
cell ran later than its baseline on average, and what the host lost meanwhile looks like its cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from virtbed_analysis import words
from virtbed_analysis.cells import SUBJECT, key_of
from virtbed_analysis.estimate import in_order
from virtbed_analysis.intervals import CONFIDENCE, NO_SPREAD, t_quantile
from virtbed_analysis.reduction import BARE, BASELINE, GROUP, Readings, readings
from virtbed_analysis.trust import Json
from virtbed_contract.sweep import MARGIN

Floats = NDArray[np.float64]

SHARE = 0.5
"""A bias counts from this share of half the ratio's interval on, or from the margin on."""
_OF_INTEREST = 0.1  # of the margin: a smaller bias is no matter, however narrow the interval
PAUSE_H = 1.0
"""Longer without a trial's start, the sweep paused, unless its trials take that long."""
_TIMES_USUAL = 5

_SHRINK = 2  # weighs as many replicates
_BEYOND = 20.0  # logarithms of biases that are beyond all belief, as of gaps of months

_SWEEP = ["host", "plan_digest"]


class Slope(NamedTuple):
    """How a host drifts: the change of log time per hour (or per trial), and half its interval."""

    per_step: float
    half: float
    unit: str


@dataclass(frozen=True)
class _Timed:
    """The trials of one host and sweep in order, its drift, and the unit of time."""

    frame: pl.DataFrame
    slope: Slope | None
    unit: str


def order(trials: pl.DataFrame, samples: pl.DataFrame | Readings, margin: float = MARGIN) -> Json:
    """Return how each ratio to bare metal is confounded with time.

    Args:
        trials: A sweep's.
        samples: Its samples.
        margin: The smallest effect of interest, as a share.

    Returns:
        `slopes`, one per host and sweep: `host`, `unit` (hour; trial where starts are unknown),
        `per_step`, `low`, `high` (shares); and `cells`, one per cell with a baseline: `GROUP`,
        `pairs`, `order` and `gap` (how many trials, and units of time, the cell ran
        after its baseline, on average), `longest_h` (the longest gap either way, in hours),
        `paused` (pairs with a pause between them), `bias` and `bias_most` (what the drift makes of
        the ratio, as a share, and what it may make of it at 95%), `half` (half the ratio's
        interval, as a share; null without one) and `warning`, null where time explains too little.
    """
    timed = [_timed(group) for group in _by_sweep(trials, samples)]
    rows: Json = {"slopes": [_slope_row(each) for each in timed if each.slope], "cells": []}
    pairs = pl.concat([_pairs(each) for each in timed]) if timed else None
    if pairs is None or not pairs.height:
        return rows
    cells = pairs.group_by(GROUP, maintain_order=True).agg(
        pl.len().cast(pl.Int64).alias("pairs"),
        pl.col("order").mean(),
        (pl.col("order") > 0).sum().cast(pl.Int64).alias("later"),
        pl.col("gap").mean(),
        pl.col("hours").abs().max().alias("longest_h"),
        pl.col("paused").sum().cast(pl.Int64),
        pl.col("unit").first(),
        pl.col("bias").mean(),
        pl.col("spread").mean().abs(),
        (pl.col("log").std(ddof=1) / pl.len().sqrt()).alias("error"),
    )
    rows["cells"] = [_row(row, margin, cells.height) for row in in_order(cells).to_dicts()]
    return rows


def warnings(ordered: Json) -> dict[tuple[object, ...], str]:
    """Return the warning of each cell that has one, by the cell's key."""
    return {key_of(row): row["warning"] for row in ordered["cells"] if row["warning"]}


def _by_sweep(trials: pl.DataFrame, samples: pl.DataFrame | Readings) -> list[pl.DataFrame]:
    """Return, per host and sweep, a row for each real trial: `y` (log of its time), and when."""
    logs = readings(samples).trials.rename({"log": "y"})
    rows = trials.filter(~pl.col("emulated")).with_columns(
        BARE.alias("bare"),
        pl.col("started_at").str.to_datetime(strict=False, time_zone="UTC").alias("at"),
    )
    joined = rows.join(logs, on="trial").sort(*_SWEEP, "position", "trial")
    return joined.partition_by(_SWEEP, maintain_order=True)


def _timed(group: pl.DataFrame) -> _Timed:
    """Return the trials of one host with `t`, `pass` (number of pauses before), and the slope."""
    all_timed = group["at"].null_count() == 0
    # Where most trials say the same start, it was not taken from a clock.
    unit = "hour" if all_timed and group["at"].n_unique() > group.height / 2 else "trial"
    if all_timed:
        group = group.sort("at", "position", "trial")
    hours = (group["at"] - group["at"].min()).dt.total_seconds() / 3600
    clock = hours if unit == "hour" else group["position"].cast(pl.Float64)
    group = group.with_columns(
        clock.alias("t"), hours.alias("h"), pl.int_range(pl.len()).alias("rank")
    )
    passes = np.zeros(group.height, dtype=np.int64)
    steps = np.diff(group["h"].to_numpy()) if all_timed else np.zeros(0)
    if len(steps):
        limit = max(PAUSE_H, _TIMES_USUAL * float(np.median(steps)))
        passes[1:] = np.cumsum(steps > limit)
    group = group.with_columns(pl.Series("pass", passes))
    return _Timed(group, _slope(group, unit), unit)


def _slope(group: pl.DataFrame, unit: str) -> Slope | None:
    """Return the slope of log time within cells, by least squares; None where nothing tells.

    Within what ran without a pause: a host that was restarted meanwhile has another level, not a
    slope. A trial weighs by its cell's variance, which is drawn towards the middle cell's: a noisy
    cell would hide, or make up, the drift of all others.
    """
    within = [*GROUP, "pass"]
    centred = group.with_columns((pl.col(name) - pl.col(name).mean().over(within)) for name in "ty")
    parts = group.select(within).n_unique()
    cells = (
        centred.filter(pl.len().over(within) > 1)
        .group_by(GROUP, maintain_order=True)
        .agg(
            (pl.col("y") ** 2).sum().alias("ss"), (pl.len() - pl.col("pass").n_unique()).alias("df")
        )
    )
    freedom = group.height - parts - 1
    if freedom < 1 or not cells.height:
        return None
    middle = float((cells["ss"] / cells["df"]).median() or 0.0)  # type: ignore[arg-type]
    variance = (pl.col("ss") + _SHRINK * middle) / (pl.col("df") + _SHRINK)
    weighed = centred.join(
        cells.with_columns(variance.alias("variance")), on=GROUP, maintain_order="left"
    )
    t, y, v = (weighed[name].to_numpy() for name in ("t", "y", "variance"))
    weight = 1 / np.maximum(v, NO_SPREAD**2)
    spread = float(weight @ t**2)
    if spread <= 0:
        return None
    slope = float(weight @ (t * y)) / spread
    error = float(np.sqrt(weight @ (y - slope * t) ** 2 / freedom / spread))
    return Slope(slope, t_quantile(CONFIDENCE, freedom) * error, unit)


def _pairs(timed: _Timed) -> pl.DataFrame:
    """Return each cell's trials next to the baseline of their replicate, and the gap between."""
    key = [*SUBJECT, "weights", "replicate"]
    ones = timed.frame.group_by(*GROUP, "replicate", "bare", maintain_order=True).agg(
        pl.col("t", "h", "rank", "y").mean(),
        pl.col("pass").min().alias("first"),
        pl.col("pass").max().alias("last"),
    )
    theirs = ["t", "h", "rank", "y", "first", "last"]
    base = ones.filter(BASELINE).select(*key, pl.col(theirs).name.prefix("base_"))
    gap = pl.col("t") - pl.col("base_t")
    slope = timed.slope or Slope(0.0, 0.0, timed.unit)
    return (
        ones.filter(~BASELINE)
        .join(base, on=key, maintain_order="left")
        .select(
            *GROUP,
            (pl.col("rank") - pl.col("base_rank")).alias("order"),
            gap.alias("gap"),
            (pl.col("h") - pl.col("base_h")).alias("hours"),
            (
                (pl.col("first") > pl.col("base_last")) | (pl.col("last") < pl.col("base_first"))
            ).alias("paused"),
            pl.lit(timed.unit).alias("unit"),
            (gap * slope.per_step).alias("bias"),
            (gap * slope.half).alias("spread"),
            (pl.col("y") - pl.col("base_y")).alias("log"),
        )
    )


def _row(row: Json, margin: float, cells: int) -> Json:
    one_sided = _one_sided(row.pop("later"), row, cells)
    bias, spread, error = (row.pop(name) for name in ("bias", "spread", "error"))
    most = float(np.clip(bias + np.copysign(spread, bias), -_BEYOND, _BEYOND))
    bias = float(np.clip(bias, -_BEYOND, _BEYOND))
    half = None
    if error is not None:
        half = t_quantile(CONFIDENCE, row["pairs"] - 1) * error
    row |= {
        "bias": float(np.expm1(bias)),
        "bias_most": float(np.expm1(most)),
        "half": None if half is None else float(np.expm1(half)),
    }
    counts = _counts(bias, spread, half, float(np.log1p(margin)))
    return {**row, "warning": _warning(row, counts, one_sided)}


def _one_sided(later: int, row: Json, cells: int) -> str:
    """Return that a cell ran on one side of its baseline in all pairs, as no random order does.

    A drift within replicates that starts again in each has no slope over the sweep. Of all cells
    that are looked at, random orders call one so in at most 5% of sweeps; without starts by a
    clock nothing is known of the order.
    """
    pairs, chance = row["pairs"], 0.5 ** (row["pairs"] - 1)
    if row["unit"] == "trial" or 0 < later < pairs or chance * cells > 1 - CONFIDENCE:
        return ""
    side = "after" if later else "before"
    return (
        f"ran {side} bare metal in each of {pairs} pairs, as a random order does in "
        f"{chance:.2g} of sweeps: what changes within a replicate is part of its ratio"
    )


def _counts(bias: float, spread: float, half: float | None, limit: float) -> bool:
    """Return whether a bias matters: one that the drift shows, or one that it cannot exclude."""
    if abs(bias) > spread:  # the slope is not 0
        narrow = half is not None and abs(bias) > max(SHARE * half, _OF_INTEREST * limit)
        return narrow or abs(bias) + spread > limit
    return abs(bias) + spread > max(limit, half or 0.0)


def _warning(row: Json, counts: bool, one_sided: str) -> str | None:
    parts = [one_sided] if one_sided else []
    if counts:
        late = "after" if row["gap"] > 0 else "before"
        parts.append(
            f"ran {_gap(abs(row['gap']), row['unit'])} {late} bare metal on average while times "
            f"drifted: {row['bias']:+.1%} of the ratio may be drift, up to {row['bias_most']:+.1%}"
        )
    if row["paused"]:
        parts.append(
            f"{row['paused']} of {words.count(row['pairs'], 'pair')} with a pause of the sweep "
            f"between, up to {_gap(row['longest_h'], 'hour')} apart"
        )
    return "; ".join(parts) or None


def _gap(length: float, unit: str) -> str:
    if unit == "trial":
        return f"{length:.1f} trials"
    return words.duration(length)


def _slope_row(timed: _Timed) -> Json:
    slope = timed.slope
    assert slope is not None
    low, high = slope.per_step - slope.half, slope.per_step + slope.half
    return {
        "host": timed.frame["host"][0],
        "unit": timed.unit,
        "per_step": float(np.expm1(slope.per_step)),
        "low": float(np.expm1(low)),
        "high": float(np.expm1(high)),
    }
