"""Timings to medians, ratios and intervals.

The replication unit is the trial: a fresh process on a fresh instance. Samples inside one trial
share its memory layout, placement and neighbours, so they say little about the next trial; an
interval made of pooled samples would be far too narrow (Kalibera and Jones, "Rigorous
Benchmarking in Reasonable Time", ISMM 2013, doi:10.1145/2464157.2464160). Each trial is reduced
to one logarithm, and the spread between replicates gives the interval.

That interval is Student's t on those logarithms. A percentile bootstrap of as few as five
replicates covers clearly less than it claims, and a t interval does better there (Hesterberg,
"What Teachers Should Know About the Bootstrap", The American Statistician 69, 2015, pp. 371-386,
arXiv 1411.5279). The inputs are fixed, the same on every platform, and so are not resampled: the
estimate is about these inputs: the time of their mix, each once (see `reduction`).

Within a trial an input's samples are reduced by their mean, not their median: a CPU quota stops a
process for part of each period, so it makes some requests much later and leaves the rest as they
were. A median would not see what the mean, and the user's throughput, pays.
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

# Those of `reduction` are for whoever estimates.
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
    """Summarise each cell that really ran on its platform: one row per cell, times in ms.

    Columns: `GROUP`, `replicates`, `samples`, `<phase>_median_ms` and `<phase>_mean_ms` over all
    measured samples, `latency_p90_ms` and `latency_p99_ms` (null in offline, and with fewer
    latencies than show one beyond it: see `samples_to_show`), `<phase>_typical_ms` (mean over
    inputs, geometric mean over replicates), `judged_by` (the name of the measure that the scenario
    is judged by), `judged_typical_ms` (the time of it: latency, or time per sample), `baseline`,
    the ratio's columns (see `ratio_to_bare_metal`), null for the baseline itself.
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
    """Return exp of the mean `log` (of ns) per cell in ms; null for no time.

    Without an interval: a host drifts over a sweep, trials of one cell drift with it, and an
    interval of their spread covers 60 to 83% instead of 95%. Too few replicates tell how long a
    drift lasts, so no variance of theirs would know it. Ratios are paired, and keep theirs.
    """
    known = pl.col("value") > 0  # else something took no time, whose logarithm is none
    value = pl.when(known).then(pl.col("value") / NS_PER_MS)
    return geometric(per_replicate, GROUP).select(*GROUP, value.alias(f"{name}_typical_ms"))


def ratio_to_bare_metal(samples: pl.DataFrame | Readings) -> pl.DataFrame:
    """Return a cell's time over that of pinned bare metal at the same cores, application, factors.

    The time is the one that the scenario is judged by (`JUDGED_BY`), so that above 1 is worse in
    all: e2e, as follows; latency or time per sample as `Readings.judged` has them. For each
    replicate r, d_r is the logarithm of the sum over inputs of the input's mean e2e in the cell,
    less that in the baseline, over the inputs that both have; the ratio is exp(mean of d_r), its
    interval Student's t on d_r. Both sides have the same weights. Columns: `GROUP`, `ratio`,
    `ratio_low`, `ratio_high` (null with fewer than two replicates), `ratio_replicates` (pairs
    used), `ratio_dropped` (replicates that only one side has, or that share no input), and
    `ratio_logs` (each d_r) with `ratio_of` (its r), in the order of the replicates. Emulated cells
    and the baseline itself have no row.
    """
    return to_baseline(judged(samples))


def to_baseline(logs: pl.DataFrame) -> pl.DataFrame:
    """Return the ratio of each cell of `logs`, as `Readings.logs` has them, to its baseline."""
    return _paired(logs.filter(~BASELINE), logs.filter(BASELINE), SUBJECT)


