"""The best number of samples per trial: where the spread comes from, and what a trial costs.

Kalibera and Jones, "Rigorous Benchmarking in Reasonable Time", ISMM 2013,
doi:10.1145/2464157.2464160.
"""

from __future__ import annotations

import math
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from virtbed_analysis.cells import SUBJECT
from virtbed_analysis.estimate import samples_to_show
from virtbed_analysis.latency import WHOLE
from virtbed_analysis.reduction import PLAIN_ROWS
from virtbed_contract import identifiers, json_file
from virtbed_contract.codec import DocumentError
from virtbed_contract.measures import of_group

Json = dict[str, Any]
ENOUGH = 3
"""Replicates that a slope, or a variance component, is made of at least."""
SHOW_P99 = samples_to_show(99)
_WORK = ["application", "scale", "scenario"]


def of_report(folder: Path) -> list[Json]:
    """Return what the report of a results folder says of samples per trial; nothing without one.

    Read from report.json, as the sweep's end writes it: reading a large sweep's results again
    takes a minute.

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
    except (KeyError, TypeError):  # of a report in the making of an older commit, or edited
        return []


def epoch(start: str) -> float | None:
    """Return seconds since 1970 of an ISO 8601 time; None for what is none."""
    try:
        return datetime.fromisoformat(start).timestamp()
    except (ValueError, OverflowError):
        return None


def setup_s(trials: pl.DataFrame, samples: pl.DataFrame) -> dict[tuple[Any, ...], float]:
    """Return what a trial of each application costs besides its measured samples, in seconds.

    The median over trials of the time to the next trial's start less the measured samples; no less
    than the start of the process with its warm-up.
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
    """Return, for each application, where its spread comes from and how many samples are best."""
    trials = ran.filter(PLAIN_ROWS).sort(*_WORK, "trial").to_dicts()
    found = []
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
            # Elsewhere requests wait, or the host for them: neither is set-up.
            "setup_s": setups.get(work, 0.0) if work[2] not in WHOLE else None,
            "sample_s": sum(row["measured_s"] for row in mine) / count,
        }
        inputs = round(float(np.median([one["inputs"] for one in mine])))
        # The spread that one sample leaves in a trial's logarithm: `within`, or more where inputs
        # are unlike, since one that takes long weighs more.
        left = [one["inner"] * one["samples"] for one in mine if one["inner"] is not None]
        alone = math.sqrt(float(np.mean(left))) if left else None
        found.append(row | _best(row, inputs, alone))
    return found


def _instances(rows: list[Json]) -> tuple[float | None, float | None]:
    """Return the standard deviations between instances, and between replicates for all alike.

    Two-way analysis of variance (cells by replicates) of each subject's whole replicates; what the
    samples leave in a trial's logarithm is taken off the instances.
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
    """Return the number of samples per trial that knows a mean best for its time.

    sqrt(c2 / c1 * T1^2 / T2^2): cost of a trial over that of a sample, variance within a trial over
    that between (Kalibera and Jones 2013, section 6).
    """
    return math.sqrt(setup_s / sample_s) * within / between


def _best(row: Json, inputs: int, within: float | None) -> Json:
    """Return `best`, `saves` (share of a sweep's time, for the same precision) and a sentence.

    Args:
        row: What `rows` tells of an application.
        inputs: How many it has.
        within: The spread that one sample leaves in a trial's logarithm.
    """
    between, now = row["between"], row["samples"]
    name = f"{row['application']}, {row['scale']}"
    none: Json = {"best": None, "saves": None}
    if row["scenario"] in WHOLE:
        return none | {"sentence": f"{name}, {row['scenario']}: LoadGen says how many samples."}
    if within is None or between is None:
        return none | {
            "sentence": f"{name}: the best number of samples is not known; it takes {ENOUGH} whole "
            "replicates of two cells, and two samples of an input."
        }
    if between == 0 or not row["setup_s"]:
        return none | {
            "sentence": f"{name}: instances differ by no more than their samples explain, so "
            f"longer trials (samples above {now}) know as much as more replicates."
        }
    exact = best_samples(within, between, row["setup_s"], row["sample_s"])
    # Fewer than two per input would leave no spread to see, and stalls to chance.
    digits = 10 ** max(0, math.floor(math.log10(max(exact, 1))) - 1)
    best = max(2 * inputs, digits * round(exact / digits))

    def time_for_precision(n: float) -> float:
        return float((between**2 + within**2 / n) * (row["setup_s"] + n * row["sample_s"]))

    saves = 1 - time_for_precision(best) / time_for_precision(now)
    because = (
        f"a trial's set-up takes {row['setup_s']:.3g} s and a sample {row['sample_s']:.3g} s, "
        f"samples within a trial vary by {100 * within:.2g}% and instances by {100 * between:.2g}%"
    )
    if saves < 0.05:
        sentence = (
            f"{name}: {now} samples per trial are about as good as the best, {best}: {because}."
        )
    else:
        sentence = (
            f"{name}: {best} samples per trial would be best, not {now}: {because}. The same "
            f"precision would take about {saves:.0%} less time, with "
            f"{'more' if best < now else 'fewer'} replicates."
        )
    if best < min(now, SHOW_P99):
        sentence += f" That is for means: a trial shows its 99th percentile from {SHOW_P99} on."
    return {"best": best, "saves": saves, "sentence": sentence}
