"""Advice, a comparison and the published data in a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from rich.markup import escape
from rich.table import Table

from virtbed_contract.factors import label

Json = dict[str, Any]

_STYLES = {"supported": "green", "refuted": "red", "inconclusive": "yellow", "not tested": "dim"}
_ENDS = {"": "value", "_low": "low", "_high": "high"}


def advice_lines(advice: Json) -> Iterator[str]:
    """Give advice in sentences of plain words, the choice first; a line may be long."""
    choice = advice["choice"]
    if choice is None:
        yield advice["because"]
        return
    if advice["answer"] != "cannot tell":
        yield f"Choose {advice_name(choice)}. {advice['because']}"
    else:
        yield f"Cannot tell: {advice['because']} Until then, {advice_name(choice)}."
        several = "; ".join(advice_name(cell) for cell in advice["may_be_best"])
        yield f"May be the best: {several}."
    if advice["runner_up"]:
        yield f"Runner-up: {advice_name(advice['runner_up'])}. {advice['sure']}"
    else:
        yield advice["sure"]
    yield from advice["notes"]


def advice_name(cell: Json) -> str:
    """Return a cell in plain words, and its code: "container, pinned, 2 cores (cn pinned)"."""
    return f"{cell['name']} ({_code(cell)})"


def _code(cell: Json) -> str:
    return " ".join([cell["platform"], cell["mode"], *label("trial", cell)])


def advice_table(advice: Json) -> Table:
    """Return one row per candidate, the choice first, within 80 columns.

    `broke` counts the instances that broke the bound, `lost` the trials without usable times.
    """
    question = advice["question"]
    what, unit, heading = "cost", "", "cost per 10^6"
    if not question["prices"]:
        what, unit = question["compared"], "_ms"
        heading = f"{what} ms"
    rows = advice["candidates"]
    lost = any(_lost(row) for row in rows)
    suspect = any(row["suspect"] for row in rows)
    table = Table(
        title="Candidates, best first",
        title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False,
    )  # fmt: skip
    table.add_column("cell", overflow="fold", min_width=8)
    slo = question["slo_ms"] is not None
    several = [*(["broke"] if slo else []), *(["lost"] if lost else [])]
    several += ["suspect"] if suspect else []
    for name in ("cores", heading, "over the choice", "n", *several):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        over = row["over"]
        marks = [f"{row['slo']['broken']}/{row['slo']['instances']}"] if slo else []
        marks += [str(_lost(row) or "")] if lost else []
        marks += [str(row["suspect"] or "")] if suspect else []
        table.add_row(
            _code(row), str(row["cores"]),
            _span(*(row[f"{what}{end}{unit}"] for end in ("", "_least", "_most"))),
            _span(over["value"], over["low"], over["high"]) if over else "",
            str(row["replicates"]), *marks,
        )  # fmt: skip
    return table


def advice_legend(advice: Json) -> str:
    """Return what the brackets of the table hold, and what its columns count."""
    what = "cost" if advice["question"]["prices"] else advice["question"]["compared"]
    return (
        f"In brackets: {what} of the least and the most replicate; over the choice, the "
        f"{advice['confidence']:.0%} interval. n: replicates."
    )


def _lost(row: Json) -> int:
    return int(row["failed"] + row["invalid"] + row["rejected"])


def _span(value: float | None, low: float | None, high: float | None) -> str:
    """Return a number of four digits with its ends, as one word of a table."""
    if value is None:
        return "-"
    digits = max(0, 3 - math.floor(math.log10(value))) if value > 0 else 0
    known = ("?" if end is None else f"{end:.{digits}f}" for end in (low, high))
    return f"{value:.{digits}f} ({'-'.join(known)})"


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
        style = _STYLES[verdict["with_suspects"]]
        table.add_row(
            escape(f"{verdict['claim']} ({verdict['source']})"),
            f"[{style}]{verdict['answer']}[/{style}]",
            escape(f"{verdict['because']} Looked at: {verdict['effect']}."),
        )
    return table
