"""Terminal output of `virtbed advise`, `compare`, `published` and `calibrate`.

The documents come from virtbed_analysis, which is imported only where it is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from rich.text import Text

from virtbed.render.table import Table, bound
from virtbed_contract.codec import decode
from virtbed_contract.counts import count
from virtbed_contract.documents import Platform
from virtbed_contract.factors import label

Json = dict[str, Any]

_STYLES = {"supported": "green", "refuted": "red", "inconclusive": "yellow", "not tested": "dim"}
_VERDICTS = {"passed": "green", "failed": "red", "cannot tell": "yellow"}
_ENDS = {"": "value", "_low": "low", "_high": "high"}


def advice_lines(advice: Json) -> Iterator[str]:
    """Yield advice as sentences, the answer first; lines are not wrapped.

    Args:
        advice: The document of `virtbed_analysis.advise`.
    """
    choice = advice["choice"]
    if choice is None:
        yield advice["because"]
        return
    if not _undecided(advice):
        yield f"Choose {advice_name(choice)}. {advice['because']}"
    else:
        yield from _open(advice)
    if advice["runner_up"]:
        yield f"Runner-up: {advice_name(advice['runner_up'])}. {advice['sure']}"
    else:
        yield advice["sure"]
    yield from advice["notes"]


def _undecided(advice: Json) -> bool:
    return bool(advice["answer"] == "cannot tell")


def _open(advice: Json) -> Iterator[str]:
    """Yield the sentences of advice that recommends nothing, in the words of the report."""
    from virtbed_analysis import undecided_words

    several = "; ".join(advice_name(cell) for cell in advice["may_be_best"])
    yield f"Cannot tell: {advice['because']}"
    yield undecided_words(several)
    why = (
        ""
        if advice["question"]["prices"]
        else ", the smallest of those that are typically (in the median) as fast as the fastest"
    )
    yield f"If you must start with one now: {advice_name(advice['choice'])}{why}."


def advice_name(cell: Json) -> str:
    """Return a cell in words with its code: "container, pinned, 2 cores (cn pinned)"."""
    return f"{cell['name']} ({_code(cell)})"


def _code(cell: Json) -> str:
    return " ".join([cell["platform"], cell["mode"], *label("trial", cell)])


def advice_table(advice: Json) -> Table:
    """Return a table with one row per candidate cell: first the choice, or the one to start with.

    The column "replicates" also has the number of instances that broke the bound, of lost trials
    (without usable times) and of suspect trials.
    """
    what, unit, heading = "cost", "", "cost per 10^6"
    if not advice["question"]["prices"]:
        what = advice["question"]["compared"]
        unit, heading = ("_per_s", "samples/s") if what == "throughput" else ("_ms", f"{what} ms")
    first = "the one to start with" if _undecided(advice) else "the choice"
    table = Table(f"Candidates, {first} first")
    for name in ("cell", "code"):
        table.add_column(name)
    for name in (heading, "over the first"):
        table.add_column(name, number=True, measured=True)
    table.add_column("replicates", measured=True)
    for row in advice["candidates"]:
        over = row["over"]
        table.add_row(
            row["name"], _code(row),
            _span(*(row[f"{what}{end}{unit}"] for end in ("", "_least", "_most"))),
            _span(over["value"], over["low"], over["high"]) if over else "",
            ", ".join(_evidence(row, advice["question"]["slo_ms"] is not None)),
        )  # fmt: skip
    return table


def advice_legend(advice: Json) -> str:
    """Return the legend of the table: what the brackets contain."""
    compared = advice["question"]["compared"]
    what = "cost" if advice["question"]["prices"] else compared
    of = " of times per sample: above 1 is less throughput"
    return (
        f"In brackets: {what} of the replicate with the least and with the most; in the column "
        f"'over the first', the {advice['confidence']:.0%} interval"
        f"{of if what == 'throughput' else ''}."
    )


def mark_lines(rows: list[Json]) -> Iterator[str]:
    """Yield the marks (reasons to doubt the numbers) of cells: a line per mark, with its cells."""
    from virtbed_analysis import subject_words

    against: dict[str, list[str]] = {}
    for row in rows:
        size = count(row["cores"], "core")
        cell = f"{subject_words(row)}, {row['platform']} {row['mode']}, {size}"
        for mark in row["marks"]:
            against.setdefault(f"{mark['text']} ({mark['why']})", []).append(cell)
    for mark_text, cells in against.items():
        yield f"marked: {mark_text}: {'; '.join(cells)}"


def _evidence(row: Json, bounded: bool) -> Iterator[str]:
    """Yield the parts of a candidate's evidence; see `advice_table`."""
    yield str(row["replicates"])
    if bounded:
        yield bound(f"{row['slo']['broken']} of {row['slo']['instances']} broke it")
    if lost := row["failed"] + row["invalid"] + row["rejected"]:
        yield bound(f"{lost} lost")
    if row["suspect"]:
        yield bound(f"{row['suspect']} suspect")


