"""One panel of a figure: how it is set, and how it becomes an SVG element of a page.

Drawn through `Figure` alone; pyplot, which keeps global state, is never imported.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterable, Mapping
from html import escape
from itertools import groupby
from textwrap import fill
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from virtbed_analysis import words

Row = dict[str, Any]
Line = int | Row
"""A line of a panel from the top: a number of cores, or a row of that many."""

# Okabe and Ito's colour-blind-safe hues, as are those of platforms. Labels, marks (shaped by
# platform, filled by mode) and hatches say the same, so nothing rests on colour alone.
PART_COLOURS = ("#e69f00", "#56b4e9", "#cc79a7", "#009e73")
PART_HATCHES = ("////", "", "\\\\\\\\", "----")
# Stands for "the colour of the page's text", which Matplotlib cannot name; replaced in the SVG.
INK = "#010203"
WIDTH_IN = 4.6
_LINE_IN = 0.23
_MARK_IN, _CHARACTER_IN, _ROW_IN = 0.5, 0.075, 0.19  # of a legend
_TITLE = 44  # characters of a line of it
_LABEL = 24  # and of one of a platform's label
_LINEAR = 5  # values further apart than this are drawn on a logarithmic axis
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "virtbed",  # else element ids are random and no two files are alike
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "hatch.linewidth": 0.6,
}


def panel(
    name: str, title: str, height_in: float, caption: str, draw: Callable[[Axes], None]
) -> str:
    """Return an `<svg>` of one panel. Equal input gives equal text.

    `name` begins the ids of its elements, so it must be the panel's own within a page; `caption`
    follows the title in the text alternative.
    """
    with mpl.rc_context(_STYLE):
        layout = ConstrainedLayoutEngine()
        figure = Figure(figsize=(WIDTH_IN, height_in), layout=layout)
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        axes.patch.set_alpha(0)
        axes.spines[["left", "right", "top"]].set_visible(False)
        axes.set_title(fill(title, _TITLE), loc="left", fontweight="bold")
        axes.set_axisbelow(True)
        draw(axes)
        # Once: by itself, Matplotlib draws it all another time to find its layout.
        layout.execute(figure)
        figure.set_layout_engine("none")
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return _inline(text.getvalue(), name, f"{title}. {caption}")


def lines(rows: Iterable[Row]) -> list[Line]:
    """Return the lines of sorted rows: each number of cores, then its rows."""
    found: list[Line] = []
    for cores, group in groupby(rows, key=lambda row: int(row["cores"])):
        found += [cores, *group]
    return found


def spread_cores(cores: Iterable[int], curves: int) -> list[float]:
    """Return by how much to multiply the cores of each curve, so that marks stand side by side.

    All together they stay within a third of the way to the next size.
    """
    logs = np.log2(sorted(set(cores)))
    room = float(np.diff(logs).min()) / 3 if len(logs) > 1 else 0.3
    return [float(2**aside) for aside in np.linspace(-room / 2, room / 2, curves + 2)[1:-1]]


def height_of(panel_lines: list[Line], frame_in: float = 0.85) -> float:
    """Return the height in inches of a panel of that many lines."""
    return len(panel_lines) * _LINE_IN + frame_in


def set_lines(axes: Axes, panel_lines: list[Line], value: Callable[[Row], str]) -> None:
    """Label each line on its left, and give its value in words on its right."""
    labels = [
        words.count(line, "core") if isinstance(line, int) else fill(words.plainly(line), _LABEL)
        for line in panel_lines
    ]
    axes.set_yticks(range(len(labels)), labels)
    for y, (tick, line) in enumerate(zip(axes.get_yticklabels(), panel_lines, strict=True)):
        if isinstance(line, int):
            tick.set_fontweight("bold")
        else:
            axes.text(1.04, y, value(line), transform=axes.get_yaxis_transform(), va="center")
    axes.set_ylim(len(panel_lines) - 0.4, -0.6)
    axes.tick_params(left=False)
    axes.grid(axis="x", color=INK, alpha=0.15, linewidth=0.8)


def points(axes: Axes, x: list[float], y: list[float], row: Row, **style: Any) -> None:
    """Mark points in the row's `colour` and by its `mark`: open if vanilla, filled if pinned."""
    colour = row["colour"]
    usual: dict[str, Any] = {"markersize": 6, "linestyle": "none"}
    axes.plot(
        x, y, color=colour, marker=row["mark"], markeredgewidth=1.6,
        markerfacecolor="none" if row["mode"] == "vanilla" else colour, **(usual | style),
    )  # fmt: skip


