"""Summary tables of cells: medians, typical times, percentiles, and ratios with intervals.

The replication unit is the trial: a fresh process on a fresh instance. Samples within one trial
share its memory layout, placement and neighbours, so an interval from pooled samples would be far
too narrow for the next trial (Kalibera and Jones, "Rigorous Benchmarking in Reasonable Time", ISMM
2013, doi:10.1145/2464157.2464160). Each trial is reduced to one logarithm, and the spread between
replicates gives the interval.

The interval is Student's t on those logarithms. The percentile bootstrap of as few as five
replicates covers clearly less than its nominal level, and a t interval does better (Hesterberg,
"What Teachers Should Know About the Bootstrap", The American Statistician 69, 2015, pp. 371-386,
arXiv 1411.5279). The inputs are a fixed set, the same on every platform, and are not resampled: the
estimand is the time of their mix, each input once (see `reduction`).

Within a trial, the samples of an input are reduced by their mean, not their median: a CPU quota
stops a process for part of each period, which delays some requests and leaves the rest unchanged. A
median would not show that loss, although users pay for it in throughput.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from virtbed_analysis.cells import CELL, DEFAULTED, MATCHED, SUBJECT
from virtbed_analysis.engine import Logs, effect, shared
from virtbed_analysis.reduction import (
    BARE,
    BASELINE,
    GROUP,
    PHASES,
    PLAIN_ROWS,
    Readings,
    by_cell,
    by_replicate,
    judged,
    readings,
    steady,
)  # fmt: skip
from virtbed_contract.factors import Factor
from virtbed_contract.measures import JUDGED_BY, percentile_rank

# Names of `reduction` are exported here too, for the modules that estimate.
__all__ = [
    "BARE", "BASELINE", "GROUP", "NS_PER_MS", "PHASES", "PLAIN_ROWS", "TAILS", "at_rank",
    "by_replicate", "cells", "geometric", "gpu_speed_up", "guest_factor", "in_order", "judged",
    "over_default", "phases", "ratio_to_bare_metal", "samples_to_show", "steady", "tail",
    "thread_policy_gain", "to_baseline", "typical", "vanilla_to_pinned", "variant_to_plain",
    "without_suspects",
]  # fmt: skip

TAILS = (90, 99)  # percentiles of latency
NS_PER_MS = 1e6


def cells(samples: pl.DataFrame, means: Readings | None = None) -> pl.DataFrame:
    """Summarise each real (not emulated) cell: one row per cell, times in ms.

    Args:
        samples: As `load` returns them.
        means: Their readings; computed if None.

    Returns:
        Columns: `GROUP`; `replicates` and `samples` (their numbers); `<phase>_median_ms` and
        `<phase>_mean_ms` over all measured samples; `latency_p90_ms` and `latency_p99_ms` (null in
        offline, and with fewer latencies than `samples_to_show`); `<phase>_typical_ms` (mean over
        inputs, then geometric mean over replicates); `judged_by` (name of the measure that the
        scenario is judged by); `judged_typical_ms` (its typical value: e2e time, latency or time
        per sample); `baseline` (whether the cell is one); and the columns of `ratio_to_bare_metal`,
        null for a baseline.
    """
    means = means or readings(samples)
    names = {scenario: measure.name for scenario, measure in JUDGED_BY.items()}
    mean = pl.col("log").exp().mean().log()
    per_replicate = means.judged.group_by(*GROUP, "replicate", maintain_order=True).agg(mean)
    summary = phases(steady(samples)).join(typical(per_replicate, "judged"), on=GROUP)
    summary = summary.with_columns(
        pl.col("scenario").cast(pl.String).replace_strict(names).alias("judged_by")
    )
    for phase in PHASES:
        mixes = means.means.group_by(*GROUP, "replicate", maintain_order=True)
        logs = mixes.agg(pl.col(f"mean_{phase}").mean().log().alias("log"))
        summary = summary.join(typical(logs, phase), on=GROUP)
    return in_order(
        summary.with_columns(BASELINE.alias("baseline"))
        .drop("bare")
        .join(ratio_to_bare_metal(means), on=GROUP, how="left")
    )


def typical(per_replicate: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return the geometric mean over replicates per cell, in ms, without an interval.

    Trials of one cell drift with their host, so an interval from their spread covers less than
    90% instead of 95% (simulated in the tests), and a few replicates cannot show how long a drift
    lasts. Ratios are paired within replicates and do have an interval.

    Args:
        per_replicate: One row per cell and replicate: `GROUP`, `log` (of a time in ns).
        name: The prefix of the result's column.

    Returns:
        `GROUP` and `<name>_typical_ms`, null if the time is 0.
    """
    known = pl.col("value") > 0  # the logarithm of 0 is -inf, whose exp is 0
    value = pl.when(known).then(pl.col("value") / NS_PER_MS)
    return geometric(per_replicate, GROUP).select(*GROUP, value.alias(f"{name}_typical_ms"))


