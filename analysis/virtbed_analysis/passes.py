"""Replicates that a pause divides: each part is paired with the baseline that was measured near it.

A sweep that goes on much later measures a replicate's baseline again and keeps the earlier result
in `earlier/ATTEMPT/ID`. Each of the two is a replicate of its own then, with the trials that are
nearer to it in time, so that no pair spans the pause.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import datetime

import polars as pl

from virtbed_analysis.cells import CELL, SUBJECT, key_of
from virtbed_analysis.estimate import BARE, BASELINE
from virtbed_analysis.reading import MARK


def divided(trials: pl.DataFrame) -> pl.DataFrame:
    """Return trials with a replicate number of its own for each later part of a replicate.

    Only replicates with an earlier attempt of their baseline change. Trials of the second part of
    replicate r have r + R, of the third r + 2R, with R the largest number of a replicate.
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
    """Return, by cell, how many replicates its baseline has more, as it was measured again.

    The cell itself has nothing to show for these, and has lost nothing.
    """
    again = trials.filter(pl.col("trial").str.contains(MARK, literal=True))
    more = Counter(key_of(row, SUBJECT) for row in again.to_dicts())
    cells = trials.select(CELL).unique().to_dicts()
    return Counter({key_of(row): more[key_of(row, SUBJECT)] for row in cells})


def started_s(trials: pl.DataFrame) -> dict[str, float]:
    """Return when each trial started, in seconds since the epoch, as `unneeded_trials` takes it."""
    rows = trials.select("trial", "started_at").iter_rows()
    return {trial: _seconds(at) for trial, at in rows}


def _seconds(started_at: str) -> float:
    return datetime.fromisoformat(started_at).timestamp()