def ticks(axes: Axes, at: list[tuple[int, float]]) -> None:
    """Mark (y, x) by ticks, and by arrowheads at the edge where x is outside what is drawn so far.

    Far-off values of another study would press all that was measured here into a corner.
    """
    least, most = axes.get_xlim()
    axes.set_xlim(least, most)
    for y, x in at:
        marker = "|" if least <= x <= most else "<" if x < least else ">"
        axes.plot(
            min(max(x, least), most), y, marker=marker, markersize=11 if marker == "|" else 6,
            markeredgewidth=1.4, markerfacecolor="none", color=INK, clip_on=False,
        )  # fmt: skip


def stacked(
    axes: Axes, panel_lines: list[Line], parts: Mapping[str, Callable[[Row], float]]
) -> None:
    """Draw a bar per row, its named parts one after another."""
    kept = [(y, line) for y, line in enumerate(panel_lines) if not isinstance(line, int)]
    ys = [y for y, _ in kept]
    offsets = [0.0] * len(kept)
    for (name, size), colour, hatch in zip(parts.items(), PART_COLOURS, PART_HATCHES, strict=False):
        sizes = [size(row) for _, row in kept]
        axes.barh(
            ys, sizes, left=offsets, height=0.72, color=colour, hatch=hatch, label=name,
            edgecolor=INK, linewidth=0.5,
        )  # fmt: skip
        offsets = [start + size for start, size in zip(offsets, sizes, strict=True)]
    legend(axes, len(parts))


def legend(axes: Axes, columns: int) -> None:
    """Name what is labelled below the panel, in fewer columns where the names are long."""
    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)
    names = [str(name) for name in axes.get_legend_handles_labels()[1]]
    fitting = next((n for n in range(columns, 1, -1) if _width_in(names, n) <= WIDTH_IN), 1)
    more = math.ceil(len(names) / fitting) - math.ceil(len(names) / columns)
    figure.set_figheight(figure.get_figheight() + more * _ROW_IN)
    figure.legend(loc="outside lower left", ncols=fitting, frameon=False, handlelength=1.8)


def _width_in(names: list[str], columns: int) -> float:
    """Return how wide a legend is about, which fills one column after another."""
    parts = np.array_split(np.array(names, dtype=object), min(columns, len(names) or 1))
    return sum(_MARK_IN + _CHARACTER_IN * max(map(len, part), default=0) for part in parts)


def set_scale(axis: Axis, values: Iterable[float | None], logarithmic: bool = False) -> None:
    """Make an axis logarithmic where what is drawn on it lies far apart, or if asked.

    `values` are all that is drawn, ends of intervals included; of None nothing is drawn.
    """
    found = [value for value in values if value is not None]
    wide = max(found) > _LINEAR * min(found)
    if wide or logarithmic:
        across = axis is axis.axes.xaxis
        (axis.axes.set_xscale if across else axis.axes.set_yscale)("log")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(5))
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.7g}"))


def set_cores(axes: Axes, cores: Iterable[int], host_cpus: int | None = None) -> None:
    """Make the x axis one of cores: a tick for each size, doublings equally far apart.

    With `host_cpus` each tick also has the size's share of the host.
    """
    sizes = sorted(set(cores))
    shares = [f"\n{words.share(size / host_cpus)}" if host_cpus else "" for size in sizes]
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [f"{size}{share}" for size, share in zip(sizes, shares, strict=True)])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("cores, and their share of the host's CPUs" if host_cpus else "cores")
    axes.grid(axis="y", color=INK, alpha=0.15, linewidth=0.8)


def _inline(svg: str, name: str, alternative: str) -> str:
    """Return the SVG as an element of an HTML page: no prolog, namespaces, metadata or colour."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s+xmlns(:\w+)?=\"[^\"]*\"", "", svg)
    svg = svg.replace("xlink:href", "href").replace(INK, "currentColor")
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-")
    # The size in points would keep a phone from shrinking the figure; viewBox keeps its shape.
    svg = re.sub(r'(<svg[^>]*?)\s+width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?)\s+height="[^"]*"', r"\1", svg, count=1)
    label = escape(alternative)
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1).strip()
