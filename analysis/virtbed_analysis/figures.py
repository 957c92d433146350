"""The figures of a report and of a comparison. Their numbers are those of the tables.

`page` draws them. A figure has one panel per subject: an application, with everything else that its
cells have in common. Each panel stands alone: its title states what is drawn, its axes state the
unit, and the line under the title states n and the kind of interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from virtbed_analysis import canvas, run_order, waterfall, words
from virtbed_analysis.cells import CURVE, PLAIN, SUBJECT, is_plain, key_of
from virtbed_analysis.trust import Json
from virtbed_contract.codec import decode
from virtbed_contract.documents import Platform
from virtbed_contract.measures import of_group

Row = dict[str, Any]
_Groups = dict[tuple[Any, ...], list[Row]]
_RATIO = ("ratio", "ratio_low", "ratio_high")
# Of more subjects, those whose ratios are furthest from 1 are drawn; the tables have all of them.
SUBJECTS = 12
_CURVES_IN = 3.2
_STUDENT = f"{words.percent()} intervals, Student's t over replicates"


@dataclass(frozen=True)
class Drawing:
    """A figure: one `<svg>` per subject drawn, and the number of all subjects."""

    panels: list[str]
    subjects: int


@dataclass(frozen=True)
class _Kind:
    """A kind of figure.

    Attributes:
        rows: Returns the rows that it draws, of a report's content.
        panel: Returns the panel of one subject, from its name, the subject and its rows.
    """

    rows: Callable[[Json], Iterable[Row]]
    panel: Callable[[str, str, list[Row]], str]


def draw(content: Json) -> dict[str, Drawing]:
    """Return the figures of a report's content by name; a figure without rows is absent.

    - `ratios`: each cell's ratio to bare metal, or its time where no cell has a ratio
    - `phases`: the mean time of a request, by phase
    - `overhead`, `scale_up`: ratio and time against cores, where two sizes were measured
    - `startup`: the start of a fresh process, by part
    - `gpu`: the speed-up by a GPU, end to end and of inference alone
    - `run_order`: each trial in the order in which they ran, one panel per host
    - `explained`: the steps of each platform's cost
    """
    subjects = _grouped(content["cells"])
    drawings = {
        name: drawing
        for name, kind in _KINDS.items()
        if (drawing := _drawing(name, _styled(kind.rows(content), content), kind.panel, subjects))
    }
    if panels := run_order.panels(content):
        drawings["run_order"] = Drawing(panels, len(panels))
    if panels := waterfall.panels(content):
        drawings["explained"] = Drawing(panels, len(panels))
    return drawings


def draw_comparison(content: Json) -> dict[str, Drawing]:
    """Return the figures of a comparison: `time` and `cost` of each cell."""
    kinds = {
        "time": ("Change of time", "{}, second / first, ratio (dashed: no change)"),
        "cost": ("Change of cost", "ratio to bare metal, second / first (dashed: no change)"),
    }
    fewest, most = sorted(len(content[side]) for side in ("first", "second"))
    drawings = {}
    for name, (heading, label) in kinds.items():
        rows = [
            {**row, **PLAIN, "published": [], "ratio_replicates": row[name]["n"]}
            | dict(zip(_RATIO, (row[name][end] for end in ("value", "low", "high")), strict=True))
            for row in content["cells"]
            if row[name]
        ]
        unit = "sweep" if name == "time" else content["unit"]
        per = " per side" if unit == "sweep" and fewest == most else " on the side with fewer"
        kind = f"Welch's t over {unit}s"
        if unit == "sweep" and fewest == 1:  # see `engine.half_width`
            kind = "Student's t over sweeps with one variance for both sides"
        interval = f"{words.percent()} intervals, {kind}, simultaneous for all cells"
        panel = partial(
            _ratios, heading=heading, label=label, unit=unit, per=per, interval=interval
        )
        if drawing := _drawing(name, _styled(rows, content), panel, _grouped(rows)):
            drawings[name] = drawing
    return drawings


def _styled(rows: Iterable[Row], content: Json) -> Iterator[Row]:
    """Yield rows with the `colour` and `mark` of their platform, and its name as `label`."""
    entries = {row["name"]: decode(Platform, row) for row in content["platforms"]}
    for row in rows:
        entry = entries[row["platform"]]
        label = words.plainly(row, entries)
        yield {**row, "colour": entry.colour, "mark": entry.mark, "label": label}


def _drawing(
    name: str, rows: Iterable[Row], panel: Callable[[str, str, list[Row]], str], subjects: _Groups
) -> Drawing | None:
    """Draw one panel per subject, in the order of the rows; None without rows.

    Of more than `SUBJECTS`, those are drawn whose cells' ratios are furthest from 1.

    Args:
        name: The figure.
        rows: What it draws.
        panel: Draws one subject.
        subjects: The report's cells by subject, with their ratios.
    """
    groups = _grouped(rows)
    ranked = sorted(groups, key=lambda subject: _spread(subjects.get(subject, [])), reverse=True)
    shown = set(ranked[:SUBJECTS])
    panels = [
        panel(f"{name}-{number}", words.subject(group[0]), group)
        for number, (subject, group) in enumerate(groups.items(), 1)
        if subject in shown
    ]
    return Drawing(panels, len(groups)) if panels else None


def _subject(row: Row) -> tuple[Any, ...]:
    """Return the subject of a cell's row: all that its panel has in common."""
    return tuple(row[part] for part in SUBJECT if part != "cores")


