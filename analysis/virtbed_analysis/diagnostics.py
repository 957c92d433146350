"""How a sweep behaved as an experiment: its course over time, and where its spread comes from.

A trial is reduced to one logarithm, of the time that its scenario is judged by: the mean over
inputs of the input's mean e2e, the mean latency, or the time per sample; its deviation is that less
the mean of its cell on its host. Drift is judged on the means of whole replicates, each of which
has every cell: trials that follow each other are no independent observations, replicates are nearly
so.

Variance components are by analysis of variance (method of moments, as Kalibera and Jones,
"Rigorous Benchmarking in Reasonable Time", ISMM 2013, doi:10.1145/2464157.2464160): between the
samples of one input in a trial (squared coefficient of variation), between the instances of a cell
beyond what those samples explain, and between replicates, common to all platforms, which pairing
removes from ratios.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from virtbed_analysis import samples_per_trial, words
from virtbed_analysis.estimate import in_order
from virtbed_analysis.intervals import CONFIDENCE, NO_SPREAD, t_quantile
from virtbed_analysis.latency import WHOLE
from virtbed_analysis.reduction import GROUP, PLAIN_ROWS, Readings, readings
from virtbed_analysis.samples_per_trial import ENOUGH, epoch

Json = dict[str, Any]
MOST_POINTS = 1000
"""With more trials than this, the run order has the mean of several neighbours in a row."""
_CURVE = [column for column in GROUP if column != "cores"]


def of_trials(samples: pl.DataFrame | Readings) -> pl.DataFrame:
    """Return one row per real trial, in the order in which they ran.

    Columns: `trial`, `host`, `GROUP`, `replicate`, `position`, `started_at`, `suspicions`, `log`
    (of ns), `deviation` (null for the only trial of its cell), `samples`, `inputs`, `within`
    (squared coefficient of variation of an input's samples, null where each input has one, and
    where a scenario is judged by whole trials: requests of a queue are no independent samples),
    `freedom` (its degrees of freedom), `inner` (variance that these leave in `log`) and
    `measured_s`.
    """
    means = readings(samples)
    share = (pl.col("e2e_var") / pl.col("mean") ** 2).fill_null(0.0)
    inputs = means.totals.with_columns((pl.col("e2e_ns") / pl.col("n")).alias("mean"))
    freedom = pl.col("n").cast(pl.Int64).sum() - pl.len().cast(pl.Int64)
    spread = (share * (pl.col("n").cast(pl.Float64) - 1)).sum() / freedom
    # Of the logarithm of a sum over inputs: one that takes long weighs more. An input of a single
    # sample is taken to vary as the others do.
    known = pl.when(pl.col("n") > 1).then("e2e_var").otherwise(spread * pl.col("mean") ** 2)
    left = (known / pl.col("n")).sum() / pl.col("mean").sum() ** 2
    trials = inputs.group_by("trial", maintain_order=True).agg(
        pl.col("n").sum().cast(pl.Int64).alias("samples"),
        pl.len().cast(pl.Int64).alias("inputs"),
        freedom.alias("freedom"),
        pl.when(freedom > 0).then(spread).alias("within"),
        pl.when(freedom > 0).then(left).alias("inner"),
        ((pl.col("mean") * pl.col("n")).sum() / 1e9).alias("measured_s"),
    )
    about = means.totals.select(
        "trial", "host", *GROUP, "replicate", "position", "started_at", "suspicions"
    ).unique("trial")
    cell, whole = ["host", *GROUP], pl.col("scenario").is_in(WHOLE)
    deviation = pl.col("log") - pl.col("log").mean().over(cell)
    return (
        trials.join(about, on="trial", maintain_order="left")
        .join(means.trials, on="trial", maintain_order="left")
        .with_columns(
            pl.when(whole).then(None).otherwise(pl.col("within")).alias("within"),
            pl.when(whole).then(0).otherwise(pl.col("freedom")).alias("freedom"),
        )
        .with_columns(
            pl.when(whole).then(0.0).otherwise(pl.col("inner")).alias("inner"),
            pl.when(pl.len().over(cell) > 1).then(deviation).alias("deviation"),
        )
        .sort("host", "started_at", "position", "trial")
    )


def of_sweep(samples: pl.DataFrame, trials: pl.DataFrame, ran: pl.DataFrame | None = None) -> Json:
    """Return the report's part on the design: `run_order`, `drift`, `components`, `samples`.

    Args:
        samples: As `frames.Sweep` has them.
        trials: Likewise.
        ran: What `of_trials` makes of them, if that is there already.
    """
    ran = of_trials(samples) if ran is None else ran
    return {
        "run_order": _run_order(ran),
        "drift": [_drift(host, rows) for host, rows in _by_host(ran)],
        "components": _components(ran),
        "samples": samples_per_trial.rows(ran, samples_per_trial.setup_s(trials, samples)),
    }


def _by_host(ran: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    for host in sorted(ran["host"].unique().to_list()):
        yield host, ran.filter(pl.col("host") == host, pl.col("deviation").is_not_null())


def _run_order(ran: pl.DataFrame) -> list[Json]:
    """Return the points of the run-order plot, by host: each a trial, or several in a row.

    Fields: `host`, `first` and `last` (places in the order, from 1), `platform` and `mode` (None
    for several), `deviation` (a logarithm), `suspect` (how many are).
    """
    points = []
    for host, rows in _by_host(ran):
        together = math.ceil(rows.height / MOST_POINTS) or 1
        for start in range(0, rows.height, together):
            part = rows.slice(start, together)
            one = part.height == 1
            points.append(
                {
                    "host": host,
                    "first": start + 1,
                    "last": start + part.height,
                    "platform": part["platform"][0] if one else None,
                    "mode": part["mode"][0] if one else None,
                    "deviation": part["deviation"].mean(),
                    "suspect": int((part["suspicions"].list.len() > 0).sum()),
                }
            )
    return points


def _drift(host: str, rows: pl.DataFrame) -> Json:
    """Return the course of one host: its replicates, slope per hour, and likeness of neighbours."""
    timed = rows.with_columns(hours=pl.Series(_hours(rows["started_at"].to_list())))
    means = (
        timed.group_by("replicate", maintain_order=True)
        .agg(pl.col("hours").mean(), pl.col("deviation").mean(), pl.len().alias("trials"))
        .sort("replicate")
    )
    hours, values = means["hours"].to_numpy(), means["deviation"].to_numpy()
    found: Json = dict.fromkeys(("slope", "low", "high", "span", "alike", "alike_by_chance"))
    known = len(values) >= ENOUGH and np.isfinite(hours).all()
    if known and np.ptp(hours) > 0 and np.ptp(values) > NO_SPREAD:
        fit = stats.linregress(hours, values)
        half = t_quantile(CONFIDENCE, len(values) - 2) * float(fit.stderr)
        slope = float(fit.slope)
        found |= {"slope": slope, "low": slope - half, "high": slope + half}
        found["span"] = float(np.ptp(hours))
    series = timed["deviation"].to_numpy()
    if len(series) > 10 and float(series @ series) > 0:
        found["alike"] = float(series[1:] @ series[:-1]) / float(series @ series)
        found["alike_by_chance"] = 2 / math.sqrt(len(series))
    replicates = means.rename({"deviation": "mean"}).to_dicts()
    return {"host": host, "replicates": replicates, **found, "sentence": _course(found)}


def _course(found: Json) -> str:
    if found["slope"] is None:
        said = (
            f"Whether the host drifted is not known: a slope takes {ENOUGH} replicates with starts "
            "of their own."
        )
    else:
        low, high = (found[end] * found["span"] for end in ("low", "high"))
        if low > 0 or high < 0:
            faster = "slower" if low > 0 else "faster"
            least, most = sorted(abs(math.expm1(end)) for end in (low, high))
            said = f"The host drifted: requests became {least:.1%} to {most:.1%} {faster}"
        else:
            said = f"No steady drift is seen: {math.expm1(low):+.1%} to {math.expm1(high):+.1%}"
        said += f" from the first replicate to the last ({words.duration(found['span'])})."
    if found["alike"] is not None and found["alike"] > found["alike_by_chance"]:
        said += (
            f" Trials that follow each other are alike (correlation {found['alike']:.2f}, by "
            f"chance up to {found['alike_by_chance']:.2f}): the host wanders within replicates."
        )
    return said


def _hours(starts: list[str]) -> list[float | None]:
    """Return hours since the earliest; null where a time cannot be read."""
    seconds = [epoch(start) for start in starts]
    first = min((s for s in seconds if s is not None), default=0.0)
    return [None if s is None else (s - first) / 3600 for s in seconds]


def _components(ran: pl.DataFrame) -> list[Json]:
    """Return the spread of each platform and mode, over all of its sizes.

    Standard deviations of logarithms: `within` a trial, `between` instances beyond that (time
    included), `icc` (the share of the variance of a single sample that is the instance's), and the
    `freedom` of `between`.
    """
    cell = ["host", *GROUP]
    cells = ran.filter(PLAIN_ROWS).group_by(cell, maintain_order=True).agg(
        pl.col("log").var(ddof=1).alias("var"),
        pl.col("inner").mean(),
        pl.len().cast(pl.Int64).alias("trials"),
        (pl.col("within") * pl.col("freedom")).sum().alias("squares"),
        pl.col("freedom").sum(),
    )  # fmt: skip
    free = pl.col("trials") - 1
    rows = in_order(
        cells.sort(cell)
        .group_by(_CURVE, maintain_order=True)
        .agg(
            (pl.col("squares").sum() / pl.col("freedom").sum()).alias("within"),
            ((pl.col("var") * free).sum() / free.sum()).alias("var"),
            pl.col("inner").mean(),
            pl.col("trials").sum(),
            free.sum().alias("freedom"),
        )
        .with_columns(cores=pl.lit(0))
    ).drop("cores")
    return [_split(row) for row in rows.to_dicts()]


def _split(row: Json) -> Json:
    within, inner = row.pop("within"), row.pop("inner")
    if within is not None and math.isnan(within):  # 0 / 0: no input has two samples that tell
        within = None
    var = row.pop("var")
    known = row["freedom"] > 0 and var is not None and inner is not None
    between = max(0.0, var - inner) if known else None
    whole = None if between is None or within is None else between + within
    return {
        **row,
        "within": None if within is None else math.sqrt(within),
        "between": None if between is None else math.sqrt(between),
        "icc": between / whole if whole else None,
    }
