"""Diagnostics of a sweep as an experiment: run order, drift, and variance components.

A trial is reduced to one logarithm of the time that its scenario is judged by: the mean over inputs
of the input's mean e2e time, the mean latency, or the time per sample. Its deviation is that
logarithm minus the mean of its cell on its host.

Drift is tested on the means of replicates, each of which has every cell: consecutive trials are
autocorrelated, replicates are nearly independent.

Variance components are estimated by analysis of variance (method of moments, as in Kalibera and
Jones, "Rigorous Benchmarking in Reasonable Time", ISMM 2013, doi:10.1145/2464157.2464160): within
trials (between samples of one input, as a squared coefficient of variation), between instances of a
cell beyond what those samples explain, and between replicates (common to all platforms, so pairing
removes it from ratios).
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
"""The most points of a run-order plot per host; with more trials, a point is a mean of several."""
_CURVE = [column for column in GROUP if column != "cores"]


def of_trials(samples: pl.DataFrame | Readings) -> pl.DataFrame:
    """Return one row per real trial, in the order in which they ran.

    Args:
        samples: As `load` returns them, or their readings.

    Returns:
        Columns: `trial`, `host`, `GROUP`, `replicate`, `position`, `started_at`, `suspicions`;
        `log` (logarithm of the judged time in ns); `deviation` (`log` minus the mean of its cell on
        its host; null for the only trial of a cell); `samples` and `inputs` (their numbers);
        `within` (squared coefficient of variation of an input's samples, pooled over inputs; null
        if each input has one sample, and in scenarios judged by whole trials, whose queued requests
        are not independent); `freedom` (degrees of freedom of `within`); `inner` (variance of `log`
        due to its samples, by the delta method); `measured_s` (time in measured requests).
    """
    means = readings(samples)
    share = (pl.col("e2e_var") / pl.col("mean") ** 2).fill_null(0.0)
    inputs = means.totals.with_columns((pl.col("e2e_ns") / pl.col("n")).alias("mean"))
    freedom = pl.col("n").cast(pl.Int64).sum() - pl.len().cast(pl.Int64)
    spread = (share * (pl.col("n").cast(pl.Float64) - 1)).sum() / freedom
    # Delta method for the logarithm of a sum over inputs, so a long input weighs more. An input
    # with a single sample is assumed to vary as the others do.
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
        samples: `frames.Sweep.samples`, one row per sample.
        trials: `frames.Sweep.trials`, one row per trial.
        ran: The result of `of_trials(samples)`; computed if None.
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
    """Return the points of the run-order plot, each one trial or the mean of consecutive trials.

    Fields: `host`, `first` and `last` (places in the host's order, from 1), `platform` and `mode`
    (None for several trials), `deviation` (logarithm), `suspect` (number of suspect trials).
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
    """Return the drift of one host.

    Fields: `replicates` (mean deviation and time per replicate); `slope`, `low`, `high` (ordinary
    least squares of those means on hours, per hour, with its 95% interval), `span` (hours); `alike`
    (lag-1 autocorrelation of the trials' deviations) and `alike_by_chance` (2 / sqrt(n), the usual
    95% bound for white noise); `sentence`. Values that cannot be estimated are None.
    """
    timed = rows.with_columns(hours=pl.Series(_hours(rows["started_at"].to_list())))
    means = (
        timed.group_by("replicate", maintain_order=True)
        .agg(pl.col("hours").mean(), pl.col("deviation").mean(), pl.len().alias("trials"))
        .sort("replicate")
    )
    hours, values = means["hours"].to_numpy(), means["deviation"].to_numpy()
    course: Json = dict.fromkeys(("slope", "low", "high", "span", "alike", "alike_by_chance"))
    known = len(values) >= ENOUGH and np.isfinite(hours).all()
    if known and np.ptp(hours) > 0 and np.ptp(values) > NO_SPREAD:
        fit = stats.linregress(hours, values)
        half = t_quantile(CONFIDENCE, len(values) - 2) * float(fit.stderr)
        slope = float(fit.slope)
        course |= {"slope": slope, "low": slope - half, "high": slope + half}
        course["span"] = float(np.ptp(hours))
    series = timed["deviation"].to_numpy()
    if len(series) > 10 and float(series @ series) > 0:
        course["alike"] = float(series[1:] @ series[:-1]) / float(series @ series)
        course["alike_by_chance"] = 2 / math.sqrt(len(series))
    replicates = means.rename({"deviation": "mean"}).to_dicts()
    return {"host": host, "replicates": replicates, **course, "sentence": _sentence(course)}


def _sentence(course: Json) -> str:
    if course["slope"] is None:
        text = (
            f"Whether the host drifted is not known: a slope needs {ENOUGH} replicates with "
            "different start times."
        )
    else:
        low, high = (course[end] * course["span"] for end in ("low", "high"))
        if low > 0 or high < 0:
            faster = "slower" if low > 0 else "faster"
            least, most = sorted(abs(math.expm1(end)) for end in (low, high))
            text = f"The host drifted: requests became {least:.1%} to {most:.1%} {faster}"
        else:
            text = f"No steady drift is seen: {math.expm1(low):+.1%} to {math.expm1(high):+.1%}"
        text += f" from the first replicate to the last ({words.duration(course['span'])})."
    if course["alike"] is not None and course["alike"] > course["alike_by_chance"]:
        text += (
            f" Consecutive trials are correlated ({course['alike']:.2f}, by chance up to "
            f"{course['alike_by_chance']:.2f}): the host drifts within replicates."
        )
    return text


def _hours(starts: list[str]) -> list[float | None]:
    """Return the hours of ISO 8601 starts since the earliest; None for an unreadable one."""
    seconds = [epoch(start) for start in starts]
    first = min((s for s in seconds if s is not None), default=0.0)
    return [None if s is None else (s - first) / 3600 for s in seconds]


def _components(ran: pl.DataFrame) -> list[Json]:
    """Return the variance components of each platform and mode, pooled over sizes.

    Fields, as standard deviations of logarithms: `within` trials, `between` instances beyond that
    (drift over time included); `icc` (intraclass correlation: the share of the variance of a single
    sample that is between instances); `freedom` (degrees of freedom of `between`); `trials`.
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
    if within is not None and math.isnan(within):  # 0 / 0: no input has two samples
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