def _span(value: float | None, low: float | None, high: float | None) -> str:
    """Return a number with its interval, to four digits, as a table's cell."""
    if value is None:
        return "-"
    digits = max(0, 3 - math.floor(math.log10(value))) if value > 0 else 0
    if low is None and high is None:
        return f"{value:.{digits}f} (no interval)"
    known = ("?" if end is None else f"{end:.{digits}f}" for end in (low, high))
    return f"{value:.{digits}f} ({' to '.join(known)})"


def comparison_tables(comparison: Json) -> Iterator[Table]:
    """Yield a table of changes in time, and one of changes in cost; one row per common cell.

    Args:
        comparison: The document of `virtbed_analysis.compare`.
    """
    from virtbed_analysis import changed, subject_words

    platforms = {row["name"]: decode(Platform, row) for row in comparison["platforms"]}
    titles = {"time": "Time", "cost": "Cost against bare metal"}
    for what, title in titles.items():
        rows = [row for row in comparison["cells"] if row[what]]
        known = any(row[what]["low"] is not None for row in rows)
        spread = f"{comparison['confidence']:.0%} simultaneous intervals of {comparison['unit']}s"
        table = Table(f"{title}, second over first ({spread if known else 'without intervals'})")
        table.add_column("application", section=True)
        for heading in ("platform", "code"):
            table.add_column(heading)
        table.add_column("cores", number=True)
        table.add_column(what, number=True, measured=True)
        table.add_column("answer", measured=True)
        for row in rows:
            effect = row[what]
            table.add_row(
                subject_words(row), platforms[row["platform"]].in_words(row["mode"]),
                f"{row['platform']} {row['mode']}", str(row["cores"]),
                _figure({f"x{end}": effect[e] for end, e in _ENDS.items()}, "x", ""),
                changed(effect) if known else "",
            )  # fmt: skip
        if rows:
            yield table


def _figure(row: Json, name: str, unit: str) -> str:
    """Return a number with its interval, as a table's cell; "-" if there is none."""
    value, low, high = (row[f"{name}{end}{unit}"] for end in ("", "_low", "_high"))
    if value is None:
        return "-"
    return f"{value:.4g}" if low is None else f"{value:.4g} ({low:.4g} to {high:.4g})"


def ratio_tables(document: Json) -> Iterator[Table]:
    """Yield one table per application of published ratios.

    Each has one row per platform and mode, and one column per size.
    """
    for app, group in groupby(document["ratios"], key=lambda row: row["app"]):
        rows = list(group)
        sizes = sorted({row["cores"] for row in rows})
        ratios = {(row["mode"], row["platform"], row["cores"]): row["ratio"] for row in rows}
        table = Table(f"{app}: time over bare metal's, by cores")
        table.add_column("mode, platform")
        for cores in sizes:
            table.add_column(str(cores), number=True, measured=True)
        for mode, platform in dict.fromkeys((row["mode"], row["platform"]) for row in rows):
            figures = [ratios.get((mode, platform, cores)) for cores in sizes]
            words = ["-" if figure is None else f"{figure:.3f}" for figure in figures]
            table.add_row(f"{mode} {platform}", *words)
        yield table


def verdict_table(verdicts: list[Json], confidence: float) -> Table:
    """Return a table with one row per finding: the claim, the answer, and the reason."""
    title = f"Findings ({confidence:.0%} simultaneous intervals for each finding)"
    table = Table(title, apart=True)
    for heading in ("finding", "answer", "because"):
        table.add_column(heading, measured=True)
    for verdict in verdicts:
        table.add_row(
            f"{verdict['claim']} ({verdict['source']})",
            Text(verdict["answer"], _STYLES[verdict["with_suspects"]]),
            f"{verdict['because']} Examined: {verdict['effect']}.",
        )
    return table


def check_table(calibration: Json, entries: Mapping[str, Platform]) -> Table:
    """Return a table with one row per check of a calibration: expected and measured ratio.

    Args:
        calibration: The document of `virtbed_analysis.calibrate`.
        entries: The platforms by name.
    """
    from virtbed_analysis import subject_words

    title = f"Calibration of {calibration['host']} (e2e time, {calibration['confidence']:.0%}"
    table = Table(f"{title} simultaneous intervals)")
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
        table.add_row(
            subject_words(row), platform.in_words(row["mode"]) if platform else "",
            f"{row['platform']} {row['mode']}", str(row["cores"]), row["check"],
            "-" if row["expected"] is None else f"{row['expected']:g}", _figure(figures, "x", ""),
            Text(row["verdict"], _VERDICTS[row["verdict"]]),
            " ".join([row["reason"], *(f"But: {one['text']}" for one in row["warnings"])]).strip(),
        )  # fmt: skip
    return table