def ratio_to_bare_metal(samples: pl.DataFrame | Readings) -> pl.DataFrame:
    """Return the ratio of each cell's time to that of its baseline, pinned bare metal.

    The baseline has the same cores, application and matched factors. The time is the one that the
    scenario is judged by (`JUDGED_BY`), so above 1 is always worse. For scenarios judged by the e2e
    time: for each replicate r, d_r = log(T_cell,r) - log(T_base,r), where T is the sum over the
    inputs that both sides have of the input's mean e2e time. The ratio is exp(mean of d_r), and its
    95% interval is Student's t on d_r. Latency and time per sample enter as one value per trial,
    see `Readings.judged`.

    Args:
        samples: As `load` returns them, or their readings.

    Returns:
        One row per real cell that is not a baseline: `GROUP`; `ratio`; `ratio_low` and `ratio_high`
        (null with fewer than two pairs); `ratio_replicates` (number of pairs); `ratio_dropped`
        (replicates that only one side has, or without a common input); `ratio_logs` (the d_r) and
        `ratio_of` (their r), in the order of replicates.
    """
    return to_baseline(judged(samples))


def to_baseline(logs: pl.DataFrame) -> pl.DataFrame:
    """Return the ratio of each cell to its baseline, from logarithms as `Readings.logs` has them.

    See `ratio_to_bare_metal` for the columns.
    """
    return _paired(logs.filter(~BASELINE), logs.filter(BASELINE), SUBJECT)


def without_suspects(samples: pl.DataFrame | Readings) -> pl.DataFrame:
    """Return ratios to bare metal from all trials and from those that are not suspect.

    Returns:
        One row per cell whose pairs include a suspect trial: `GROUP`, and `ratio`, `ratio_low`,
        `ratio_high`, `ratio_replicates`, each with the prefixes `all_` and `clean_`.
    """
    unsuspected = pl.col("suspicions").list.len() == 0
    means = readings(samples)
    every, clean = (to_baseline(judged(kept)) for kept in (means, means.filter(unsuspected)))
    values = ["ratio", "ratio_low", "ratio_high", "ratio_replicates"]
    both = every.select(*GROUP, *(pl.col(v).alias(f"all_{v}") for v in values)).join(
        clean.select(*GROUP, *(pl.col(v).alias(f"clean_{v}") for v in values)), on=GROUP, how="left"
    )
    fewer = pl.col("clean_ratio_replicates").fill_null(0) < pl.col("all_ratio_replicates")
    return in_order(both.with_columns(pl.col("clean_ratio_replicates").fill_null(0)).filter(fewer))


def vanilla_to_pinned(samples: pl.DataFrame | Readings) -> pl.DataFrame:
    """Return the ratio of the judged time of vanilla to pinned, one row per platform and size.

    Paired as `ratio_to_bare_metal`. Only cells that were measured in both modes have a row.
    """
    logs = judged(samples).filter(PLAIN_ROWS)
    vanilla, pinned = (logs.filter(pl.col("mode") == mode) for mode in ("vanilla", "pinned"))
    paired = _paired(vanilla, pinned, ["platform", *SUBJECT])
    return in_order(paired.filter(pl.col("ratio").is_not_null()))


