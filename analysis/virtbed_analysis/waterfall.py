"""The waterfall figure: each platform's cost over bare metal, taken apart into steps.

Its numbers are those of `explained`; `figures.draw` includes it as `explained`.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes

from virtbed_analysis import canvas, words
from virtbed_analysis.cells import SUBJECT
from virtbed_contract.codec import decode
from virtbed_contract.documents import Platform

Json = dict[str, Any]
_LINE_IN, _FRAME_IN = 0.32, 1.35
_LABEL = 28  # characters per line of a label
# Colour, hatch (which repeats what the colour shows) and legend of each kind of step.
_STYLES = {
    "part": ("#e69f00", "////", "a part of the cost"),
    "mode": ("#56b4e9", "", "how CPUs are limited"),
    "rest": ("#cc79a7", "\\\\\\\\", "everything not varied"),
    "total": ("#8a8a8a", "", "the whole cost"),
    "change": ("none", "....", "one thing changed"),
}


def panels(content: Json) -> list[str]:
    """Return one panel per subject of a report's `explained`."""
    entries = {row["name"]: decode(Platform, row) for row in content["platforms"]}
    subjects = groupby(
        content.get("explained", ()), key=lambda row: [row[n] for n in (*SUBJECT, "weights")]
    )
    return [
        _panel(f"explained-{number}", [*waterfalls], entries)
        for number, (_, waterfalls) in enumerate(subjects, 1)
    ]


def _panel(name: str, waterfalls: list[Json], entries: words.Entries) -> str:
    time = words.judged(waterfalls[0]).time
    label = f"{time}, % of pinned bare metal's"
    lines: list[Json | str] = []
    for waterfall in waterfalls:
        of = f" (n = {waterfall['n']})" if waterfall["n"] else ""
        lines += [f"{entries[waterfall['platform']].words}{of}", *waterfall["rows"]]
    title = f"{words.subject(waterfalls[0])}, {words.count(waterfalls[0]['cores'], 'core')}"

    def draw(axes: Axes) -> None:
        _bars(axes, [(y, line) for y, line in enumerate(lines) if not isinstance(line, str)])
        _labels(axes, lines)
        canvas.set_x_label(axes, label)

    note = (
        "n: replicates, each on fresh instances, next to the platform; "
        f"lines: {words.percent()} intervals of each step, Student's t over replicates, "
        "simultaneous for a platform's steps"
    )
    if any(row["kind"] == "change" for waterfall in waterfalls for row in waterfall["rows"]):
        note += "; a change has an n of its own, and an interval that is not simultaneous"
    alternative = f"{label}: {' '.join(row['sentence'] for row in waterfalls)}"
    height_in = len(lines) * _LINE_IN + _FRAME_IN
    return canvas.panel(
        name, f"What the cost is made of: {title}", height_in, alternative, draw, note
    )


def _bars(axes: Axes, rows: Iterable[tuple[int, Json]]) -> None:
    """Draw a bar from each row's start to its end, with the interval of its length."""
    named: set[str] = set()
    for y, row in rows:
        colour, hatch, meaning = _STYLES[row["kind"]]
        start, end = 100 * row["start"], 100 * row["end"]
        label = None if meaning in named else meaning  # once in the legend
        named.add(meaning)
        axes.barh(
            y, end - start, left=start, height=0.7, color=colour, hatch=hatch, label=label,
            edgecolor=canvas.INK, linewidth=0.5,
        )  # fmt: skip
        if row["low"] is not None:
            low, high = (start + 100 * row[side] for side in ("low", "high"))
            axes.hlines(y, low, high, colors=canvas.INK, linewidth=1.6)
        axes.plot(end, y, "|", color=canvas.INK, markersize=9)
    axes.axvline(100, color=canvas.INK, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    canvas.legend(axes, 2)


def _labels(axes: Axes, lines: list[Json | str]) -> None:
    labels = [line if isinstance(line, str) else fill(line["what"], _LABEL) for line in lines]
    axes.set_yticks(range(len(lines)), labels)
    for y, (tick, line) in enumerate(zip(axes.get_yticklabels(), lines, strict=True)):
        if isinstance(line, str):
            tick.set_fontweight("bold")
            continue
        n = f", n = {line['n']}" if line["kind"] == "change" else ""
        value = f"{100 * line['points']:+.1f}{n}"
        axes.text(1.04, y, value, transform=axes.get_yaxis_transform(), va="center")
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.tick_params(left=False)
    axes.grid(axis="x", color=canvas.INK, alpha=0.15, linewidth=0.8)
