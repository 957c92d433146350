"""Estimate of how long more replicates take, from the start times of a sweep's trials."""

from __future__ import annotations

from itertools import pairwise
from statistics import median

import polars as pl

from virtbed_analysis.cells import CELL
from virtbed_analysis.passes import started_s
from virtbed_analysis.words import count

_PARTS = ("platform", "application", "scale", "scenario")


def needed_s(trials: pl.DataFrame, more: int) -> float | None:
    """Return the seconds that more replicates take on each host; None if starts do not show it.

    The duration of a trial is the time to the next start on its host. The median over trials of one
    platform, application, scale and scenario is used, so pauses do not count. A replicate has each
    cell once.

    Args:
        trials: `Sweep.trials`; emulated trials are ignored.
        more: The number of further replicates.
    """
    real = trials.filter(~pl.col("emulated"))
    at = started_s(real)
    gaps: dict[tuple[object, ...], list[float]] = {}
    for _, own in real.group_by("host"):
        rows = sorted(own.iter_rows(named=True), key=lambda row: at[row["trial"]])
        for row, following in pairwise(rows):
            gap = at[following["trial"]] - at[row["trial"]]
            gaps.setdefault(tuple(row[part] for part in _PARTS), []).append(gap)
    if not gaps or median(gap for own in gaps.values() for gap in own) <= 0:
        return None
    usual = {kind: median(own) for kind, own in gaps.items()}
    longest = max(usual.values())
    kinds = real.unique(CELL).select(_PARTS).iter_rows()
    per_replicate = sum(usual.get(kind, longest) for kind in kinds)
    return more * per_replicate


def in_words(seconds: float | None, more: int) -> str:
    """Return a sentence on the duration of more replicates, from the result of `needed_s`."""
    replicates = count(more, "more replicate")
    if seconds is None:
        return (
            f"{replicates}; how long they take is not known from the starts of this sweep's trials."
        )
    about = f"{seconds / 3600:.2g} hours" if seconds >= 5400 else f"{max(1, seconds / 60):.0f} min"
    return f"{replicates}, which take about {about} on each host, by the times of this sweep."
