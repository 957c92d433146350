"""Ratios that are confounded with time: the gap within pairs, and the bias that drift causes.

The cells of a replicate run in random order, so drift of the host affects all cells alike on
average. With few replicates, a non-random order, or a sweep that was resumed much later, a cell may
have run after its baseline on average, and a slowdown of the host meanwhile looks like its cost.

The bias is estimated as mean gap times slope, where the slope is a weighted regression of log time
on start time within cells (see `_slope`). `diagnostics` shows the course of the host itself.
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
"""A bias is reported if it exceeds this share of the half-width of the ratio's interval."""
_OF_INTEREST = 0.1  # share of the margin below which a bias is ignored, even with a narrow interval
PAUSE_H = 1.0
"""A longer gap between starts, in hours, is a pause, unless the trials themselves take as long."""
_TIMES_USUAL = 5  # a pause is at least this many median gaps

_SHRINK = 2  # degrees of freedom of the prior in the shrinkage of variances towards their median
_BEYOND = 20.0  # clips logarithms of extrapolated biases, as after gaps of months

_SWEEP = ["host", "plan_digest"]


class Slope(NamedTuple):
    """Drift of a host: change of log time per `unit` (hour or trial), and its 95% half-width."""

    per_step: float
    half: float
    unit: str


@dataclass(frozen=True)
class _Timed:
    """The trials of one host and sweep in order, the slope of its drift, and the unit of time."""

    frame: pl.DataFrame
    slope: Slope | None
    unit: str


def order(trials: pl.DataFrame, samples: pl.DataFrame | Readings, margin: float = MARGIN) -> Json:
    """Return how far each ratio to bare metal is confounded with time.

    Args:
        trials: `Sweep.trials`, one row per trial.
        samples: `Sweep.samples`, one row per sample, or their readings.
        margin: The smallest effect of interest, as a share.

    Returns:
        `slopes`, one row per host and sweep: `host`, `unit` ("hour", or "trial" if starts are
        unknown), `per_step`, `low`, `high` (relative change per unit with its 95% interval).

        `cells`, one row per cell with a baseline: `GROUP`; `pairs`; `order` and `gap` (mean number
        of trials, and of units of time, by which the cell ran after its baseline); `longest_h` (the
        longest absolute gap, in hours); `paused` (pairs with a pause between them); `bias` and
        `bias_most` (the estimated bias of the ratio, as a share, and its 95% bound away from 0);
        `half` (half-width of the ratio's interval, as a share; null without one); `warning` (null
        if the bias is negligible).
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
    """Return a frame per host and sweep, one row per real trial: `y` (log of its time), `at`."""
    logs = readings(samples).trials.rename({"log": "y"})
    rows = trials.filter(~pl.col("emulated")).with_columns(
        BARE.alias("bare"),
        pl.col("started_at").str.to_datetime(strict=False, time_zone="UTC").alias("at"),
    )
    joined = rows.join(logs, on="trial").sort(*_SWEEP, "position", "trial")
    return joined.partition_by(_SWEEP, maintain_order=True)


def _timed(group: pl.DataFrame) -> _Timed:
    """Return the trials of one host with `t` (time), `pass` (earlier pauses), and the slope."""
    all_timed = group["at"].null_count() == 0
    # If most trials state the same start, the starts were not read from a clock.
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
    """Return the slope of log time on time by weighted least squares; None without enough data.

    The model has an intercept per cell and pass (the part between two pauses), since a host that
    was restarted in a pause has another level, which is not a slope. Weights are inverse variances
    of cells, shrunk towards their median, so that a noisy cell neither hides nor invents a drift of
    the others. The 95% interval uses Student's t with trials - intercepts - 1 degrees of freedom.
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
    """Return one row per cell and replicate, paired with its baseline: gaps, bias, log ratio."""
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
    """Return a row of `order` from the means over a cell's pairs."""
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
    """Return a warning if a cell ran on the same side of its baseline in all pairs; else "".

    A drift that starts again in each replicate has no slope over the sweep, so it is detected by
    the order alone: a two-sided sign test, at 5% over all cells (Bonferroni). It needs starts that
    were read from a clock.
    """
    pairs, chance = row["pairs"], 0.5 ** (row["pairs"] - 1)
    if row["unit"] == "trial" or 0 < later < pairs or chance * cells > 1 - CONFIDENCE:
        return ""
    side = "after" if later else "before"
    return (
        f"ran {side} bare metal in each of {pairs} pairs, as a random order does in "
        f"{chance:.2g} of sweeps: a drift within replicates is part of its ratio"
    )


def _counts(bias: float, spread: float, half: float | None, limit: float) -> bool:
    """Return whether a bias matters: a significant one, or one that cannot be excluded.

    Args:
        bias: Mean gap times slope, a logarithm.
        spread: Its 95% half-width.
        half: Half-width of the ratio's interval, a logarithm; None without one.
        limit: The margin as a logarithm.
    """
    if abs(bias) > spread:  # the slope differs from 0
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