def thread_policy_gain(samples: pl.DataFrame | Readings) -> pl.DataFrame:
    """Return the ratio of the judged time with the framework's threads to that with matched ones.

    Above 1: matching the number of threads to the cores pays. Paired as `ratio_to_bare_metal`, one
    row per cell that was measured under both policies; `thread_policy` is the numerator's.
    """
    return _gain(samples, "thread_policy", ("default", "matched"), "e2e")


def gpu_speed_up(samples: pl.DataFrame | Readings, phase: str = "e2e") -> pl.DataFrame:
    """Return the ratio of a phase's time on the CPU to that on the GPU.

    Paired as `ratio_to_bare_metal`. "e2e" takes the time that the scenario is judged by. A speed-up
    of "infer" above that of "e2e" shows the share of a request that the GPU does not speed up.
    """
    return _gain(samples, "processor", ("cpu", "gpu"), phase)


def guest_factor(samples: pl.DataFrame | Readings, factor: Factor) -> pl.DataFrame:
    """Return the ratio of the judged time with a factor's default to that with another value.

    Paired as `ratio_to_bare_metal`, one row per cell and other value that was measured besides the
    default; the factor's column has the other value.
    """
    return _inverse(over_default(samples, factor))


def over_default(samples: pl.DataFrame | Readings, factor: Factor) -> pl.DataFrame:
    """Return the ratio of the judged time with another value of a factor to that with its default.

    Paired as `ratio_to_bare_metal`, within one platform, mode and size; one row per cell and other
    value that was measured besides the default.
    """
    logs = judged(samples)
    default = pl.col(factor.name) == factor.default
    match = [column for column in CELL if column != factor.name]
    paired = _paired(logs.filter(~default), logs.filter(default), match)
    return in_order(paired.filter(pl.col("ratio").is_not_null()))


def _inverse(ratios: pl.DataFrame) -> pl.DataFrame:
    """Return the reciprocals of ratios, with their intervals and logarithms."""
    return ratios.with_columns(
        (1 / pl.col("ratio")).alias("ratio"),
        (1 / pl.col("ratio_high")).alias("ratio_low"),
        (1 / pl.col("ratio_low")).alias("ratio_high"),
        pl.col("ratio_logs").list.eval(-pl.element()),
    )


def _gain(
    samples: pl.DataFrame | Readings, key: str, sides: tuple[str, str], phase: str
) -> pl.DataFrame:
    means = readings(samples)
    logs = (means.judged if phase == "e2e" else means.logs(phase)).filter(PLAIN_ROWS)
    above, below = (logs.filter(pl.col(key) == side) for side in sides)
    match = [column for column in CELL if column != key]
    return in_order(_paired(above, below, match).filter(pl.col("ratio").is_not_null()))


def variant_to_plain(samples: pl.DataFrame | Readings) -> pl.DataFrame:
    """Return the ratio of the e2e time of twin and slowed cells to the plain cell.

    Paired by replicate and input, within one platform, mode and size. The true ratio is 1 for a
    twin and 1 + `slowdown` for a slowed one. The e2e time is used in every scenario, since the true
    growth of a queue is not known.
    """
    logs = readings(samples).logs()
    match = [column for column in CELL if column != "variant"]
    plain = pl.col("variant") == "plain"
    return in_order(_paired(logs.filter(~plain), logs.filter(plain), match))


def phases(measured: pl.DataFrame) -> pl.DataFrame:
    """Return medians and means of each phase, and percentiles of latency, per cell, in ms.

    Args:
        measured: One row per measured sample, as `steady` returns them.
    """
    summaries = [
        (getattr(pl.col(f"{phase}_ns"), kind)() / NS_PER_MS).alias(f"{phase}_{kind}_ms")
        for phase in PHASES
        for kind in ("median", "mean")
    ]
    tails = [(tail("latency_ns", p) / NS_PER_MS).alias(f"latency_p{p}_ms") for p in TAILS]
    return measured.group_by(GROUP).agg(
        pl.col("bare").first(),
        pl.col("accelerator").first(),
        pl.col("replicate").n_unique().alias("replicates"),
        pl.len().alias("samples"),
        *summaries,
        *tails,
    )


