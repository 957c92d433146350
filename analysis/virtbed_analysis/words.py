"""Wording shared by reports, figures and the command line: names, units, rounding, sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType
from typing import Any

from virtbed_analysis.cells import DEFAULTED, MATCHED, is_plain
from virtbed_analysis.intervals import CONFIDENCE
from virtbed_contract.counts import count as count
from virtbed_contract.documents import Platform
from virtbed_contract.factors import SCENARIOS
from virtbed_contract.measures import JUDGED_BY, Judged

Row = dict[str, Any]

FOLD = 300  # a table with more rows is split into folded tables, one per subject
NONE = "\u2013"  # an en dash, for an empty cell


def percent() -> str:
    """Return the confidence of every interval, as in "95%"."""
    return f"{CONFIDENCE:.0%}"


def ms(value: float | None) -> str:
    """Return milliseconds rounded for readers.

    Example:
        >>> ms(8.413), ms(151.26), ms(5502.1)
        ('8.41', '151.3', '5,502')
    """
    if value is None:
        return NONE
    return f"{value:.2f}" if value < 100 else f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def ratio(value: float | None) -> str:
    """Return a ratio as tables show it: 1.351."""
    return NONE if value is None else f"{value:.3f}"


Entries = Mapping[str, Platform]
"""Platforms by name, which have their names in words."""


def undecided(names: str) -> str:
    """Return the sentence on platforms (report) or cells (advice) that may or may not be good.

    Example:
        >>> undecided("container (cn)")
        'Undecided, and not recommended yet: container (cn).'
    """
    return f"Undecided, and not recommended yet: {names}."


def instance(row: Row, entries: Entries = MappingProxyType({})) -> str:
    """Return "container, CPU quota (cn vanilla) at 1 core"."""
    return f"{platform(row, entries)} at {count(row['cores'], 'core')}"


def platform(row: Row, entries: Entries = MappingProxyType({})) -> str:
    """Return "container, CPU quota (cn vanilla)"; the code alone without an entry."""
    name = plainly(row, entries)
    return f"{name} ({code(row)})" if name else code(row)


def placed(row: Row, entries: Entries) -> str:
    """Return "container, CPU quota (cn vanilla) at 1 core, image_classification, tiny"."""
    return f"{instance(row, entries)}, {subject(row)}"


def plainly(row: Row, entries: Entries = MappingProxyType({})) -> str:
    """Return "container, CPU quota", or "container, CPU quota, twin".

    Args:
        row: A row with a platform and a mode; its `label`, if it has one, is returned as it is.
        entries: The platforms by name. For one that is not among them, the result is empty.
    """
    if "label" in row:
        return str(row["label"])
    entry = entries.get(row["platform"])
    return ", ".join([entry.in_words(row["mode"]), *_varied(row)]) if entry else ""


def code(row: Row) -> str:
    """Return "cn vanilla", or "cn vanilla twin" for a cell that calibrates the testbed."""
    return " ".join([row["platform"], row["mode"], *_varied(row)])


def _varied(row: Row) -> list[str]:
    """Return the words of factors without their default value; plain rows may lack the factors."""
    values = ((factor, row.get(factor.name, factor.default)) for factor in DEFAULTED)
    return [named for factor, value in values if (named := factor.words(value))]


def subject(row: Row) -> str:
    """Return "image_classification, tiny, matched threads, seeded weights".

    This is the heading of a group of rows; factors are named if they do not have their default.

    Example:
        >>> row = {"application": "image_classification", "scale": "tiny", "weights": "trained"}
        >>> row |= {"scenario": "offline", "thread_policy": "matched", "processor": "cpu"}
        >>> subject({**row, "variant": "plain"})
        'image_classification, tiny, offline, matched threads'
    """
    parts = [row["application"], row["scale"]]
    parts += [row["scenario"]] if row["scenario"] != SCENARIOS[0] else []
    parts += [factor.words(row[factor.name]) for factor in MATCHED]
    # Named with every time, because seeded weights do a model's work but give no useful answers.
    parts += ["seeded weights"] if row.get("weights") == "seeded" else []
    return ", ".join(filter(None, parts))


def judged(row: Row) -> Judged:
    """Return the measure of a row's scenario."""
    return JUDGED_BY[row["scenario"]]


def throughput(time: float) -> str:
    """Return the throughput that a ratio of times per sample means.

    Example:
        >>> throughput(1.25)
        '20.0% less throughput'
    """
    moved = 100 * (1 / time - 1)
    return f"{abs(moved):.1f}% {'less' if moved < 0 else 'more'} throughput"


def of_what(row: Row, value: float | None) -> str:
    """Return what a ratio is of: "of latency"; empty for e2e time.

    For throughput: "of time per sample: 20.0% less throughput".
    """
    measure = judged(row)
    if measure.name == "e2e" or value is None:
        return ""
    more = f": {throughput(value)}" if measure.better == "higher" else ""
    return f"of {measure.time}{more}"


