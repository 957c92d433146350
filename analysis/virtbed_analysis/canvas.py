"""One panel of a figure: its layout, its axes and legend, and its SVG as an element of a page.

`figures`, `run_order` and `waterfall` draw with it; which numbers are drawn is decided there.
Panels are made with Matplotlib's `Figure`. pyplot is never imported, since it keeps global state.
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
"""One line of a panel: a number of cores (a heading), or a cell of that size."""

# Okabe and Ito's colour-blind-safe hues, which platforms use as well. Labels, marks (shape by
# platform, fill by mode) and hatches repeat what a colour shows, so colour alone carries nothing.
PART_COLOURS = ("#e69f00", "#56b4e9", "#cc79a7", "#009e73")
PART_HATCHES = ("////", "", "\\\\\\\\", "----")
# Placeholder for the page's text colour, which Matplotlib cannot name; replaced in the SVG.
INK = "#010203"
WIDTH_IN = 4.6
_LINE_IN = 0.23
_MARK_IN, _CHARACTER_IN, _ROW_IN = 0.5, 0.075, 0.19  # of a legend
_TITLE, _NOTE = 54, 66  # characters per line of the heading: title, and note below it
_TITLE_IN, _NOTE_IN, _BELOW_IN = 0.17, 0.14, 0.08  # height of a line of each; gap to the axes
_LABEL = 24  # characters per line of a platform's label
_X_LABEL, _Y_LABEL = 44, 26  # characters per line of an axis label
_NOTE_SIZE = 8.0
_LINEAR = 5  # a range whose ends differ by more than this factor gets a logarithmic axis
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "virtbed",  # otherwise element ids are random, and no two files equal
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
    name: str,
    title: str,
    height_in: float,
    caption: str,
    draw: Callable[[Axes], None],
    note: str = "",
) -> str:
    """Return one panel as an `<svg>` element; equal input gives equal text.

    Args:
        name: Prefix of the ids of its elements; unique within a page.
        title: What is drawn, and of which application.
        height_in: Height in inches, without the heading (title and note).
        caption: The values in words; the text alternative is title, note and caption.
        draw: Draws on the axes that it is given.
        note: The line under the title: n, and the kind of interval.
    """
    with mpl.rc_context(_STYLE):
        layout = ConstrainedLayoutEngine()
        figure = Figure(figsize=(WIDTH_IN, height_in), layout=layout)
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        axes.patch.set_alpha(0)
        axes.spines[["left", "right", "top"]].set_visible(False)
        axes.set_axisbelow(True)
        draw(axes)
        _set_heading(figure, layout, title, note)
        # Executed once here, since savefig would draw everything a second time to find the layout.
        layout.execute(figure)
        figure.set_layout_engine("none")
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    spoken = ". ".join(part.rstrip(".") for part in (title, note) if part)
    return _inline(text.getvalue(), name, f"{spoken}. {caption}")


def _set_heading(figure: Figure, layout: ConstrainedLayoutEngine, title: str, note: str) -> None:
    """Write title and note over the whole width of a panel, and make room for them above the axes.

    An axes' own title begins at the axes, which labels on the left make too narrow for it.
    """
    titles, notes = fill(title, _TITLE), fill(note, _NOTE)
    title_in = _TITLE_IN * (titles.count("\n") + 1)
    heading_in = title_in + _BELOW_IN + (_NOTE_IN * (notes.count("\n") + 1) if note else 0)
    height_in = figure.get_figheight() + heading_in
    figure.set_figheight(height_in)
    layout.set(rect=(0, 0, 1, 1 - heading_in / height_in))
    size = mpl.rcParams["axes.titlesize"]
    figure.text(0.01, 1, titles, va="top", fontsize=size, fontweight="bold", linespacing=1.1)
    if note:
        at = 1 - (title_in + _BELOW_IN / 2) / height_in
        figure.text(0.01, at, notes, va="top", fontsize=_NOTE_SIZE, linespacing=1.1)


def sample_size(numbers: Iterable[int | None], unit: str) -> str:
    """Return n in words.

    Example:
        >>> sample_size([5, 3, None], "replicate"), sample_size([1], "sweep")
        ('n = 3 to 5 replicates', 'n = 1 sweep')
    """
    counts = sorted({number for number in numbers if number})
    if not counts:
        return f"n: no {unit} known"
    least = f"{counts[0]} to " if len(counts) > 1 else ""
    return f"n = {least}{words.count(counts[-1], unit)}"


def lines(rows: Iterable[Row]) -> list[Line]:
    """Return the lines of rows that are sorted by cores: each size, then its rows."""
    panel_lines: list[Line] = []
    for cores, group in groupby(rows, key=lambda row: int(row["cores"])):
        panel_lines += [cores, *group]
    return panel_lines


def spread_cores(cores: Iterable[int], curves: int) -> list[float]:
    """Return a factor per curve for its x values (cores), so that marks do not hide each other.

    The factors stay within a third of the distance to the next size.
    """
    logs = np.log2(sorted(set(cores)))
    room = float(np.diff(logs).min()) / 3 if len(logs) > 1 else 0.3
    return [float(2**aside) for aside in np.linspace(-room / 2, room / 2, curves + 2)[1:-1]]


def height_of(panel_lines: list[Line], frame_in: float = 0.85) -> float:
    """Return the height in inches that a panel of these lines needs, without its heading."""
    return len(panel_lines) * _LINE_IN + frame_in


def set_lines(axes: Axes, panel_lines: list[Line], value: Callable[[Row], str]) -> None:
    """Label each line on the left of the axes, and write its value on the right."""
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
    """Draw points with the row's `colour` and `mark`: open for vanilla, filled for pinned."""
    colour = row["colour"]
    usual: dict[str, Any] = {"markersize": 6, "linestyle": "none"}
    axes.plot(
        x, y, color=colour, marker=row["mark"], markeredgewidth=1.6,
        markerfacecolor="none" if row["mode"] == "vanilla" else colour, **(usual | style),
    )  # fmt: skip


