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

import numpy as np
import polars as pl

from virtbed_analysis import unlike
from virtbed_analysis.cells import BASELINE_MODE, CELL, DEFAULTED, MATCHED, PLAIN, SUBJECT
from virtbed_analysis.intervals import mean_interval
from virtbed_analysis.latency import WHOLE, judged_ns
from virtbed_analysis.platforms import METAL, PROCESS
from virtbed_contract.measures import JUDGED_BY, of_group, percentile_rank

PHASES = tuple(measure.name for measure in of_group("phase"))
TAILS = (90, 99)  # percentiles of latency
NS_PER_MS = 1e6
GROUP = [*CELL, "weights"]
"""The columns of one row of a table: seeded and trained weights are never one."""
_PLAIN = pl.all_horizontal(pl.col(name) == value for name, value in PLAIN.items())
BARE = (pl.col("machine") == METAL) & (pl.col("enclosure") == PROCESS)
"""Whether a trial ran on bare metal."""
BASELINE = pl.col("bare") & (pl.col("mode") == BASELINE_MODE) & _PLAIN
"""Whether a row, marked by `bare`, is of the cell that others are compared with."""


def cells(samples: pl.DataFrame) -> pl.DataFrame:
    """Summarise each cell that really ran on its platform: one row per cell, times in ms.

    Columns: `GROUP`, `replicates`, `samples`, `<phase>_median_ms` and `<phase>_mean_ms` over all
    measured samples, `latency_p90_ms` and `latency_p99_ms` (null in offline, and with fewer
    latencies than show one beyond it: see `samples_to_show`), `<phase>_typical_ms` (mean over
    inputs, geometric mean over replicates), `judged_by` (the name of the measure that the scenario
    is judged by), `judged_typical_ms` (the time of it: latency, or time per sample), `baseline`,
    the ratio's columns (see `ratio_to_bare_metal`), null for the baseline itself.
    """
    real = steady(samples)
    names = {scenario: measure.name for scenario, measure in JUDGED_BY.items()}
    told = judged(real).group_by(*GROUP, "replicate", maintain_order=True).agg(log_mean("log"))
    summary = phases(real).join(typical(told, "judged"), on=GROUP)
    summary = summary.with_columns(
        pl.col("scenario").cast(pl.String).replace_strict(names).alias("judged_by")
    )
    for phase in PHASES:
        logs = input_logs(real, phase).group_by(*GROUP, "replicate", maintain_order=True)
        summary = summary.join(typical(logs.agg(log_mean("log")), phase), on=GROUP)
    return in_order(
        summary.with_columns(BASELINE.alias("baseline"))
        .drop("bare")
        .join(ratio_to_bare_metal(samples), on=GROUP, how="left")
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


def ratio_to_bare_metal(samples: pl.DataFrame) -> pl.DataFrame:
    """Return a cell's time over that of pinned bare metal at the same cores, application, factors.

    The time is the one that the scenario is judged by (`JUDGED_BY`), so that above 1 is worse in
    all: e2e, as follows; latency or time per sample as `judged` has them. For each replicate r, d_r
    is the logarithm of the sum over inputs of the input's mean e2e in the cell, less that in the
    baseline, over the inputs that both have; the ratio is exp(mean of d_r), its interval Student's
    t on d_r. Both sides have the same weights. Columns: `GROUP`, `ratio`, `ratio_low`,
    `ratio_high` (null with fewer than two replicates), `ratio_replicates` (pairs
    used), `ratio_dropped` (replicates that only one side has, or that share no input), and
    `ratio_logs` (each d_r) with `ratio_of` (its r), in the order of the replicates. Emulated cells
    and the baseline itself have no row.
    """
    return to_baseline(judged(steady(samples)))


def to_baseline(logs: pl.DataFrame) -> pl.DataFrame:
    """Return the ratio of each cell of `logs`, as `input_logs` has them, to its baseline."""
    return _paired(logs.filter(~BASELINE), logs.filter(BASELINE), SUBJECT)


def without_suspects(samples: pl.DataFrame) -> pl.DataFrame:
    """Return the ratios to bare metal that are left without suspect trials, beside those of all.

    Columns: `GROUP`, `all_`, and `clean_` each before `ratio`, `ratio_low`, `ratio_high` and
    `ratio_replicates`; only cells whose pairs include a suspect trial have a row.
    """
    unsuspected = pl.col("suspicions").list.len() == 0
    every, clean = (
        to_baseline(judged(steady(kept))) for kept in (samples, samples.filter(unsuspected))
    )
    values = ["ratio", "ratio_low", "ratio_high", "ratio_replicates"]
    both = every.select(*GROUP, *(pl.col(v).alias(f"all_{v}") for v in values)).join(
        clean.select(*GROUP, *(pl.col(v).alias(f"clean_{v}") for v in values)), on=GROUP, how="left"
    )
    fewer = pl.col("clean_ratio_replicates").fill_null(0) < pl.col("all_ratio_replicates")
    return in_order(both.with_columns(pl.col("clean_ratio_replicates").fill_null(0)).filter(fewer))


def vanilla_to_pinned(samples: pl.DataFrame) -> pl.DataFrame:
    """Return the judged time of vanilla over pinned, per platform and size.

    Paired as `ratio_to_bare_metal`. Only platforms that have both modes at a size get a row.
    """
    logs = judged(steady(samples).filter(_PLAIN))
    vanilla, pinned = (logs.filter(pl.col("mode") == mode) for mode in ("vanilla", "pinned"))
    paired = _paired(vanilla, pinned, ["platform", *SUBJECT])
    return in_order(paired.filter(pl.col("ratio").is_not_null()))


def thread_policy_gain(samples: pl.DataFrame) -> pl.DataFrame:
    """Return the judged time with the framework's own threads over that with matched threads.

    Above 1 where matching them pays. Paired as `ratio_to_bare_metal`; a row for each cell that was
    measured under both policies, its `thread_policy` that of the numerator.
    """
    return _gain(samples, "thread_policy", ("default", "matched"), "e2e")


def gpu_speed_up(samples: pl.DataFrame, phase: str = "e2e") -> pl.DataFrame:
    """Return the time of a phase on the CPU over that on the GPU, paired as `ratio_to_bare_metal`.

    "e2e" stands for the whole request: the time that its scenario is judged by. Beside it, "infer"
    alone: what lies between the two is what a GPU does not speed up.
    """
    return _gain(samples, "processor", ("cpu", "gpu"), phase)


def _gain(samples: pl.DataFrame, key: str, sides: tuple[str, str], phase: str) -> pl.DataFrame:
    measured = steady(samples).filter(_PLAIN)
    logs = judged(measured) if phase == "e2e" else input_logs(measured, phase)
    above, below = (logs.filter(pl.col(key) == side) for side in sides)
    match = [column for column in CELL if column != key]
    return in_order(_paired(above, below, match).filter(pl.col("ratio").is_not_null()))


def variant_to_plain(samples: pl.DataFrame) -> pl.DataFrame:
    """Return e2e of twin and slowed over plain of the same platform, mode and size.

    Paired by replicate and input; the truth is 1 for a twin, and 1 + `slowdown` for a slowed one.
    Of e2e in every scenario: what a slower request makes of a queue is no known truth.
    """
    logs = input_logs(steady(samples))
    return in_order(
        _paired(logs.filter(~_PLAIN), logs.filter(_PLAIN), ["platform", "mode", *SUBJECT])
    )


def steady(samples: pl.DataFrame, emulated: bool = False) -> pl.DataFrame:
    """Return the measured samples of real trials, or of emulated ones; `bare` marks bare metal.

    Raises:
        AnalysisError: they are of several hosts or sweeps, whose replicates are no pairs.
    """
    unlike.refuse_pooled(samples)
    kept = samples.filter(~pl.col("warmup"), pl.col("emulated") == emulated)
    if "weights" not in kept.columns:  # a frame of the caller's own: all alike
        kept = kept.with_columns(weights=pl.lit(""))
    return kept.with_columns(BARE.alias("bare"))


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


def input_logs(measured: pl.DataFrame, phase: str = "e2e") -> pl.DataFrame:
    """Return `log`, the logarithm of a phase's mean in ns, per row, replicate and input.

    `measured` is what `steady` gives; `bare` stays a column.
    """
    # Sorted, here and after joins: sums in one order make two runs agree to the last digit.
    return (
        measured.group_by(*GROUP, "bare", "replicate", "input")
        .agg(pl.col(f"{phase}_ns").mean().log().alias("log"))
        .sort(*GROUP, "replicate", "input")
    )


def judged(measured: pl.DataFrame) -> pl.DataFrame:
    """Return what `input_logs` has, of the time that each scenario is judged by.

    Latency and throughput belong to no input: a trial's is one value, of an input without a name.
    Elsewhere it is the request's own time, input by input.
    """
    whole = pl.col("scenario").is_in(WHOLE)
    own = input_logs(measured.filter(~whole))
    if not (rest := measured.filter(whole)).height:
        return own
    trials = by_replicate(rest, judged_ns())
    rows = pl.concat([own, trials.select(own.columns).cast({"input": own.schema["input"]})])
    return rows.sort(*GROUP, "replicate", "input")


def by_replicate(measured: pl.DataFrame, value: pl.Expr) -> pl.DataFrame:
    """Return the `log` of each replicate's value, as `to_baseline` takes it: of one input."""
    return (
        measured.group_by(*GROUP, "bare", "replicate", "trial")
        .agg(value.log().alias("log"))
        .group_by(*GROUP, "bare", "replicate")
        .agg(pl.col("log").mean())
        .with_columns(input=pl.lit(""))
        .sort(*GROUP, "replicate")
    )


def log_mean(name: str) -> pl.Expr:
    """Return `reduction.log_mean` of a column, for each group."""
    return pl.col(name).exp().mean().log()


def _paired(above: pl.DataFrame, below: pl.DataFrame, match: list[str]) -> pl.DataFrame:
    """Return the ratio of each cell of `above` to the cell of `below` that agrees on `match`."""
    match = [*match, "weights"]
    pairs = above.join(
        below.select(*match, "replicate", "input", pl.col("log").alias("below")),
        on=[*match, "replicate", "input"],
    ).sort(*GROUP, "replicate", "input")
    differences = pairs.group_by(*GROUP, "replicate", maintain_order=True).agg(
        (log_mean("log") - log_mean("below")).alias("log")
    )
    targets = above.select(GROUP).unique()
    below_replicates = below.select(*match, "replicate").unique()
    either = pl.concat(
        [
            above.select(*GROUP, "replicate"),
            targets.join(below_replicates, on=match).select(*GROUP, "replicate"),
        ]
    ).unique()
    seen = either.group_by(GROUP).agg(pl.len().cast(pl.Int64).alias("seen"))
    used = pl.col("n").fill_null(0)
    each = differences.group_by(GROUP, maintain_order=True).agg(
        pl.col("log").alias("ratio_logs"), pl.col("replicate").alias("ratio_of")
    )
    ratios = geometric(differences, GROUP).join(each, on=GROUP)
    return seen.join(ratios, on=GROUP, how="left").select(
        *GROUP,
        pl.col("value").alias("ratio"),
        pl.col("low").alias("ratio_low"),
        pl.col("high").alias("ratio_high"),
        used.alias("ratio_replicates"),
        (pl.col("seen") - used).alias("ratio_dropped"),
        "ratio_logs",
        "ratio_of",
    )


def geometric(per_replicate: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    """Return exp of the mean `log` per group as `value`, its interval `low`, `high`, and `n`."""
    groups = per_replicate.group_by(by, maintain_order=True).agg(
        pl.col("log").mean().alias("mean"),
        pl.col("log").std(ddof=1).alias("deviation"),
        pl.len().cast(pl.Int64).alias("n"),
    )
    low, high = mean_interval(
        groups["mean"].to_numpy(),
        groups["deviation"].cast(pl.Float64).fill_null(float("nan")).to_numpy(),
        groups["n"].to_numpy(),
    )
    return groups.select(
        *by,
        pl.col("mean").exp().alias("value"),
        pl.Series("low", np.exp(low)).fill_nan(None),
        pl.Series("high", np.exp(high)).fill_nan(None),
        "n",
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
