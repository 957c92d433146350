"""How long more replicates would take, by the times at which a sweep's own trials started."""

from __future__ import annotations

from itertools import pairwise
from statistics import median

import polars as pl

from virtbed_analysis.cells import CELL
from virtbed_analysis.passes import started_s
from virtbed_analysis.words import count

_PARTS = ("platform", "application", "scale", "scenario")


def needed_s(trials: pl.DataFrame, more: int) -> float | None:
    """Return the seconds of more replicates on each host; None where starts do not tell.

    A trial takes as long as it is to the next start on its host; the median over those like it, so
    that a pause, or a sweep that was resumed, does not count. A replicate has each cell once.

    Args:
        trials: Of the sweep, as `Sweep.trials` has them; emulated ones are not repeated.
        more: How many more replicates.
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
    """Return what more replicates take: "15 more replicates: about 3.2 hours by ..."."""
    replicates = count(more, "more replicate")
    if seconds is None:
        return (
            f"{replicates}; how long they take is not known from the starts of this sweep's trials."
        )
    about = f"{seconds / 3600:.2g} hours" if seconds >= 5400 else f"{max(1, seconds / 60):.0f} min"
    return f"{replicates}, which take about {about} on each host, by the times of this sweep."
