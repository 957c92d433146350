"""Replicates that were divided by a pause, each part with its own baseline.

A sweep that is resumed much later measures the baseline of an unfinished replicate again and keeps
the earlier result in `earlier/ATTEMPT/ID`. Each baseline then makes a replicate of its own, with
the trials that are nearest to it in time, so that no pair spans the pause.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import datetime

import polars as pl

from virtbed_analysis.cells import CELL, SUBJECT, key_of
from virtbed_analysis.estimate import BARE, BASELINE
from virtbed_analysis.reading import MARK


def divided(trials: pl.DataFrame) -> pl.DataFrame:
    """Return trials with new replicate numbers for the later parts of divided replicates.

    Only replicates with an earlier attempt of their baseline change: trials of the second part of
    replicate r get r + R, of the third r + 2R, where R is the largest number of a replicate.

    Args:
        trials: One row per trial, as `Sweep.trials`.
    """
    again = trials.filter(pl.col("trial").str.contains(MARK, literal=True))
    if not again.height:
        return trials
    by = ["host", "plan_digest", *SUBJECT, "replicate"]
    rows = trials.with_columns(BARE.alias("bare")).with_columns(BASELINE.alias("baseline"))
    times: dict[tuple[object, ...], list[float]] = defaultdict(list)
    for row in rows.filter("baseline", ~pl.col("emulated")).to_dicts():
        times[key_of(row, by)].append(_seconds(row["started_at"]))
    most = int(trials["replicate"].max())  # type: ignore[arg-type]
    numbers = []
    for row in rows.select(*by, "started_at").to_dicts():
        at, parts = _seconds(row["started_at"]), sorted(times.get(key_of(row, by), []))
        part = min(range(len(parts)), key=lambda i: abs(parts[i] - at)) if parts else 0
        numbers.append(row["replicate"] + part * most)
    return trials.with_columns(pl.Series("replicate", numbers, dtype=trials.schema["replicate"]))


def added(trials: pl.DataFrame) -> Counter[tuple[object, ...]]:
    """Return, by cell, how many more replicates its baseline has, since it was measured again.

    For these replicates the cell has no result, but also no lost trial.
    """
    again = trials.filter(pl.col("trial").str.contains(MARK, literal=True))
    more = Counter(key_of(row, SUBJECT) for row in again.to_dicts())
    cells = trials.select(CELL).unique().to_dicts()
    return Counter({key_of(row): more[key_of(row, SUBJECT)] for row in cells})


def started_s(trials: pl.DataFrame) -> dict[str, float]:
    """Return the start of each trial in seconds since the epoch, by its id.

    `precision.unneeded_trials` takes it.
    """
    rows = trials.select("trial", "started_at").iter_rows()
    return {trial: _seconds(at) for trial, at in rows}


def _seconds(started_at: str) -> float:
    return datetime.fromisoformat(started_at).timestamp()
