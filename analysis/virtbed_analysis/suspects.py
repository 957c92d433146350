"""The rate of suspect trials in each cell, and a test of whether it depends on the platform.

A platform can make its own trials suspect: a guest's emulation counts as "other processes", a busy
enclosure raises pressure. Suspicion is then partly an outcome, and a ratio without suspect trials
is one of the trials that happened to go well. Used by `document`; thresholds are in `suspicion`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from virtbed_analysis import words
from virtbed_analysis.cells import CELL
from virtbed_analysis.estimate import in_order
from virtbed_analysis.intervals import CONFIDENCE, holm_adjusted
from virtbed_analysis.suspicion import THRESHOLDS
from virtbed_analysis.trust import Json

ANY = "any reason"
_DRAWS = 4999
_SEED = 2112  # fixed, so that equal results give equal reports
_INSTANCE = ["host", "plan_digest", "platform", "mode", "cores", "replicate"]
_GROUP = ["platform", "mode"]
_REASONS = (*(threshold.name for threshold in THRESHOLDS), ANY)


class Tested(NamedTuple):
    """The test of one reason: its p value, and the platforms with the highest and lowest rate."""

    reason: str
    p: float
    most: Json
    least: Json


def rates(trials: pl.DataFrame) -> list[Json]:
    """Return the number of suspect trials of each real cell, by reason.

    Args:
        trials: One row per trial, with `suspicions`.

    Returns:
        One row per cell: `CELL`, `weights`, `trials`, `suspect`, and `reasons` (the number of
        trials by reason, for every reason that any trial has).
    """
    marked = _marked(trials)
    named = [name for name in _REASONS[:-1] if marked[name].any()]
    cells = marked.group_by(CELL).agg(
        pl.col("weights").first(),
        pl.len().cast(pl.Int64).alias("trials"),
        pl.col(ANY).sum().cast(pl.Int64).alias("suspect"),
        *(pl.col(name).sum().cast(pl.Int64) for name in named),
    )
    table = []
    for row in in_order(cells).to_dicts():
        reasons = {name: row.pop(name) for name in named}
        table.append({**row, "reasons": reasons})
    return table


def dependence(trials: pl.DataFrame, draws: int = _DRAWS) -> list[Json]:
    """Test, for each reason that some trials have, whether it depends on the platform.

    Instances are permuted over platforms and modes, within one host and size.

    Args:
        trials: One row per trial, with `suspicions`.
        draws: Number of permutations.

    Returns:
        One row per reason: `p`, the share of permutations whose variance between platforms is at
        least the observed one; `adjusted`, with Holm's adjustment for all reasons; `depends`,
        whether that is below 5%; `most` and `least`, the platforms with the highest and the lowest
        rate (`platform`, `mode`, `suspect`, `trials`).
    """
    marked = _marked(trials)
    if marked.select(_GROUP).n_unique() < 2:
        return []
    tests = [
        _tested(marked, name, draws)
        for name in _REASONS
        if marked[name].any() and not marked[name].all()
    ]
    named = [tested for tested in tests if tested.reason != ANY]
    adjusted = holm_adjusted([tested.p for tested in named])
    # "Any reason" is tested alone, next to the named ones: it is not independent of them.
    together = {tested.reason: p for tested, p in zip(named, adjusted, strict=True)}
    return [
        {
            "reason": tested.reason,
            "p": tested.p,
            "adjusted": together.get(tested.reason, tested.p),
            "depends": together.get(tested.reason, tested.p) < 1 - CONFIDENCE,
            "most": tested.most,
            "least": tested.least,
        }
        for tested in tests
    ]


def selection(tested: list[Json], entries: words.Entries) -> str:
    """Return a sentence if suspicion depends on the platform; empty if no test shows that."""
    depends = [row for row in tested if row["depends"]]
    if not depends:
        return ""
    named = [row for row in depends if row["reason"] != ANY] or depends
    seen = "; ".join(
        f"{row['reason']}: {_rate(row['most'], entries)}, {_rate(row['least'], entries)}"
        for row in named
    )
    return (
        f"Suspicion depends on the platform ({seen}), so it is partly an outcome: leaving suspect "
        "trials out is then a selection, which may hide the cost of the platform."
    )


def _rate(row: Json, entries: words.Entries) -> str:
    return f"{row['suspect']} of {row['trials']} trials of {words.platform(row, entries)}"


def _marked(trials: pl.DataFrame) -> pl.DataFrame:
    """Return the real trials with a column of flags per reason, and one for any."""
    real = trials.filter(~pl.col("emulated"))
    named = pl.col("suspicions").list.eval(pl.element().str.split(":").list.first())
    return real.with_columns(
        *(named.list.contains(name).alias(name) for name in _REASONS[:-1]),
        (pl.col("suspicions").list.len() > 0).alias(ANY),
    )


def _tested(marked: pl.DataFrame, reason: str, draws: int) -> Tested:
    instances = (
        marked.group_by(_INSTANCE)
        .agg(pl.col(reason).mean().alias("share"))
        .sort(_INSTANCE)
        .with_columns(pl.struct(_GROUP).rank("dense").alias("group"))
    )
    platforms = (
        marked.group_by(_GROUP)
        .agg(
            pl.col(reason).sum().cast(pl.Int64).alias("suspect"),
            pl.len().cast(pl.Int64).alias("trials"),
        )
        .sort(pl.col("suspect") / pl.col("trials"), *_GROUP)
        .to_dicts()
    )
    random = np.random.default_rng(_SEED)
    observed, drawn = 0.0, np.zeros(draws)
    for _, stratum in instances.group_by("host", "cores", maintain_order=True):
        shares = stratum["share"].to_numpy()
        groups = stratum["group"].to_numpy()
        member = (groups[:, None] == np.unique(groups)).astype(float)
        observed += float(_between(shares[None, :], member)[0])
        drawn += _between(random.permuted(np.tile(shares, (draws, 1)), axis=1), member)
    as_large = int((drawn >= observed - 1e-9).sum())
    return Tested(reason, (1 + as_large) / (1 + draws), platforms[-1], platforms[0])


def _between(shares: NDArray[np.float64], member: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum of squares between groups, one per permutation.

    Args:
        shares: The share of suspect trials, one row per permutation, one column per instance.
        member: Whether an instance (row) belongs to a group (column).
    """
    sizes = member.sum(axis=0)
    means = shares @ member / sizes
    return np.asarray(((means - shares.mean(axis=1, keepdims=True)) ** 2) @ sizes)


def of_report(trials: pl.DataFrame, entries: words.Entries) -> Json:
    """Return the content of a report about suspicion: `cells`, `dependence` and a text, `note`."""
    tested = dependence(trials)
    return {"cells": rates(trials), "dependence": tested, "note": selection(tested, entries)}
