"""Advice, a comparison and the published data in a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from rich.text import Text

from virtbed.render.table import Table, bound
from virtbed_contract.codec import decode
from virtbed_contract.documents import Platform
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
    """Return one row per candidate, the choice first.

    Its evidence is how many replicates it has, how many instances broke the bound, how many trials
    were lost (without usable times), and how many are suspect.
    """
    question = advice["question"]
    time = question["compared"]
    what = "cost per 10^6" if question["prices"] else f"{time.removesuffix('_ms')} ms"
    table = Table(f"Candidates, best first (intervals of {advice['confidence']:.0%})")
    for heading in ("cell", "code"):
        table.add_column(heading)
    for heading in (what, "over the choice"):
        table.add_column(heading, number=True, measured=True)
    table.add_column("replicates", measured=True)
    for row in advice["candidates"]:
        number = _span(row, "cost", "") if question["prices"] else _time(row, time)
        over = row["over"]
        table.add_row(
            row["name"], _code(row), number,
            _span({f"x{end}": over[e] for end, e in _ENDS.items()}, "x", "") if over else "",
            ", ".join(_evidence(row, question["slo_ms"] is not None)),
        )  # fmt: skip
    return table


def _evidence(row: Json, bounded: bool) -> Iterator[str]:
    yield str(row["replicates"])
    if bounded:
        yield bound(f"{row['slo']['broken']} of {row['slo']['instances']} broke it")
    if lost := row["failed"] + row["invalid"] + row["rejected"]:
        yield bound(f"{lost} lost")
    if row["suspect"]:
        yield bound(f"{row['suspect']} suspect")


def _time(row: Json, time: str) -> str:
    return f"{row[time]:.4g}" if time == "latency_ms" else _span(row, "e2e", "_ms")


def _span(row: Json, name: str, unit: str) -> str:
    """Return a number of four digits with its interval, as a table's cell."""
    value, low, high = (row[f"{name}{end}{unit}"] for end in ("", "_low", "_high"))
    if value is None:
        return "-"
    digits = max(0, 3 - math.floor(math.log10(value))) if value else 0
    known = ("?" if end is None else f"{end:.{digits}f}" for end in (low, high))
    return f"{value:.{digits}f}" + ("" if low is high else f" ({' to '.join(known)})")


def comparison_table(comparison: Json) -> Table:
    """Return one row per cell of both sweeps: how time and cost have changed."""
    from virtbed_analysis import subject_words

    said = {row["name"]: decode(Platform, row) for row in comparison["platforms"]}
    table = Table(f"Second over first ({comparison['confidence']:.0%} simultaneous intervals)")
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
        table = Table(f"{app}: time over bare metal's, by cores")
        table.add_column("mode, platform")
        for cores in sizes:
            table.add_column(str(cores), number=True, measured=True)
        for mode, platform in dict.fromkeys((row["mode"], row["platform"]) for row in rows):
            figures = [found.get((mode, platform, cores)) for cores in sizes]
            words = ["-" if figure is None else f"{figure:.3f}" for figure in figures]
            table.add_row(f"{mode} {platform}", *words)
        yield table


def verdict_table(verdicts: list[Json], confidence: float) -> Table:
    """Return one row per finding: what is claimed, the answer, and what it rests on."""
    title = f"Findings ({confidence:.0%} simultaneous intervals for each finding)"
    table = Table(title, apart=True)
    for heading in ("finding", "answer", "because"):
        table.add_column(heading, measured=True)
    for verdict in verdicts:
        table.add_row(
            f"{verdict['claim']} ({verdict['source']})",
            Text(verdict["answer"], _STYLES[verdict["with_suspects"]]),
            f"{verdict['because']} Looked at: {verdict['effect']}.",
        )
    return table


def check_table(calibration: Json, entries: Mapping[str, Platform]) -> Table:
    """Return one row per check of a calibration: what was expected, and what was measured."""
    from virtbed_analysis import subject_words

    title = f"Calibration of {calibration['host']} ({calibration['confidence']:.0%} simultaneous"
    table = Table(f"{title} intervals)")
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
