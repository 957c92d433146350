"""Isolation: the slowdown of a platform by similar instances on the same machine.

The slowdown is the time of an instance with neighbours divided by that of the same platform, mode
and size without, paired within the replicate. It does not include the platform's own cost over bare
metal. Neighbours run on other CPUs, and share caches, memory and the thermal budget; the ratio does
not show which of these causes the slowdown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from virtbed_analysis import doubts, estimate, unlike, words
from virtbed_analysis.cells import CELL, key_of
from virtbed_analysis.frames import Sweep
from virtbed_analysis.intervals import CONFIDENCE
from virtbed_analysis.margin import with_answers
from virtbed_analysis.reduction import Readings, readings
from virtbed_analysis.trust import Json
from virtbed_contract.documents import Platform
from virtbed_contract.factors import FACTORS, Factor

_FACTOR: Factor = next(factor for factor in FACTORS if factor.name == "neighbours")


def of_sweep(sweep: Sweep, means: Readings | None = None) -> Json:
    """Return `confidence`, and `isolation`: the table of `rows`, each row with its `sentence`.

    Example:
        >>> from pathlib import Path
        >>> from virtbed_analysis import read_sweep
        >>> of_sweep(read_sweep(Path("results/quick")))["isolation"]
        []
    """
    entries = sweep.platforms.entries
    table = rows(means or readings(sweep.samples), sweep.trials, sweep.margin)
    with_sentences = [{**row, "sentence": sentence(row, entries)} for row in table]
    return {"confidence": CONFIDENCE, "isolation": with_sentences}


def rows(means: Readings, trials: pl.DataFrame, margin: float) -> list[Json]:
    """Return one row per cell with neighbours that was also measured without.

    Args:
        means: The readings of a sweep.
        trials: One row per trial, with `neighbours_cpus` and `neighbours_busy`.
        margin: The smallest slowdown worth knowing, as a share.

    Returns:
        The columns of `GROUP`; `ratio` (time with neighbours divided by time without) with
        `ratio_low` and `ratio_high` (null without an interval); `ratio_replicates`; the answer at
        the margin; warnings about the interval (`doubts.marked`); `neighbours_cpus` (where the
        neighbours ran, and what else ran there); `neighbours_busy` (the share of its CPUs that the
        least busy neighbour used, mean over trials; null if unknown).
    """
    ran = _ran(trials)
    paired = doubts.marked(estimate.over_default(means, _FACTOR).to_dicts())
    return [{**row, **ran.get(key_of(row), _NOTHING)} for row in with_answers(paired, margin)]


_NOTHING: Json = {"neighbours_cpus": None, "neighbours_busy": None}


def _ran(trials: pl.DataFrame) -> Mapping[tuple[Any, ...], Json]:
    """Return where the neighbours of each real cell ran, and how busy they were."""
    real = trials.filter(~pl.col("emulated"), pl.col("neighbours_cpus").is_not_null())
    groups = real.group_by(CELL, maintain_order=True).agg(
        pl.col("neighbours_cpus").unique(maintain_order=True).str.join(unlike.SPLIT),
        pl.col("neighbours_busy").mean(),
    )
    return {key_of(row): {name: row[name] for name in _NOTHING} for row in groups.to_dicts()}


def sentence(row: Json, entries: Mapping[str, Platform]) -> str:
    """Return the slowdown of a cell by its neighbours in one sentence.

    "container, pinned (cn pinned) at 1 core takes 1.080 (1.050 to 1.110) times as long with
    neighbours: 1 as without."
    """
    plain = {**row, _FACTOR.name: _FACTOR.default}
    low, high = row["ratio_low"], row["ratio_high"]
    span = "" if low is None else f" ({words.ratio(low)} to {words.ratio(high)})"
    return (
        f"{words.instance(plain, entries)} takes {words.ratio(row['ratio'])}{span} times as long "
        f"with {_FACTOR.words(row[_FACTOR.name])} as without."
    )