def times_of(scenarios: Iterable[str]) -> str:
    """Return what times and ratios are of, by scenario; empty if all are of e2e.

    "latency, queue included (server and multi_stream); time per sample, of which more is less
    throughput (offline)".
    """
    names = {**dict.fromkeys(scenarios)}
    named: dict[str, list[str]] = {}
    for name, measure in JUDGED_BY.items():
        if name in names:
            named.setdefault(measure.name, []).append(name)
    if set(named) <= {"e2e"}:
        return ""
    parts = (f"{_TIMES[name]} ({' and '.join(of)})" for name, of in named.items())
    return "; ".join(parts)


_TIMES = {
    "e2e": "e2e time",
    "latency": "latency, queue included",
    "throughput": "time per sample, of which more is less throughput",
}


def by_subject(rows: Iterable[Row]) -> list[tuple[str, list[Row]]]:
    """Return sorted rows grouped by subject, each group with the subject's name."""
    return [(name, list(group)) for name, group in groupby(rows, key=subject)]


def reach(row: Row) -> str:
    """Return the cores up to which more cores pay, of a row of `scaling.efficient_range`."""
    if row["low"] is None:
        return "unknown"
    least = row["open"] or row["beyond"] == "cannot tell"
    return f"at least {row['cores']}" if least else str(row["cores"])


def doubling(row: Row) -> str:
    """Return the speed-up of the doubling that ends an efficient range, or the last within it."""
    first = row["cores"] // 2 if row["open"] else row["cores"]
    span = "without an interval"
    if row["low"] is not None:
        span = f"{row['low']:.2f} to {row['high']:.2f}"
    doubled = f"{first} to {count(2 * first, 'core')}"
    text = f"{doubled}: {row['speed_up']:.2f} times the speed ({span})"
    return f"{text}: {row['beyond']}" if row["beyond"] else text


def shown(unit: str, value: float | None) -> str:
    """Return a measure's value, rounded for its unit: 693, 0.51."""
    return ms(value) if unit == "ms" or value is None else f"{value:,.4g}"


def share(value: float | None) -> str:
    """Return a share as a decimal number: 0.0625."""
    return NONE if value is None else f"{value:.3g}"


def percentage(value: float | None) -> str:
    """Return a share in percent with two digits: 0.35%, 3%, 12%."""
    return NONE if value is None else f"{100 * value:.2g}%" if value < 1 else f"{100 * value:,.0f}%"


def points(row: Row, unit: str = "") -> str:
    """Return a share of bare metal's time in percent, signed, with its interval.

    Example:
        >>> points({"points": 0.58, "low": 0.43, "high": 0.75}, "%")
        '+58.0% (+43.0 to +75.0)'
    """
    value, low, high = (
        None if row[end] is None else f"{100 * row[end]:+.1f}" for end in ("points", "low", "high")
    )
    return f"{value}{unit}" if low is None else f"{value}{unit} ({low} to {high})"


def signed(share: float) -> str:
    """Return a change in percent with two digits and its sign.

    Example:
        >>> signed(0.619), signed(-0.0023), signed(16.6)
        ('+62%', '-0.23%', '+1,700%')
    """
    percent = 100 * share
    large = f"{float(f'{percent:.2g}'):+,.0f}%"
    return large if abs(percent) >= 99.5 else f"{percent:+.2g}%"


def duration(hours: float) -> str:
    """Return a duration in minutes or hours, given in hours.

    Example:
        >>> duration(0.094), duration(2.25)
        ('6 min', '2.2 h')
    """
    return f"{60 * hours:.0f} min" if hours < 1.5 else f"{hours:.1f} h"


def agreement(study: Row) -> str:
    """Return how many of a sweep's ratios are within the range of the published ones."""
    answers = study["answers"]
    return (
        f"For {count(len(study['rows']), 'cell')}, the study published the same platform, size and "
        f"mode; {study['compared']} of them have an interval here. Compared with the range of the "
        f"published applications, widened by {100 * study['margin']:.3g}%, the whole interval is "
        f"inside for {answers['inside']}, outside for {answers['outside']}, and undecided for "
        f"{answers['cannot tell']}."
    )


def rise(fail: Row) -> str:
    """Return a sentence on a comparison's `fail`: whether anything rose above a limit.

    Example:
        >>> rise({"limit": 0.03, "verdict": "not above", "judged": 4, "above": [], "unclear": []})
        'Nothing is more than 3% above the first: 4 effects judged.'
    """
    limit = f"{100 * fail['limit']:.3g}%"
    rows = fail["above"] or fail["unclear"]
    named = [
        f"{_what(row)} of {instance(row)}, {subject(row)}: {_risen(row)}" for row in rows[:5]
    ] + ([f"and {len(rows) - 5} more"] if len(rows) > 5 else [])
    if fail["verdict"] == "above":
        return f"Clearly more than {limit} above the first: {'; '.join(named)}."
    if fail["verdict"] == "not above":
        return f"Nothing is more than {limit} above the first: {fail['judged']} effects judged."
    if not fail["judged"] and not rows:
        return f"No effect has an interval: whether any rose by more than {limit} is unknown."
    return f"Nothing is clearly more than {limit} above the first; it may be: {'; '.join(named)}."


