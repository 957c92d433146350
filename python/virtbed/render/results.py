"""Advice, a comparison and the published data in a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from rich.markup import escape
from rich.table import Table

from virtbed_contract.factors import of_grain

Json = dict[str, Any]

_STYLES = {"supported": "green", "refuted": "red", "inconclusive": "yellow", "not tested": "dim"}
_ENDS = {"": "value", "_low": "low", "_high": "high"}


def advice_table(advice: Json) -> Table:
    """Return one row per candidate, the choice first; costs only where there are prices."""
    priced = advice["question"]["prices"]
    table = Table(title="Candidates, best first", title_justify="left")
    varied = [factor.name for factor in of_grain("trial")]
    for heading in ("platform", "mode", "cores", *varied):
        table.add_column(heading.replace("_", " "))
    for heading in ("e2e ms", "p99 ms", *(["cost / 10^6"] if priced else []), "replicates"):
        table.add_column(heading, justify="right")
    for row in advice["candidates"]:
        costs = [_figure(row, "cost", "")] if priced else []
        suspect = f", {row['suspect']} suspect" if row["suspect"] else ""
        table.add_row(
            row["platform"], row["mode"], str(row["cores"]), *(row[name] for name in varied),
            _figure(row, "e2e", "_ms"), _figure(row, "p99", "_ms"), *costs,
            f"{row['replicates']}{suspect}",
        )  # fmt: skip
    return table


def comparison_tables(comparison: Json) -> Iterator[Table]:
    """Give a table of what has changed in time, and one of costs: a row per cell of all sweeps."""
    from virtbed_analysis import subject_words

    titles = {"time": "Time", "cost": "Cost against bare metal"}
    for what, title in titles.items():
        rows = [row for row in comparison["cells"] if row[what]]
        known = any(row[what]["low"] is not None for row in rows)
        spread = f"{comparison['confidence']:.0%} simultaneous intervals of {comparison['unit']}s"
        table = Table(
            title=f"{title}, second over first ({spread if known else 'without intervals'})",
            title_justify="left",
        )
        table.add_column("platform, mode")
        table.add_column("cores", justify="right")
        table.add_column(what, justify="right", no_wrap=True)
        if known:
            table.add_column("answer", no_wrap=True)
        for subject, group in groupby(rows, key=subject_words):
            table.add_row(f"[bold]{escape(subject)}[/bold]", end_section=False)
            for row in group:
                table.add_row(f"{row['platform']} {row['mode']}", *_change(row, what, known))
        if rows:
            yield table


def _change(row: Json, what: str, known: bool) -> tuple[str, ...]:
    from virtbed_analysis import changed

    effect = row[what]
    figure = _figure({f"x{end}": effect[e] for end, e in _ENDS.items()}, "x", "")
    return (str(row["cores"]), figure, *([changed(effect)] if known else []))


def choice_words(cell: Json) -> str:
    """Return a cell as one says it: cn pinned, 2 cores, matched threads."""
    cores = "1 core" if cell["cores"] == 1 else f"{cell['cores']} cores"
    factors = (factor.words(cell[factor.name]) for factor in of_grain("trial"))
    return ", ".join([f"{cell['platform']} {cell['mode']}", cores, *filter(None, factors)])


def _figure(row: Json, name: str, unit: str) -> str:
    value, low, high = (row[f"{name}{end}{unit}"] for end in ("", "_low", "_high"))
    if value is None:
        return "-"
    return f"{value:.4g}" if low is None else f"{value:.4g} ({low:.4g} to {high:.4g})"


def ratio_tables(document: Json) -> Iterator[Table]:
    """Give one table per application: a row for each platform and mode, a column for each size."""
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
    """Return one row per finding: what is claimed, the answer, and what it rests on."""
    table = Table(
        title=f"Findings ({confidence:.0%} simultaneous intervals for each finding)",
        title_justify="left",
        show_lines=True,
    )
    for heading in ("finding", "answer", "because"):
        table.add_column(heading)
    for verdict in verdicts:
        style = _STYLES[verdict["answer"]]
        table.add_row(
            escape(f"{verdict['claim']} ({verdict['source']})"),
            f"[{style}]{verdict['answer']}[/{style}]",
            escape(f"{verdict['because']} Looked at: {verdict['effect']}."),
        )
    return table
