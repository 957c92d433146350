"""MLPerf LoadGen's verdicts and figures next to ours; tables of latency and throughput.

LoadGen's percentile q of n sorted latencies is the one at index floor(q n), from 0; other tables of
the report use the nearest rank ceil(q n), from 1. Where the two are compared, both use LoadGen's
index.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from statistics import median

import polars as pl

from virtbed_analysis import doubts
from virtbed_analysis.cells import key_of
from virtbed_analysis.estimate import (
    GROUP,
    NS_PER_MS,
    TAILS,
    at_rank,
    geometric,
    in_order,
    steady,
    tail,
    to_baseline,
    typical,
)  # fmt: skip
from virtbed_analysis.latency import ANSWERED, BATCH, LOADED, PERCENTILES, usable
from virtbed_analysis.reduction import Readings, readings
from virtbed_analysis.trust import Json

APART = 0.01
"""The tolerated relative difference of LoadGen's figure and ours."""
_NS_PER_S = 1e9
_ENDS = ("", "_low", "_high")


def document(samples: pl.DataFrame, means: Readings | None = None) -> Json:
    """Return the tables of LoadGen's verdicts, of latency under load, and of throughput.

    Emulated trials are left out.

    Args:
        samples: As `load` returns them.
        means: Their readings; computed if None.

    Returns:
        `trials` (one row per trial: verdict, and figures of both); `cells` (one row per cell: a
        summary of its trials); `latency` (one row per cell of a scenario of `LOADED`, see
        `under_load`); `e2e` (their ratios of the e2e time, with `doubts`); `throughput` (one row
        per cell of offline); `apart` (the tolerated difference).
    """
    measured, means = steady(samples), means or readings(samples)
    trials = _trials(measured)
    return {
        "apart": APART,
        "trials": trials,
        "cells": _cells(trials),
        "latency": under_load(measured, means).to_dicts(),
        "e2e": doubts.marked(_e2e(means).to_dicts()),
        "throughput": throughput(means).to_dicts(),
    }


def with_latency(cells: list[Json], own: Json) -> list[Json]:
    """Return rows of cells with `latency_ratio` and its ends; None if the cell has no queue.

    Args:
        cells: Rows of `estimate.cells`.
        own: The result of `document`.
    """
    names = [f"latency_ratio{end}" for end in _ENDS]
    known = {key_of(row, GROUP): row for row in own["latency"]}
    rows = ((cell, known.get(key_of(cell, GROUP), {})) for cell in cells)
    return [{**cell, **{name: row.get(name) for name in names}} for cell, row in rows]


def under_load(measured: pl.DataFrame, means: Readings) -> pl.DataFrame:
    """Return the latency of each cell of a queueing scenario, in ms, and its ratio to bare metal.

    A wait does not belong to an input, so the mean latency of whole trials is compared, paired by
    replicate.

    Args:
        measured: One row per measured sample, as `steady` returns them.
        means: Their readings.

    Returns:
        One row per cell: `GROUP`, `latency_typical_ms` (geometric mean over replicates of the
        trial's mean), `latency_p<percentile>_ms` (of all samples), `latency_ratio` and `e2e_ratio`,
        both with `_low` and `_high`.
    """
    queued = pl.col("scenario").is_in(LOADED)
    loaded, own = measured.filter(queued), means.filter(queued)
    logs = own.judged
    tails = [(tail("latency_ns", p) / NS_PER_MS).alias(f"latency_p{p}_ms") for p in TAILS]
    of_latency, of_e2e = to_baseline(logs), to_baseline(own.logs())
    return in_order(
        typical(logs, "latency")
        .join(loaded.group_by(GROUP, maintain_order=True).agg(*tails), on=GROUP)
        .join(_ratio(of_latency, "latency_ratio"), on=GROUP, how="left")
        .join(_ratio(of_e2e, "e2e_ratio"), on=GROUP, how="left")
    )


def throughput(means: Readings) -> pl.DataFrame:
    """Return the throughput of each offline cell, in samples per second, and its ratio.

    The throughput of a trial is its number of samples over the time from their issue to the last
    answer.

    Returns:
        One row per cell: `GROUP`, `per_second` (geometric mean over replicates), `replicates`, and
        `throughput_ratio` to bare metal with `_low` and `_high` (below 1: slower; the reciprocal of
        the cell's `ratio`, which is of the time per sample).
    """
    batch = means.filter(pl.col("scenario").is_in(BATCH))
    logs = batch.judged.with_columns((math.log(_NS_PER_S) - pl.col("log")).alias("log"))
    table = geometric(logs, GROUP).select(
        *GROUP,
        pl.col("value").alias("per_second"),
        pl.col("n").alias("replicates"),
    )
    return in_order(table.join(_ratio(to_baseline(logs), "throughput_ratio"), on=GROUP, how="left"))