def _what(row: Row) -> str:
    """Return what rose: "time" for e2e, else the name of the time."""
    measure = judged(row)
    return str(row["what"]) if row["what"] != "time" or measure.name == "e2e" else measure.time


def _risen(row: Row) -> str:
    """Return the value of a rise, and why it is undecided."""
    value = ratio(row["effect"]["value"]) if row["effect"] else ""
    return ", ".join(filter(None, (value, row["why"])))


def interval(row: Row) -> str:
    """Return "1.31 to 1.39", or why there is no interval."""
    if row["ratio_low"] is None:
        return f"no interval from {count(row['ratio_replicates'], 'replicate')}"
    return f"{row['ratio_low']:.2f} to {row['ratio_high']:.2f}"


def summary(cells: list[Row], emulated: int) -> str:
    """Return the report in one sentence, computed from its cells."""
    if not cells:
        only = f" ({count(emulated, 'emulated cell')}, functional evidence only)"
        return f"Nothing has been measured yet{only if emulated else ''}."
    plain = (c for c in cells if is_plain(c) and c["ratio"] is not None)
    compared = sorted(plain, key=lambda c: float(c["ratio"]))
    if not compared:
        if all(cell["baseline"] for cell in cells):
            return (
                f"{count(len(cells), 'cell').capitalize()} measured, of bare metal alone: nothing "
                "to compare with it yet."
            )
        return (
            f"{count(len(cells), 'cell').capitalize()} measured, none compared with bare metal: "
            "no pinned bare-metal result shares size, application and replicate with another cell."
        )
    several = len({subject(cell) for cell in compared}) > 1
    most, least = compared[-1], compared[0]
    of = f" for {subject(most)}" if several else ""
    text = (
        f"{instance(most)}{of} takes {most['ratio']:.2f} times bare metal{_times(most)} "
        f"({percent()} interval {interval(most)})"
    )
    if len(compared) > 1:
        of = f" for {subject(least)}" if several else ""
        text += (
            f", the most of {len(compared)} cells compared; "
            f"{instance(least)}{of}, the least, takes {least['ratio']:.2f} "
            f"times{_times(least)} ({interval(least)}); intervals are per cell, not adjusted for "
            "this choice"
        )
    return text + "."


def _times(row: Row) -> str:
    measure = judged(row)
    return "" if measure.name == "e2e" else f" (of {measure.time})"


def progress(counts: dict[str, int | None]) -> str:
    """Return how many trials a report is based on, of those planned."""
    done = counts["analysed"]
    planned = counts["planned"]
    of = count(done or 0, "trial") if planned is None else f"{done} of {planned} planned trials"
    parts = [f"{of} analysed"]
    if counts.get("functional"):
        parts.append(f"{counts['functional']} set aside (their application computes nothing)")
    if counts["emulated"]:
        parts.append(f"{counts['emulated']} of them emulated")
    parts += [f"{counts[key]} {key}" for key in ("suspect", "failed", "waiting") if counts[key]]
    if counts["unneeded"]:
        parts.append(f"{counts['unneeded']} not needed at the plan's precision")
    if rejected := counts["rejected"]:
        parts.append(f"{count(rejected, 'file')} rejected")
    return ", ".join(parts) + "."


def extremes(rows: Sequence[Row], column: str, say: Callable[[float], str]) -> str:
    """Return the number of cells of a panel, its least and its most: the text alternative."""
    known = [row for row in rows if row[column] is not None]
    if not known:
        return f"{count(len(rows), 'cell')}, none known."
    least, most = (find(known, key=lambda row: float(row[column])) for find in (min, max))
    if len(rows) == 1:
        return f"{_place(most)}, {say(most[column])}."
    return (
        f"{count(len(rows), 'cell')}, from {say(least[column])} ({_place(least)}) "
        f"to {say(most[column])} ({_place(most)})."
    )


def _place(row: Row) -> str:
    return f"{plainly(row) or code(row)} at {count(row['cores'], 'core')}"


def drawn(panels: int, subjects: int) -> str:
    """Return a sentence on the subjects that a figure shows; empty if it shows all."""
    if panels == subjects:
        return ""
    return f"Drawn are {panels} of {subjects}: those whose ratios, if any, are furthest from 1."


def numbers_in_brief(numbers: Iterable[int]) -> str:
    """Return sorted whole numbers, with runs shortened: "1-5, 8"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
