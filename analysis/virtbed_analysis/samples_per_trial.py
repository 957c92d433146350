"""The optimal number of samples per trial, from variance components and costs in time.

More samples reduce the variance within a trial, more trials the variance between instances. The
optimum balances both by their costs: Kalibera and Jones, "Rigorous Benchmarking in Reasonable
Time", ISMM 2013, doi:10.1145/2464157.2464160. `diagnostics` adds the rows to the report.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from virtbed_analysis import words
from virtbed_analysis.cells import SUBJECT
from virtbed_analysis.estimate import samples_to_show
from virtbed_analysis.latency import WHOLE
from virtbed_analysis.reduction import PLAIN_ROWS
from virtbed_contract import identifiers, json_file
from virtbed_contract.codec import DocumentError
from virtbed_contract.measures import of_group

Json = dict[str, Any]
ENOUGH = 3
"""The least number of replicates for a slope or a variance component."""
_WORTH = 0.05
"""The least share of time saved at which another number of samples is recommended."""
SHOW_P99 = samples_to_show(99)
_WORK = ["application", "scale", "scenario"]


def of_report(folder: Path) -> list[Json]:
    """Return the rows on samples per trial from a folder's report.json; empty without a report.

    The report is written at the end of a sweep; analysing a large sweep again would take a minute.

    Returns:
        The rows with a `best` number, see `rows`.

    Example:
        >>> of_report(Path("results/nowhere"))
        []
    """
    try:
        content = json_file.read(folder / "report.json")
    except DocumentError:
        return []
    if content.get("schema") != identifiers.REPORT:
        return []
    try:
        rows = [row for row in content["diagnostics"]["samples"] if row["best"] is not None]
        texts = ("application", "scale", "scenario", "sentence")
        return rows if all(isinstance(row[name], str) for row in rows for name in texts) else []
    except (KeyError, TypeError):  # a report by another version, or edited
        return []


def epoch(start: str) -> float | None:
    """Return the seconds since 1970 of an ISO 8601 time; None if it is invalid."""
    try:
        return datetime.fromisoformat(start).timestamp()
    except (ValueError, OverflowError):
        return None


def setup_s(trials: pl.DataFrame, samples: pl.DataFrame) -> dict[tuple[Any, ...], float]:
    """Return the set-up cost of a trial in seconds, by (application, scale, scenario).

    It is the median over real trials of the time to the next trial's start minus the time of the
    measured samples, but at least the median of start-up plus warm-up.

    Args:
        trials: One row per trial, as `Sweep.trials`.
        samples: One row per sample, as `Sweep.samples`.
    """
    spent = samples.group_by("trial", maintain_order=True).agg(
        (pl.col("e2e_ns").filter(~pl.col("warmup")).sum() / 1e9).alias("measured_s"),
        (pl.col("e2e_ns").filter(pl.col("warmup")).sum() / 1e9).alias("warmup_s"),
    )
    starts = pl.sum_horizontal(pl.col(m.column).fill_null(0) for m in of_group("startup")) / 1e9
    timed = (
        trials.with_columns(at=pl.Series([epoch(s) for s in trials["started_at"].to_list()]))
        .with_columns(pl.col("at").cast(pl.Float64))
        .sort("host", "at", "position")
        .join(spent, on="trial", maintain_order="left")
        .with_columns((pl.col("at").shift(-1).over("host") - pl.col("at")).alias("gap"))
        .filter(~pl.col("emulated"))
    )
    costs = timed.group_by(_WORK, maintain_order=True).agg(
        (pl.col("gap") - pl.col("measured_s")).median().alias("whole"),
        (starts + pl.col("warmup_s")).median().alias("least"),
    )
    return {tuple(row[:3]): max(row[3] or 0.0, row[4] or 0.0) for row in costs.iter_rows()}


def rows(ran: pl.DataFrame, setups: dict[tuple[Any, ...], float]) -> list[Json]:
    """Return the variance components and the optimal number of samples of each application.

    Args:
        ran: One row per trial, the result of `diagnostics.of_trials`.
        setups: The result of `setup_s`.

    Returns:
        One row per application, scale and scenario: `trials`; `samples` (median per trial, now);
        `within` (standard deviation of samples within trials, relative), `between` (of instances)
        and `common` (of replicates), of logarithms, None if unknown; `setup_s` and `sample_s`
        (costs); `best` (the optimal number, None if unknown); `saves` (share of time saved at equal
        precision); `longer` (how to change `samples` in the plan if more would be better, else
        None); `sentence`.
    """
    trials = ran.filter(PLAIN_ROWS).sort(*_WORK, "trial").to_dicts()
    result = []
    for work, group in groupby(trials, key=lambda row: tuple(row[part] for part in _WORK)):
        mine = list(group)
        free = sum(row["freedom"] for row in mine)
        squares = sum((row["within"] or 0.0) * row["freedom"] for row in mine)
        own, common = _instances(mine)
        count = sum(row["samples"] for row in mine)
        row: Json = {
            **dict(zip(_WORK, work, strict=True)),
            "trials": len(mine),
            "samples": round(float(np.median([row["samples"] for row in mine]))),
            "within": math.sqrt(squares / free) if free else None,
            "between": own,
            "common": common,
            # Scenarios of `WHOLE` wait in queues, which is not set-up.
            "setup_s": setups.get(work, 0.0) if work[2] not in WHOLE else None,
            "sample_s": sum(row["measured_s"] for row in mine) / count,
        }
        inputs = round(float(np.median([one["inputs"] for one in mine])))
        # The spread that one sample contributes to a trial's logarithm: `within`, or more if inputs
        # are of unequal length, since a long one weighs more.
        left = [one["inner"] * one["samples"] for one in mine if one["inner"] is not None]
        alone = math.sqrt(float(np.mean(left))) if left else None
        result.append(row | _best(row, inputs, alone))
    return result


def _instances(rows: list[Json]) -> tuple[float | None, float | None]:
    """Return the standard deviations between instances, and between replicates; None if unknown.

    Two-way analysis of variance (cells x replicates, method of moments) of each subject's complete
    replicates, pooled over subjects. The variance due to samples (`inner`) is subtracted from that
    of instances. Negative estimates are 0.
    """
    squares = freedom = inner = parts = 0.0
    commons: list[tuple[float, int]] = []
    subject = ["host", *SUBJECT]
    ordered = sorted(rows, key=lambda row: tuple(str(row[part]) for part in subject))
    for _, group in groupby(ordered, key=lambda row: tuple(row[part] for part in subject)):
        mine = list(group)
        cells = sorted({(row["platform"], row["mode"]) for row in mine})
        logs = {(r["platform"], r["mode"], r["replicate"]): r for r in mine}
        whole = [
            replicate
            for replicate in sorted({row["replicate"] for row in mine})
            if all((*cell, replicate) in logs for cell in cells)
        ]
        if len(cells) < 2 or len(whole) < ENOUGH:
            continue
        table = np.array([[logs[*cell, replicate]["log"] for replicate in whole] for cell in cells])
        rest = table - table.mean(axis=1, keepdims=True)
        times = rest.mean(axis=0)
        rest = rest - times
        own = (len(cells) - 1) * (len(whole) - 1)
        squares, freedom = squares + float((rest**2).sum()), freedom + own
        common = len(cells) * float((times**2).sum()) / (len(whole) - 1)
        commons.append(((common - float((rest**2).sum()) / own) / len(cells), len(whole) - 1))
        inner += sum(row["inner"] or 0.0 for row in mine)
        parts += len(mine)
    if not freedom:
        return None, None
    between = max(0.0, squares / freedom - inner / parts)
    weighted = sum(value * n for value, n in commons) / sum(n for _, n in commons)
    return math.sqrt(between), math.sqrt(max(0.0, weighted))


def best_samples(within: float, between: float, setup_s: float, sample_s: float) -> float:
    """Return the number of samples per trial with the smallest variance of a mean per time.

    sqrt(c2 / c1 * T1^2 / T2^2) (Kalibera and Jones 2013, section 6), where c2 and c1 are the costs
    of a trial and of a sample, T1^2 and T2^2 the variances within and between trials.

    Args:
        within: T1, standard deviation of a sample within a trial.
        between: T2, standard deviation between instances.
        setup_s: c2, set-up of a trial in seconds.
        sample_s: c1, time of a sample in seconds.

    Example:
        >>> best_samples(within=0.1, between=0.02, setup_s=16.0, sample_s=1.0)
        20.0
    """
    return math.sqrt(setup_s / sample_s) * within / between


def _best(row: Json, inputs: int, within: float | None) -> Json:
    """Return `best`, `saves` (share of a sweep's time, at equal precision), `longer`, `sentence`.

    Args:
        row: The other fields of a row of `rows`.
        inputs: The number of inputs.
        within: The spread that one sample contributes to a trial's logarithm.
    """
    between, now = row["between"], row["samples"]
    name = f"{row['application']}, {row['scale']}"
    none: Json = {"best": None, "saves": None, "longer": None}
    if row["scenario"] in WHOLE:
        return none | {"sentence": f"{name}, {row['scenario']}: LoadGen sets the samples."}
    if within is None or between is None:
        return none | {
            "sentence": f"{name}: the best number of samples is not known; it needs {ENOUGH} whole "
            "replicates of two cells, and two samples of an input."
        }
    if between == 0 or not row["setup_s"]:
        return none | {
            "longer": f"samples above {now}",
            "sentence": f"{name}: instances differ by no more than their samples explain, so "
            f"longer trials (samples above {now}) are as precise as more replicates.",
        }
    exact = best_samples(within, between, row["setup_s"], row["sample_s"])
    # At least two per input, so that the spread within a trial can be estimated.
    digits = 10 ** max(0, math.floor(math.log10(max(exact, 1))) - 1)
    best = max(2 * inputs, digits * round(exact / digits))

    def time_for_precision(n: float) -> float:
        return float((between**2 + within**2 / n) * (row["setup_s"] + n * row["sample_s"]))

    saves = 1 - time_for_precision(best) / time_for_precision(now)
    because = (
        f"a trial's set-up takes {row['setup_s']:.3g} s and a sample {row['sample_s']:.3g} s, "
        f"samples within a trial vary by {100 * within:.2g}% and instances by {100 * between:.2g}%"
    )
    longer = None
    if saves < _WORTH:
        sentence = (
            f"{name}: {words.count(now, 'sample')} per trial {'is' if now == 1 else 'are'} about "
            f"as good as the best, {best}: {because}."
        )
    else:
        longer = f"samples: {best}" if best > now else None
        sentence = (
            f"{name}: {best} samples per trial would be best, not {now}: {because}. The same "
            f"precision would take about {saves:.0%} less time, with "
            f"{'more' if best < now else 'fewer'} replicates."
        )
    if best < min(now, SHOW_P99):
        sentence += f" That is for means: a trial shows its 99th percentile from {SHOW_P99} on."
    return {"best": best, "saves": saves, "longer": longer, "sentence": sentence}


def longer(rows: Sequence[Json], work: Collection[tuple[str, str, str]]) -> list[str]:
    """Return how to change a plan's samples, for each application of which more would be better.

    Args:
        rows: The result of `rows`.
        work: The applications that are meant, as (application, scale, scenario).

    Returns:
        Texts such as "samples: 200 (image_classification, trained)"; none where more samples per
        trial would not narrow intervals as well as more replicates do.
    """
    return [
        f"{row['longer']} ({row['application']}, {row['scale']})"
        for row in rows
        if row["longer"] and tuple(row[part] for part in _WORK) in work
    ]
