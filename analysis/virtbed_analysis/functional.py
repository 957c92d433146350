"""Trials of the application that computes nothing: evidence that a platform works, not its cost.

Their results have `weights` "none". They are excluded from estimates, ratios, advice and exports; a
report only lists them as attested.
"""

from __future__ import annotations

import polars as pl

from virtbed_analysis import words
from virtbed_analysis.reading import Json

NOTHING = pl.col("weights") == "none"


def rows(trials: pl.DataFrame) -> list[Json]:
    """Return one row per platform, mode, cores and accelerator, with the number of its `trials`."""
    keys = ["platform", "mode", "cores", "accelerator"]
    counts: list[Json] = trials.group_by(keys).agg(trials=pl.len()).sort(keys).to_dicts()
    return counts


def sentence(rows: list[Json]) -> str:
    """Return a sentence on functional trials, that they measure nothing; "" without any."""
    if not rows:
        return ""
    ran = words.count(sum(row["trials"] for row in rows), "trial")
    where = dict.fromkeys(
        row["platform"] + (" (emulated)" if row["accelerator"] == "tcg" else "") for row in rows
    )
    return (
        f"{ran} of an application that computes nothing ran on {', '.join(where)}, each attested: "
        "that is evidence that the platform works, and no measurement of what it costs."
    )