def _e2e(means: Readings) -> pl.DataFrame:
    return in_order(to_baseline(means.filter(pl.col("scenario").is_in(LOADED)).logs()))


def with_doubts(own: Json) -> None:
    """Add to rows of latency `e2e_doubt`, the number of the doubt of their e2e ratio."""
    known = {key_of(row, GROUP): row["doubt"] for row in own["e2e"]}
    for row in own["latency"]:
        row["e2e_doubt"] = known.get(key_of(row, GROUP))


def _ratio(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    return frame.select(*GROUP, *(pl.col(f"ratio{end}").alias(f"{name}{end}") for end in _ENDS))


def _trials(measured: pl.DataFrame) -> list[Json]:
    # In single_stream LoadGen's clock starts some microseconds before ours; more would show here.
    timed = pl.col("latency_ns").drop_nulls()
    n = timed.len().cast(pl.Int64)
    stated = [name for name in measured.columns if name.startswith("loadgen_")]
    places = {f"p{p}": pl.min_horizontal(p * n // 100 + 1, n) for p in PERCENTILES}
    trials = measured.group_by("trial", maintain_order=True).agg(
        *(pl.col(name).first() for name in (*GROUP, "rules", *stated)),
        usable().first().alias("usable"),
        *(at_rank(timed, place).alias(name) for name, place in places.items()),
        (pl.len() / ANSWERED.max() * _NS_PER_S).alias("per_second"),
    )
    return [_trial(row) for row in in_order(trials.sort("trial")).to_dicts()]


def _trial(row: Json) -> Json:
    offline = row["scenario"] in BATCH
    pairs = [
        {"percentile": p, "loadgen_ms": _ms(row[f"loadgen_p{p}_ns"]), "ours_ms": _ms(row[f"p{p}"])}
        for p in ([] if offline else PERCENTILES)
    ]
    rates = {"loadgen": row["loadgen_per_second"], "ours": row["per_second"]} if offline else None
    both = [(pair["loadgen_ms"], pair["ours_ms"]) for pair in pairs]
    both += [(rates["loadgen"], rates["ours"])] if rates else []
    shares = [abs(ours - theirs) / theirs for theirs, ours in both if theirs and ours]
    apart = max(shares, default=None)
    return {
        **{name: row[name] for name in GROUP},
        "trial": row["trial"],
        "rules": row["rules"],
        "valid": row["loadgen_validity"] == "VALID",
        "usable": row["usable"],
        "reasons": row["loadgen_reasons"],
        "queries": row["loadgen_queries"],
        "percentiles": pairs,
        "per_second": rates,
        "apart": apart,
        "differs": apart is not None and apart > APART,
    }


def _ms(ns: float | None) -> float | None:
    return None if ns is None else ns / NS_PER_MS


def _cells(trials: list[Json]) -> list[Json]:
    groups: dict[tuple[object, ...], list[Json]] = {}
    for trial in trials:
        groups.setdefault(key_of(trial, GROUP), []).append(trial)
    return [_cell(own) for own in groups.values()]


def _cell(own: list[Json]) -> Json:
    worst = max(own, key=lambda trial: trial["apart"] or 0.0)
    rates = [trial["per_second"] for trial in own if trial["per_second"]]
    return {
        **{name: own[0][name] for name in GROUP},
        "trials": len(own),
        "valid": sum(trial["valid"] for trial in own),
        "reasons": _reasons(trial["reasons"] for trial in own if not trial["valid"]),
        "queries": [min(t["queries"] for t in own), max(t["queries"] for t in own)],
        "percentiles": [
            {
                "percentile": percentile,
                **{side: _median(t["percentiles"][n][side] for t in own) for side in _SIDES},
            }
            for n, percentile in enumerate(PERCENTILES if own[0]["percentiles"] else ())
        ],
        "per_second": {side: _median(rate[side] for rate in rates) for side in ("loadgen", "ours")}
        if rates
        else None,
        "differ": sum(trial["differs"] for trial in own),
        "worst": {"trial": worst["trial"], "apart": worst["apart"]} if worst["differs"] else None,
    }


_SIDES = ("loadgen_ms", "ours_ms")


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _reasons(by_trial: Iterable[list[str]]) -> list[Json]:
    """Return each reason with its number of trials; reasons that differ in numbers only are one."""
    first: dict[str, str] = {}
    trials: Counter[str] = Counter()
    for reasons in by_trial:
        texts = {re.sub(r"\d+(\.\d+)?", "#", text): " ".join(text.split()) for text in reasons}
        for kind, text in texts.items():
            first.setdefault(kind, text)
            trials[kind] += 1
        if not texts:
            first.setdefault("", "LoadGen gives no reason")
            trials[""] += 1
    return [{"reason": first[kind], "trials": n} for kind, n in trials.most_common()]