def ticks(axes: Axes, at: list[tuple[int, float]]) -> None:
    """Draw a tick at each (y, x), or an arrowhead at the edge where x is beyond the axis.

    The axis is not extended: distant values of another study would leave the measured ones no room.
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
    """Draw one bar per row, made of its named parts one after another."""
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
    """Add a legend below the axes, in fewer columns where the labels are long."""
    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)
    names = [str(name) for name in axes.get_legend_handles_labels()[1]]
    fitting = next((n for n in range(columns, 1, -1) if _width_in(names, n) <= WIDTH_IN), 1)
    more = math.ceil(len(names) / fitting) - math.ceil(len(names) / columns)
    figure.set_figheight(figure.get_figheight() + more * _ROW_IN)
    figure.legend(loc="outside lower left", ncols=fitting, frameon=False, handlelength=1.8)


def _width_in(names: list[str], columns: int) -> float:
    """Return the approximate width of a legend, which Matplotlib fills column by column."""
    parts = np.array_split(np.array(names, dtype=object), min(columns, len(names) or 1))
    return sum(_MARK_IN + _CHARACTER_IN * max(map(len, part), default=0) for part in parts)


def set_x_label(axes: Axes, text: str) -> None:
    """Label the x axis, in several lines where the text is longer than the axis."""
    axes.set_xlabel(fill(text, _X_LABEL))


def set_y_label(axes: Axes, text: str) -> None:
    """Label the y axis, in several lines where the text is longer than the axis."""
    axes.set_ylabel(fill(text, _Y_LABEL))


def set_scale(axis: Axis, values: Iterable[float | None], logarithmic: bool = False) -> None:
    """Label an axis in plain numbers; make it logarithmic for a wide range of values.

    Args:
        axis: The axis.
        values: All values drawn on it, ends of intervals included; None is skipped.
        logarithmic: Whether it is logarithmic for a narrow range, too.
    """
    known = [value for value in values if value is not None]
    wide = max(known) > _LINEAR * min(known)
    if wide or logarithmic:
        across = axis is axis.axes.xaxis
        (axis.axes.set_xscale if across else axis.axes.set_yscale)("log")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(5))
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.7g}"))


def set_cores(axes: Axes, cores: Iterable[int], host_cpus: int | None = None) -> None:
    """Make the x axis a logarithmic one of cores, with a tick for each size.

    With `host_cpus`, the label of a tick also gives the size's share of the host's CPUs.
    """
    sizes = sorted(set(cores))
    shares = [f"\n{words.share(size / host_cpus)}" if host_cpus else "" for size in sizes]
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [f"{size}{share}" for size, share in zip(sizes, shares, strict=True)])
    axes.xaxis.set_minor_locator(NullLocator())
    below = "; below: share of the host's CPUs" if host_cpus else ""
    set_x_label(axes, f"size of the instance, cores{below}")
    axes.grid(axis="y", color=INK, alpha=0.15, linewidth=0.8)


def _inline(svg: str, name: str, alternative: str) -> str:
    """Return the SVG as an element of an HTML page.

    Prolog, namespaces, metadata and the fixed text colour are removed; ids get the prefix `name`.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s+xmlns(:\w+)?=\"[^\"]*\"", "", svg)
    svg = svg.replace("xlink:href", "href").replace(INK, "currentColor")
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-")
    # A size in points would keep a phone from shrinking the figure; viewBox keeps the proportions.
    svg = re.sub(r'(<svg[^>]*?)\s+width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?)\s+height="[^"]*"', r"\1", svg, count=1)
    label = escape(alternative)
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1).strip()