def samples_to_show(percentile: int) -> int:
    """Return the least number of samples of which one lies beyond a percentile.

    With fewer, the percentile would always be the maximum.

    Example:
        >>> samples_to_show(90), samples_to_show(99)
        (10, 100)
    """
    return -(-100 // (100 - percentile))


def tail(column: str, percentile: int) -> pl.Expr:
    """Return a percentile of a column, by nearest rank (`percentile_rank`), without interpolation.

    Nulls are ignored. The result is null with fewer values than `samples_to_show`.
    """
    known = pl.col(column).drop_nulls()
    n = known.len().cast(pl.Int64)
    enough = n >= samples_to_show(percentile)
    return pl.when(enough).then(at_rank(known, percentile_rank(percentile, n)))


def at_rank(values: pl.Expr, rank: pl.Expr) -> pl.Expr:
    """Return the order statistic of a rank, from 1; null if there is none."""
    return values.sort().slice(rank - 1, 1).first()


def _paired(above: pl.DataFrame, below: pl.DataFrame, match: list[str]) -> pl.DataFrame:
    """Return the ratio of each cell of `above` to the cell of `below` with the same `match`.

    Args:
        above: Logarithms of the numerators, as `Readings.logs` has them.
        below: Logarithms of the denominators.
        match: The columns on which both must agree, besides `weights`.
    """
    match = [*match, "weights"]
    places = [GROUP.index(name) for name in match]
    theirs, rows = by_cell(below, match), []
    for key, ours in by_cell(above, GROUP).items():
        rows.append((*key, *_ratio(ours, theirs.get(tuple(key[place] for place in places)))))
    schema = {name: above.schema[name] for name in GROUP}
    return pl.DataFrame(rows, schema={**schema, **_RATIO}, orient="row")


def _ratio(above: Logs, below: Logs | None) -> tuple[Any, ...]:
    """Return the values of the columns of `_RATIO`; no ratio if a time is 0."""
    if below is None:
        return None, None, None, 0, len(above.units), None, None
    units, (ours, theirs) = shared(above, below)
    dropped = len({*above.units, *below.units}) - len(units)
    if not units:
        return None, None, None, 0, dropped, None, None
    with np.errstate(invalid="ignore"):
        logs = ours - theirs
    ratio = effect("", [logs]) if np.isfinite(logs).all() else None
    ends = (ratio.value, ratio.low, ratio.high) if ratio else (None, None, None)
    return *ends, len(units), dropped, logs.tolist(), list(units)


_RATIO: dict[str, pl.DataType] = {
    "ratio": pl.Float64(), "ratio_low": pl.Float64(), "ratio_high": pl.Float64(),
    "ratio_replicates": pl.Int64(), "ratio_dropped": pl.Int64(),
    "ratio_logs": pl.List(pl.Float64()), "ratio_of": pl.List(pl.Int64()),
}  # fmt: skip


def geometric(per_replicate: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    """Return the geometric mean per group, exp of the mean of `log`, as `value`, and `n` (rows)."""
    return per_replicate.group_by(by, maintain_order=True).agg(
        pl.col("log").mean().exp().alias("value"), pl.len().cast(pl.Int64).alias("n")
    )


def in_order(frame: pl.DataFrame) -> pl.DataFrame:
    """Sort rows of cells in the order of a report: subject, cores, platform, mode, other factors.

    Platforms, modes and factors are `pl.Enum`, which sorts in the order of its values.
    """
    matched, defaulted = ([factor.name for factor in kept] for kept in (MATCHED, DEFAULTED))
    return frame.sort(
        "application", "scale", "scenario", *matched, "weights", "cores", "platform", "mode",
        *defaulted, maintain_order=True,
    )  # fmt: skip
