"""Advice, a comparison and the published data in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from rich.table import Table
from rich.text import Text

from virtbed.render.table import Table as Fitted
from virtbed.render.table import bound
from virtbed_contract.codec import decode
from virtbed_contract.documents import Platform
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


def comparison_table(comparison: Json) -> Fitted:
    """Return one row per cell of both sweeps: how time and cost have changed."""
    from virtbed_analysis import subject_words

    said = {row["name"]: decode(Platform, row) for row in comparison["platforms"]}
    table = Fitted(f"Second over first ({comparison['confidence']:.0%} simultaneous intervals)")
    table.add_column("application", section=True)
    for heading in ("platform", "code"):
        table.add_column(heading)
    table.add_column("cores", number=True)
    for heading in ("time", "cost against bare metal"):
        table.add_column(heading, measured=True)
    for row in comparison["cells"]:
        table.add_row(
            subject_words(row), said[row["platform"]].in_words(row["mode"]),
            f"{row['platform']} {row['mode']}", str(row["cores"]), _change(row["time"]),
            _change(row["cost"]),
        )  # fmt: skip
    return table


def _change(effect: Json | None) -> str:
    from virtbed_analysis import changed

    if effect is None:
        return "-"
    figure = _figure({f"x{end}": effect[e] for end, e in _ENDS.items()}, "x", "")
    return f"{bound(figure)} {changed(effect)}"


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


def ratio_tables(document: Json) -> Iterator[Fitted]:
    """Give one table per application: a row for each platform and mode, a column for each size."""
    for app, group in groupby(document["ratios"], key=lambda row: row["app"]):
        rows = list(group)
        sizes = sorted({row["cores"] for row in rows})
        found = {(row["mode"], row["platform"], row["cores"]): row["ratio"] for row in rows}
        table = Fitted(f"{app}: time over bare metal's, by cores")
        table.add_column("mode, platform")
        for cores in sizes:
            table.add_column(str(cores), number=True, measured=True)
        for mode, platform in dict.fromkeys((row["mode"], row["platform"]) for row in rows):
            figures = [found.get((mode, platform, cores)) for cores in sizes]
            words = ["-" if figure is None else f"{figure:.3f}" for figure in figures]
            table.add_row(f"{mode} {platform}", *words)
        yield table


def verdict_table(verdicts: list[Json], confidence: float) -> Fitted:
    """Return one row per finding: what is claimed, the answer, and what it rests on."""
    title = f"Findings ({confidence:.0%} simultaneous intervals for each finding)"
    table = Fitted(title, apart=True)
    for heading in ("finding", "answer", "because"):
        table.add_column(heading, measured=True)
    for verdict in verdicts:
        table.add_row(
            f"{verdict['claim']} ({verdict['source']})",
            Text(verdict["answer"], _STYLES[verdict["answer"]]),
            f"{verdict['because']} Looked at: {verdict['effect']}.",
        )
    return table


def check_table(calibration: Json, entries: Mapping[str, Platform]) -> Fitted:
    """Return one row per check of a calibration: what was expected, and what was measured."""
    from virtbed_analysis import subject_words

    title = f"Calibration of {calibration['host']} ({calibration['confidence']:.0%} simultaneous"
    table = Fitted(f"{title} intervals)")
    table.add_column("application", section=True)
    for heading in ("platform", "code"):
        table.add_column(heading)
    table.add_column("cores", number=True)
    table.add_column("check")
    for heading in ("expected", "measured"):
        table.add_column(heading, number=True, measured=True)
    for heading in ("answer", "because"):
        table.add_column(heading, measured=True)
    for row in calibration["checks"]:
        platform = entries.get(row["platform"])
        figures = {"x": row["estimate"], "x_low": row["low"], "x_high": row["high"]}
        passed = Text("passed", "green") if row["passed"] else Text("FAILED", "red")
        table.add_row(
            subject_words(row), platform.in_words(row["mode"]) if platform else "",
            f"{row['platform']} {row['mode']}", str(row["cores"]), row["check"],
            "-" if row["expected"] is None else f"{row['expected']:g}", _figure(figures, "x", ""),
            passed, row["reason"],
        )  # fmt: skip
    return table