def _grouped(rows: Iterable[Row]) -> _Groups:
    """Return sorted rows grouped by subject."""
    return {subject: list(group) for subject, group in groupby(rows, key=_subject)}


def _spread(rows: list[Row]) -> float:
    """Return the largest distance of a subject's ratios from 1, as a logarithm."""
    plain = [row["ratio"] for row in rows if row["ratio"] and is_plain(row)]
    return max((abs(math.log(ratio)) for ratio in plain), default=0.0)


# The rows that each kind draws.


def _compared(content: Json) -> list[Row]:
    """Return the cells with a ratio, each with the published ones; without any ratio, all cells."""
    theirs = {key_of(row): list(row["published"].values()) for row in content["published"]["rows"]}
    compared = [cell for cell in content["cells"] if cell["ratio"] is not None]
    return [
        {**cell, "published": theirs.get(key_of(cell), [])} for cell in compared or content["cells"]
    ]


def _plain_at_sizes(content: Json) -> Iterator[Row]:
    """Yield the plain cells of each subject with at least two sizes."""
    cells = [cell for cell in content["cells"] if is_plain(cell)]
    for rows in _grouped(cells).values():
        if len({row["cores"] for row in rows}) > 1:
            yield from rows


def _overhead_rows(content: Json) -> list[Row]:
    fits = {_curve(row): row for row in content["overhead_by_size"]}
    cpus = content["container_to_host"]["host_cpus"]
    return [
        {**row, "fit": fits.get(_curve(row)), "host_cpus": cpus}
        for row in _plain_at_sizes(content)
        if row["ratio"] is not None
    ]


def _scale_rows(content: Json) -> list[Row]:
    ends = {
        (*_curve(row), row["cores"])
        for row in content["efficient_range"]
        if not row["open"] and row["low"] is not None
    }
    return [
        {**row, "end": (*_curve(row), row["cores"]) in ends} for row in _plain_at_sizes(content)
    ]


def _curve(row: Json) -> tuple[Any, ...]:
    return key_of(row, CURVE)


def _gpu_rows(content: Json) -> list[Row]:
    inference = {key_of(row): row for row in content["gpu_speed_up"]["infer"]}
    return [{**row, "infer": inference[key_of(row)]} for row in content["gpu_speed_up"]["e2e"]]


# How each kind is drawn.


def _note(rows: list[Row], column: str, rest: str, unit: str = "replicate", per: str = "") -> str:
    """Return the line under a title: n (the values of `column`), then the kind of interval."""
    fresh = ", each on a fresh instance" if unit == "replicate" else ""
    return f"{canvas.sample_size((row[column] for row in rows), unit)}{per}{fresh}; {rest}"


def _kind_of_interval(rows: Iterable[Row], interval: str = _STUDENT) -> str:
    known = any(row.get("ratio_low") is not None for row in rows)
    return f"lines: {interval}" if known else "no interval"


