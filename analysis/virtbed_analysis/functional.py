"""Trials of an application that computes nothing: they show that platforms work, and cost nothing.

Their results say so themselves (`weights` none). They have no part in any estimate, ratio, advice
or export; of them it is only said that they ran where they were to run.
"""

from __future__ import annotations

import polars as pl

from virtbed_analysis import words
from virtbed_analysis.reading import Json

NOTHING = pl.col("weights") == "none"


def rows(trials: pl.DataFrame) -> list[Json]:
    """Return a row per platform, mode and size with the number of its `trials`."""
    keys = ["platform", "mode", "cores", "accelerator"]
    found: list[Json] = trials.group_by(keys).agg(trials=pl.len()).sort(keys).to_dicts()
    return found


def sentence(found: list[Json]) -> str:
    """Return what the trials show, and that it is no measurement; empty without any."""
    if not found:
        return ""
    ran = words.count(sum(row["trials"] for row in found), "trial")
    where = dict.fromkeys(
        row["platform"] + (" (emulated)" if row["accelerator"] == "tcg" else "") for row in found
    )
    return (
        f"{ran} of an application that computes nothing ran on {', '.join(where)}, each attested: "
        "that is evidence that the platform works, and no measurement of what it costs."
    )
