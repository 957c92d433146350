"""Terminal output of `virtbed isolation`: how much neighbours slow each platform."""

from __future__ import annotations

from typing import Any

from virtbed.render.table import Table, bound

Json = dict[str, Any]
_ENDS = ("ratio", "ratio_low", "ratio_high")


def isolation_table(content: Json) -> Table:
    """Return a table with one row per cell with neighbours: its time over the same cell's without.

    Args:
        content: The document of `virtbed_analysis.isolation_of`.
    """
    from virtbed_analysis import subject_words

    table = Table(
        f"Time with neighbours over time without (separate {content['confidence']:.0%} intervals)"
    )
    table.add_column("application", section=True)
    table.add_column("platform")
    table.add_column("cores", number=True)
    table.add_column("neighbours", number=True)
    table.add_column("with / without", number=True, measured=True)
    table.add_column("answer", measured=True)
    table.add_column("their CPUs", measured=True)
    table.add_column("busy", number=True, measured=True)
    table.add_column("n", number=True, measured=True)
    for row in content["isolation"]:
        value, low, high = (None if row[end] is None else f"{row[end]:.3f}" for end in _ENDS)
        busy = row["neighbours_busy"]
        table.add_row(
            subject_words(row), f"{row['platform']} {row['mode']}", str(row["cores"]),
            row["neighbours"], bound(f"{value}" if low is None else f"{value} ({low} to {high})"),
            row["answer"], row["neighbours_cpus"] or "unknown",
            "" if busy is None else f"{busy:.0%}", str(row["ratio_replicates"]),
        )  # fmt: skip
    return table
