"""Estimates of measures with one value per trial: start-up, answers, and others such as memory."""

from __future__ import annotations

import math

import polars as pl

from virtbed_analysis import unlike
from virtbed_analysis.estimate import (
    NS_PER_MS,
    geometric,
    in_order,
    phases,
    to_baseline,
    typical,
)  # fmt: skip
from virtbed_analysis.latency import WHOLE
from virtbed_analysis.reduction import BARE, BASELINE, GROUP, Readings, readings, steady
from virtbed_contract.measures import SHOWN, Measure, of_group

STARTUP = of_group("startup")


def startup(trials: pl.DataFrame) -> pl.DataFrame:
    """Return the start-up times of each real cell in ms.

    Args:
        trials: One row per trial, as `Sweep.trials`.

    Returns:
        One row per cell: `GROUP`, `replicates`, `<measure>_ms` (median of each measure of the group
        startup; `spawn_ms` is null if the launcher did not report it), and `start_typical_ms`
        (geometric mean of their sum, over the replicates in which all are known).
    """
    unlike.refuse_pooled(trials)
    real = trials.filter(~pl.col("emulated"))
    whole = pl.sum_horizontal((m.column for m in STARTUP), ignore_nulls=False).log()
    replicates = real.group_by(*GROUP, "replicate", maintain_order=True)
    wholes = replicates.agg(whole.mean().alias("log")).drop_nulls("log")
    return in_order(_startup(real).join(typical(wholes, "start"), on=GROUP, how="left"))


def emulated(samples: pl.DataFrame, trials: pl.DataFrame) -> pl.DataFrame:
    """Return phases and start-up of emulated cells in ms, without interval and ratio.

    Their times are those of the emulator, not of the platform, so they are never compared.
    """
    slow = steady(samples, emulated=True)
    starts = _startup(trials.filter(pl.col("emulated"))).drop("replicates")
    return in_order(phases(slow).drop("bare").join(starts, on=GROUP))


def other(trials: pl.DataFrame, measure: Measure) -> pl.DataFrame:
    """Return one measure of each real cell that has it, and its ratio to bare metal.

    Args:
        trials: One row per trial, as `Sweep.trials`.
        measure: A measure with one value per trial.

    Returns:
        One row per cell: `GROUP`; `baseline`; `value` (geometric mean over replicates, in the unit
        in which the measure is shown, without an interval, see `estimate.typical`); `replicates`;
        `zeros` (number of replicates with the value 0; with any, there is no geometric mean and no
        ratio); and the columns of `estimate.ratio_to_bare_metal`.
    """
    unlike.refuse_pooled(trials)
    value = pl.col(measure.column) / SHOWN[measure.unit][1]
    known = trials.filter(~pl.col("emulated"), pl.col(measure.column).is_not_null())
    replicates = (
        known.with_columns(BARE.alias("bare"), input=pl.lit(""))
        .group_by(*GROUP, "bare", "replicate", "input")
        .agg(value.mean().log().alias("log"))
        .sort(*GROUP, "replicate")
    )
    cells = replicates.group_by(GROUP, maintain_order=True).agg(
        BASELINE.first().alias("baseline"),
        (pl.col("log") == -math.inf).sum().cast(pl.Int64).alias("zeros"),
    )
    typical_value = geometric(replicates, GROUP).rename({"n": "replicates"})
    ratios = to_baseline(replicates)
    ends = ("value", "ratio", "ratio_low", "ratio_high")
    return in_order(
        cells.join(typical_value, on=GROUP)
        .join(ratios, on=GROUP, how="left")
        .with_columns(
            pl.when(pl.col(end).is_finite() & (pl.col(end) > 0)).then(pl.col(end)).alias(end)
            for end in ends
        )
    )


def answers_differ(trials: pl.DataFrame) -> pl.DataFrame:
    """Return the cells whose answers differ from those of bare metal, so the work was not the same.

    Answers are compared by digest within one application, version and scale, over all sizes and
    including emulated cells, since answers do not depend on speed. Without a bare-metal result the
    most common digest is expected.

    Args:
        trials: One row per trial, as `Sweep.trials`.

    Returns:
        One row per such cell: `GROUP`, `trials` (how many differ), `answers` (their digests) and
        `expected` (bare metal's digests; several if bare metal is inconsistent).
    """
    work = ["application", "application_version", "scale"]
    metal = trials.filter(BARE)
    rest = trials.join(metal, on=work, how="anti")
    expected = pl.concat(
        [
            frame.group_by(work).agg(pl.col("answers_digest").mode().sort().alias("expected"))
            for frame in (metal, rest)
        ]
    )
    differ = trials.join(expected, on=work).filter(
        (pl.col("expected").list.len() > 1) | ~pl.col("answers_digest").is_in(pl.col("expected"))
    )
    return in_order(
        differ.group_by(GROUP).agg(
            pl.len().alias("trials"),
            pl.col("answers_digest").unique().sort().alias("answers"),
            pl.col("expected").first(),
        )
    )


def _startup(trials: pl.DataFrame) -> pl.DataFrame:
    return trials.group_by(GROUP).agg(
        pl.col("replicate").n_unique().alias("replicates"),
        *((pl.col(m.column).median() / NS_PER_MS).alias(f"{m.name}_ms") for m in STARTUP),
    )


def log_means(samples: pl.DataFrame | Readings) -> dict[str, dict[str, float]]:
    """Return `precision.log_means` of each trial of a sweep, by its id."""
    logs: dict[str, dict[str, float]] = {}
    means, whole = readings(samples), pl.col("scenario").is_in(WHOLE)
    log = (pl.col("e2e_ns") / pl.col("n")).log().alias("log")
    own = means.totals.filter(~whole).select("trial", "input", log)
    for trial, name, log in own.iter_rows():
        logs.setdefault(trial, {})[name] = log
    rest = means.filter(whole).trials
    return logs | {trial: {"": log} for trial, log in rest.iter_rows()}
