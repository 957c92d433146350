"""Knows how the ratios are drawn: one SVG figure that follows the page's text colour.

Drawn through `Figure` alone; pyplot, which keeps global state, is never imported.
"""

from __future__ import annotations

import io
import re
from itertools import groupby
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from virtbed_analysis import words
from virtbed_analysis.estimate import CELL, SUBJECT

Row = dict[str, Any]

# Okabe and Ito's colour-blind-safe hues; the row labels and the fill (by mode) say the same, so
# nothing rests on colour alone.
_COLOURS = {"bm": "#8a8a8a", "vm": "#0072b2", "cn": "#d55e00", "vmcn": "#009e73"}
# Stands for "the colour of the page's text", which Matplotlib cannot name; replaced in the SVG.
_INK = "#010203"
_WIDTH_IN, _ROW_IN, _FRAME_IN = 5.6, 0.25, 0.95
_LINEAR = 5  # ratios further apart than this are drawn on a logarithmic axis
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "virtbed",  # else element ids are random and no two files are alike
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


def draw(cells: list[Row], beside: list[Row]) -> str | None:
    """Return an `<svg>` element: each cell's ratio to bare metal with its interval, by cores.

    `beside` has the rows of `published.beside`, whose ratios are drawn as ticks. Without any ratio
    it shows e2e times instead. One panel per application, scale and processor. Equal cells give
    equal text. None when there is no cell.
    """
    compared = [cell for cell in cells if cell["ratio"] is not None]
    shown, column = (compared, "ratio") if compared else (cells, "e2e_typical")
    if not shown:
        return None
    theirs = {_key(row): list(row["published"].values()) for row in beside}
    shown = [{**cell, "published": theirs.get(_key(cell), [])} for cell in shown]
    panels = [list(rows) for _, rows in groupby(shown, key=_subject)]
    lengths = [len(_lines(rows)) * _ROW_IN + _FRAME_IN for rows in panels]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_IN, sum(lengths)), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=lengths)[:, 0]
        for panel, rows in zip(axes, panels, strict=True):
            _panel(panel, rows, column)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return _inline(text.getvalue(), words.figure_text(shown))


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[key] for key in CELL)


def _subject(row: Row) -> list[Any]:
    return [row[key] for key in SUBJECT if key != "cores"]


def _lines(rows: list[Row]) -> list[int | Row]:
    """Return the panel's lines from the top: each number of cores, then its cells."""
    lines: list[int | Row] = []
    for cores, group in groupby(rows, key=lambda row: int(row["cores"])):
        lines += [cores, *group]
    return lines


def _panel(axes: Axes, rows: list[Row], column: str) -> None:
    lines = _lines(rows)
    is_ratio = column == "ratio"
    unit = "" if is_ratio else "_ms"
    labels = []
    for y, line in enumerate(lines):
        if isinstance(line, int):
            labels.append(words.count(line, "core"))
            continue
        labels.append(words.platform(line))
        value, low, high = (line[f"{column}{end}{unit}"] for end in ("", "_low", "_high"))
        colour = _COLOURS[line["platform"]]
        if low is not None:
            axes.plot([low, high], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt")
        axes.plot(
            value,
            y,
            marker="o" if line["mode"] == "vanilla" else "D",
            markersize=6.5,
            color=colour,
            markerfacecolor="none" if line["mode"] == "vanilla" else colour,
            markeredgewidth=1.6,
        )
        for ratio in line["published"]:
            axes.plot(ratio, y, marker="|", markersize=11, markeredgewidth=1.6, color=_INK)
        text = f"{value:.2f}" if is_ratio else words.ms(value)
        axes.text(1.02, y, text, transform=axes.get_yaxis_transform(), va="center")
    axes.set_yticks(range(len(lines)), labels)
    for tick, line in zip(axes.get_yticklabels(), lines, strict=True):
        tick.set_fontweight("bold" if isinstance(line, int) else "normal")
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.margins(x=0.08)
    if is_ratio:
        drawn = [ratio for row in rows for ratio in (row["ratio"], *row["published"])]
        if max(drawn) > _LINEAR * min(drawn):
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.axvline(1, color=_INK, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    axes.set_xlabel(
        "e2e time / bare metal (dashed: bare metal)" if is_ratio else "e2e time, ms (typical)"
    )
    axes.set_title(words.subject(rows[0]), loc="left", fontweight="bold")
    axes.grid(axis="x", color=_INK, alpha=0.15, linewidth=0.8)
    axes.patch.set_alpha(0)
    axes.tick_params(left=False)
    axes.spines[["left", "right", "top"]].set_visible(False)


def _inline(svg: str, alternative: str) -> str:
    """Return the SVG as an element of an HTML page: no prolog, namespaces, metadata or colour."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s+xmlns(:\w+)?=\"[^\"]*\"", "", svg)
    svg = svg.replace("xlink:href", "href").replace(_INK, "currentColor")
    # The size in points would keep a phone from shrinking the figure; viewBox keeps its shape.
    svg = re.sub(r'(<svg[^>]*?)\s+width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?)\s+height="[^"]*"', r"\1", svg, count=1)
    label = alternative.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1).strip()
