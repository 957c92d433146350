"""Terminal output of `virtbed explain`: the parts of each platform's cost."""

from __future__ import annotations

from typing import Any

from virtbed.render.table import Table, bound

Json = dict[str, Any]


def explained_table(content: Json) -> Table:
    """Return a table with one row per step of each platform's cost, in % of bare metal's time.

    Args:
        content: The document of `virtbed_analysis.explain`.
    """
    from virtbed_analysis import point_words, subject_words

    table = Table(
        "Parts of each platform's cost, in % of bare metal's time "
        f"({content['confidence']:.0%} intervals, simultaneous for the steps of one platform)"
    )
    table.add_column("application", section=True)
    table.add_column("cores", number=True)
    table.add_column("platform")
    table.add_column("step")
    table.add_column("kind")
    table.add_column("% of bare metal's time", number=True, measured=True)
    table.add_column("stalled", number=True, measured=True)
    table.add_column("huge pages", number=True, measured=True)
    table.add_column("n", number=True, measured=True)
    for waterfall in content["explained"]:
        for row in waterfall["rows"]:
            table.add_row(
                subject_words(waterfall), str(waterfall["cores"]), waterfall["platform"],
                row["what"], row["kind"], bound(point_words(row)),
                *("" if row[one] is None else f"{row[one]:.0%}" for one in ("stalled", "huge")),
                str(row["n"]),
            )  # fmt: skip
    return table
