"""Knows how the analysis of the published measurements looks in a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from rich.markup import escape
from rich.table import Table

Json = dict[str, Any]

STYLES = {"supported": "green", "refuted": "red", "inconclusive": "yellow", "not tested": "dim"}


def ratio_tables(document: Json) -> Iterator[Table]:
    """Give one table an application: a row for each platform and mode, a column for each size."""
    for app, group in groupby(document["ratios"], key=lambda row: row["app"]):
        rows = list(group)
        sizes = sorted({row["cores"] for row in rows})
        found = {(row["mode"], row["platform"], row["cores"]): row["ratio"] for row in rows}
        table = Table(title=f"{app}: time over bare metal's, by cores", title_justify="left")
        table.add_column("mode, platform")
        for cores in sizes:
            table.add_column(str(cores), justify="right")
        for mode, platform in dict.fromkeys((row["mode"], row["platform"]) for row in rows):
            figures = [found.get((mode, platform, cores)) for cores in sizes]
            words = ["-" if figure is None else f"{figure:.3f}" for figure in figures]
            table.add_row(f"{mode} {platform}", *words)
        yield table


def verdict_table(verdicts: list[Json], confidence: float) -> Table:
    """Return one row a finding: what is claimed, the answer, and what it rests on."""
    table = Table(
        title=f"Findings ({confidence:.0%} intervals, together for each finding)",
        title_justify="left",
        show_lines=True,
    )
    for heading in ("finding", "answer", "because"):
        table.add_column(heading)
    for verdict in verdicts:
        style = STYLES[verdict["answer"]]
        table.add_row(
            escape(f"{verdict['claim']} ({verdict['source']})"),
            f"[{style}]{verdict['answer']}[/{style}]",
            escape(f"{verdict['because']} Looked at: {verdict['effect']}."),
        )
    return table