def without_suspects(samples: pl.DataFrame | Readings) -> pl.DataFrame:
    """Return the ratios to bare metal that are left without suspect trials, next to those of all.

    Columns: `GROUP`, `all_`, and `clean_` each before `ratio`, `ratio_low`, `ratio_high` and
    `ratio_replicates`; only cells whose pairs include a suspect trial have a row.
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
    """Return the judged time of vanilla over pinned, per platform and size.

    Paired as `ratio_to_bare_metal`. Only platforms that have both modes at a size get a row.
    """
    logs = judged(samples).filter(PLAIN_ROWS)
    vanilla, pinned = (logs.filter(pl.col("mode") == mode) for mode in ("vanilla", "pinned"))
    paired = _paired(vanilla, pinned, ["platform", *SUBJECT])
    return in_order(paired.filter(pl.col("ratio").is_not_null()))


def thread_policy_gain(samples: pl.DataFrame | Readings) -> pl.DataFrame:
    """Return the judged time with the framework's own threads over that with matched threads.

    Above 1 where matching them pays. Paired as `ratio_to_bare_metal`; a row for each cell that was
    measured under both policies, its `thread_policy` that of the numerator.
    """
    return _gain(samples, "thread_policy", ("default", "matched"), "e2e")


def gpu_speed_up(samples: pl.DataFrame | Readings, phase: str = "e2e") -> pl.DataFrame:
    """Return the time of a phase on the CPU over that on the GPU, paired as `ratio_to_bare_metal`.

    "e2e" stands for the whole request: the time that its scenario is judged by. Next to it, "infer"
    alone: what lies between the two is what a GPU does not speed up.
    """
    return _gain(samples, "processor", ("cpu", "gpu"), phase)


def guest_factor(samples: pl.DataFrame | Readings, factor: Factor) -> pl.DataFrame:
    """Return the judged time of guests with a factor's default over that with another value.

    Paired as `ratio_to_bare_metal`; a row for each cell and value that was measured next to the
    default, with the cell's columns as those of that value.
    """
    return _inverse(over_default(samples, factor))


def over_default(samples: pl.DataFrame | Readings, factor: Factor) -> pl.DataFrame:
    """Return the judged time of cells with a factor's other values over that with its default.

    Paired as `ratio_to_bare_metal`, within one platform, mode and size; a row for each cell and
    value that was measured next to the default.
    """
    logs = judged(samples)
    default = pl.col(factor.name) == factor.default
    match = [column for column in CELL if column != factor.name]
    paired = _paired(logs.filter(~default), logs.filter(default), match)
    return in_order(paired.filter(pl.col("ratio").is_not_null()))


def _inverse(ratios: pl.DataFrame) -> pl.DataFrame:
    """Return ratios the other way round."""
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
    """Return e2e of twin and slowed over plain of the same platform, mode and size.

    Paired by replicate and input; the truth is 1 for a twin, and 1 + `slowdown` for a slowed one.
    Of e2e in every scenario: what a slower request makes of a queue is no known truth.
    """
    logs = readings(samples).logs()
    match = [column for column in CELL if column != "variant"]
    plain = pl.col("variant") == "plain"
    return in_order(_paired(logs.filter(~plain), logs.filter(plain), match))


def phases(measured: pl.DataFrame) -> pl.DataFrame:
    """Return medians, means and percentiles of each cell, in ms."""
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
    """Return how many samples it takes for one to lie beyond a percentile: 10 for the 90th.

    Of fewer, the largest is all that could stand for it.
    """
    return -(-100 // (100 - percentile))


def tail(column: str, percentile: int) -> pl.Expr:
    """Return a percentile of a group, a value that was measured; null with too few of them.

    Nulls are no values. See `percentile_rank` for which value it is.
    """
    known = pl.col(column).drop_nulls()
    n = known.len().cast(pl.Int64)
    enough = n >= samples_to_show(percentile)
    return pl.when(enough).then(at_rank(known, percentile_rank(percentile, n)))


def at_rank(values: pl.Expr, rank: pl.Expr) -> pl.Expr:
    """Return the value of a group that has this rank among the sorted, from 1; null if none."""
    return values.sort().slice(rank - 1, 1).first()


def _paired(above: pl.DataFrame, below: pl.DataFrame, match: list[str]) -> pl.DataFrame:
    """Return the ratio of each cell of `above` to the cell of `below` that agrees on `match`."""
    match = [*match, "weights"]
    places = [GROUP.index(name) for name in match]
    theirs, rows = by_cell(below, match), []
    for key, ours in by_cell(above, GROUP).items():
        rows.append((*key, *_ratio(ours, theirs.get(tuple(key[place] for place in places)))))
    schema = {name: above.schema[name] for name in GROUP}
    return pl.DataFrame(rows, schema={**schema, **_RATIO}, orient="row")


def _ratio(above: Logs, below: Logs | None) -> tuple[Any, ...]:
    """Return the values of the columns of `_RATIO`; one of no time at all has no ratio."""
    if below is None:
        return None, None, None, 0, len(above.units), None, None
    units, (ours, theirs) = shared(above, below)
    dropped = len({*above.units, *below.units}) - len(units)
    if not units:
        return None, None, None, 0, dropped, None, None
    with np.errstate(invalid="ignore"):
        logs = ours - theirs
    found = effect("", [logs]) if np.isfinite(logs).all() else None
    ends = (found.value, found.low, found.high) if found else (None, None, None)
    return *ends, len(units), dropped, logs.tolist(), list(units)


_RATIO: dict[str, pl.DataType] = {
    "ratio": pl.Float64(), "ratio_low": pl.Float64(), "ratio_high": pl.Float64(),
    "ratio_replicates": pl.Int64(), "ratio_dropped": pl.Int64(),
    "ratio_logs": pl.List(pl.Float64()), "ratio_of": pl.List(pl.Int64()),
}  # fmt: skip


def geometric(per_replicate: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    """Return exp of the mean `log` per group as `value`, and `n`."""
    return per_replicate.group_by(by, maintain_order=True).agg(
        pl.col("log").mean().exp().alias("value"), pl.len().cast(pl.Int64).alias("n")
    )


def in_order(frame: pl.DataFrame) -> pl.DataFrame:
    """Sort cells as a report lists them: by subject and size, then platform and mode.

    Platforms, modes and factors are enumerations, which sort in the order of their values.
    """
    matched, defaulted = ([factor.name for factor in kept] for kept in (MATCHED, DEFAULTED))
    return frame.sort(
        "application", "scale", "scenario", *matched, "weights", "cores", "platform", "mode",
        *defaulted, maintain_order=True,
    )  # fmt: skip