def _ratios(
    name: str,
    subject: str,
    rows: list[Row],
    *,
    heading: str = "Time over bare metal's",
    label: str = "{} / pinned bare metal's, ratio (dashed: bare metal)",
    unit: str = "replicate",
    per: str = "",
    interval: str = _STUDENT,
) -> str:
    """Draw each row's ratio with its interval; where rows have none, typical times."""
    column, suffix, say, time = "ratio", "", words.ratio, words.judged(rows[0]).time
    label, n = label.format(time), "ratio_replicates"
    if rows[0]["ratio"] is None:
        column, suffix, say, n = "judged_typical", "_ms", words.ms, "replicates"
        heading, label = "Time of each platform", f"{time}, ms (typical)"
    lines = canvas.lines(rows)

    def draw(axes: Axes) -> None:
        drawn = [(y, line) for y, line in enumerate(lines) if not isinstance(line, int)]
        for y, row in drawn:
            low = row.get(f"{column}_low")  # times have no interval
            if low is not None:
                axes.hlines(y, low, row[f"{column}_high"], colors=row["colour"], linewidth=2.2)
            canvas.points(axes, [row[f"{column}{suffix}"]], [y], row)
        axes.margins(x=0.08)
        if column == "ratio":
            canvas.set_scale(axes.xaxis, (row[end] for _, row in drawn for end in _RATIO))
            axes.axvline(1, color=canvas.INK, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
            canvas.ticks(axes, [(y, ratio) for y, row in drawn for ratio in row["published"]])
        canvas.set_x_label(axes, label)
        canvas.set_lines(axes, lines, lambda row: say(row[f"{column}{suffix}"]))

    extremes = words.extremes(rows, f"{column}{suffix}", say)
    note = _note(rows, n, _kind_of_interval(rows, interval), unit, per)
    return canvas.panel(
        name, f"{heading}: {subject}", canvas.height_of(lines), f"{label}: {extremes}", draw, note
    )


def _stack(
    what: str, whole: str, parts: dict[str, str], name: str, subject: str, rows: list[Row]
) -> str:
    """Draw one bar per row: the columns of `parts` by name; on the right, the column `whole`."""
    lines = canvas.lines(rows)
    sizes = {part: partial(_part, column) for part, column in parts.items()}

    def draw(axes: Axes) -> None:
        canvas.stacked(axes, lines, sizes)
        canvas.set_x_label(axes, f"{what}, ms")
        canvas.set_lines(axes, lines, lambda row: words.ms(row[whole]))

    description = f"{what}, ms, of {', '.join(parts)}: {words.extremes(rows, whole, words.ms)}"
    note = _note(rows, "replicates", "no interval")
    height_in = canvas.height_of(lines, 1.15)
    return canvas.panel(name, f"{what}: {subject}", height_in, description, draw, note)


def _part(column: str, row: Row) -> float:
    return float(row[column] or 0.0)  # None for the part of a start that no launcher timed


def _curves(axes: Axes, rows: list[Row], column: str, unit: str = "") -> list[list[Row]]:
    """Draw one curve per platform and mode, with intervals where rows have them.

    Beyond a row whose `end` is true the curve is dotted.

    Returns:
        The rows of each curve.
    """
    platforms: dict[str, list[Row]] = {}
    for row in rows:
        platforms.setdefault(words.plainly(row), []).append(row)
    asides = canvas.spread_cores((row["cores"] for row in rows), len(platforms))
    for aside, (label, curve) in zip(asides, platforms.items(), strict=True):
        known = [row for row in curve if row.get(f"{column}_low") is not None]
        axes.vlines(
            [row["cores"] * aside for row in known],
            [row[f"{column}_low"] for row in known],
            [row[f"{column}_high"] for row in known],
            colors=curve[0]["colour"],
        )
        end = next((n for n, row in enumerate(curve) if row.get("end")), len(curve) - 1)
        vanilla = curve[0]["mode"] == "vanilla"
        styles: list[tuple[list[Row], Row]] = [
            (curve[: end + 1], {"label": label, "linestyle": "--" if vanilla else "-"}),
            (curve[end:], {"linestyle": ":", "markersize": 4, "markevery": slice(1, None)}),
        ]
        for part, style in styles if curve[end + 1 :] else styles[:1]:
            canvas.points(
                axes, [row["cores"] * aside for row in part],
                [row[f"{column}{unit}"] for row in part], curve[0], **style,
            )  # fmt: skip
    canvas.set_cores(axes, (row["cores"] for row in rows), rows[0].get("host_cpus"))
    canvas.legend(axes, 3)
    return list(platforms.values())


def _overhead(name: str, subject: str, rows: list[Row]) -> str:
    label = f"{words.judged(rows[0]).time} / pinned bare metal's, ratio"

    def draw(axes: Axes) -> None:
        for curve in _curves(axes, rows, "ratio"):
            if (fit := curve[0]["fit"]) and fit["type"] is not None:
                x = np.geomspace(curve[0]["cores"], curve[-1]["cores"], 40)
                fitted = fit["type"] * fit["size"] ** (1 / x)
                axes.plot(x, fitted, linestyle=":", linewidth=1, color=curve[0]["colour"])
        canvas.set_scale(axes.yaxis, (row[end] for row in rows for end in _RATIO))
        axes.axhline(1, color=canvas.INK, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        canvas.set_y_label(axes, label)

    caption = f"{label}, against cores: {words.extremes(rows, 'ratio', words.ratio)}"
    note = _note(rows, "ratio_replicates", _kind_of_interval(rows))
    return canvas.panel(
        name, f"Ratio to bare metal by size: {subject}", _CURVES_IN, caption, draw, note
    )


def _scale_up(name: str, subject: str, rows: list[Row]) -> str:
    label = f"{words.judged(rows[0]).time}, ms (typical)"

    def draw(axes: Axes) -> None:
        _curves(axes, rows, "judged_typical", "_ms")
        drawn = [row["judged_typical_ms"] for row in rows]
        if metal := [row for row in rows if row["baseline"]]:
            x = np.array([metal[0]["cores"], metal[-1]["cores"]])
            perfect = metal[0]["judged_typical_ms"] * x[0] / x
            axes.plot(x, perfect, color=canvas.INK, linewidth=1, linestyle="-.", zorder=0)
            drawn += perfect.tolist()
        canvas.set_scale(axes.yaxis, drawn, logarithmic=True)
        canvas.set_y_label(axes, label)

    caption = f"{label}, against cores: {words.extremes(rows, 'judged_typical_ms', words.ms)}"
    note = _note(rows, "replicates", "no interval")
    return canvas.panel(name, f"Time by size: {subject}", _CURVES_IN, caption, draw, note)


def _gpu(name: str, subject: str, rows: list[Row]) -> str:
    time = words.judged(rows[0])
    label = f"{'time' if time.name == 'e2e' else time.time} on the CPU / on the GPU, ratio"
    lines = canvas.lines(rows)

    def draw(axes: Axes) -> None:
        drawn = [(y, line) for y, line in enumerate(lines) if not isinstance(line, int)]
        ys = [y for y, _ in drawn]
        for key, marker in (("e2e", "s"), ("infer", "^")):
            ratios = [row if key == "e2e" else row["infer"] for _, row in drawn]
            known = [(y, r) for y, r in zip(ys, ratios, strict=True) if r["ratio_low"] is not None]
            axes.hlines(
                [y for y, _ in known], [r["ratio_low"] for _, r in known],
                [r["ratio_high"] for _, r in known], colors=canvas.INK, linewidth=1.6,
            )  # fmt: skip
            axes.plot(
                [r["ratio"] for r in ratios], ys, marker=marker, linestyle="none", markersize=7,
                label="end to end" if key == "e2e" else "inference alone", color=canvas.INK,
                markerfacecolor=canvas.PART_COLOURS[0 if key == "e2e" else 1],
            )  # fmt: skip
        canvas.set_scale(
            axes.xaxis, (r[end] for _, row in drawn for r in (row, row["infer"]) for end in _RATIO)
        )
        axes.axvline(1, color=canvas.INK, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        canvas.set_x_label(axes, label)
        canvas.set_lines(
            axes, lines,
            lambda row: ", ".join(words.ratio(r["ratio"]) for r in (row, row["infer"])),
        )  # fmt: skip
        canvas.legend(axes, 2)

    whole = words.extremes(rows, "ratio", words.ratio)
    alone = words.extremes([{**row, **row["infer"]} for row in rows], "ratio", words.ratio)
    description = f"{label}. End to end: {whole} Inference alone: {alone}"
    note = _note(rows, "ratio_replicates", _kind_of_interval(rows))
    height_in = canvas.height_of(lines, 1.15)
    return canvas.panel(name, f"Speed-up by a GPU: {subject}", height_in, description, draw, note)


_KINDS = {
    "ratios": _Kind(_compared, _ratios),
    "overhead": _Kind(_overhead_rows, _overhead),
    "phases": _Kind(
        lambda content: content["cells"],
        partial(
            _stack, "Mean time of a request", "e2e_mean_ms",
            {phase.name: f"{phase.name}_mean_ms" for phase in of_group("phase")[1:]},
        ),
    ),
    "scale_up": _Kind(_scale_rows, _scale_up),
    "gpu": _Kind(_gpu_rows, _gpu),
    "startup": _Kind(
        lambda content: content["startup"],
        partial(
            _stack, "Median start of a fresh process", "start_typical_ms",
            {part.words: f"{part.name}_ms" for part in of_group("startup")},
        ),
    ),
}  # fmt: skip
