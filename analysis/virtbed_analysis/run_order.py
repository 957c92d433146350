"""The run-order plot: each trial's time relative to its cell's mean, in the order of trials."""

from __future__ import annotations

import math
from functools import partial
from itertools import groupby
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from virtbed_analysis import canvas, words
from virtbed_contract.codec import decode
from virtbed_contract.documents import Platform

Json = dict[str, Any]
_HEIGHT_IN = 3.2


def panels(content: Json) -> list[str]:
    """Return an SVG panel per host, from the content of a report."""
    entries = {row["name"]: decode(Platform, row) for row in content["platforms"]}
    times = {words.judged(cell).time for cell in content["cells"]}
    label = f"{times.pop() if len(times) == 1 else 'time'} against its cell's mean"
    hosts = groupby(content["diagnostics"]["run_order"], key=lambda point: point["host"])
    return [
        _panel(f"run_order-{number}", host, [*points], entries, label)
        for number, (host, points) in enumerate(hosts, 1)
    ]


def _panel(name: str, host: str, points: list[Json], entries: words.Entries, label: str) -> str:
    most = max(points, key=lambda point: abs(point["deviation"]))
    suspect = sum(point["suspect"] for point in points)
    description = (
        f"{label}, in the order of {words.count(points[-1]['last'], 'trial')}, "
        f"{suspect} of them suspect: furthest off is {math.expm1(most['deviation']):+.1%}, at "
        f"place {most['first']}."
    )
    draw = partial(_draw, points=points, entries=entries, label=label)
    trials = canvas.sample_size([points[-1]["last"]], "trial")
    note = f"{trials}, one mark per trial; no interval"
    if (several := points[0]["last"]) > 1:
        note = f"{trials}, one dot per {several} trials; no interval"
    title = f"Trials on {host}, in the order in which they ran"
    return canvas.panel(name, title, _HEIGHT_IN, description, draw, note)


def _draw(axes: Axes, points: list[Json], entries: words.Entries, label: str) -> None:
    kinds: dict[tuple[str, str], list[Json]] = {}
    for point in points:
        kinds.setdefault((point["platform"] or "", point["mode"] or ""), []).append(point)
    for (platform, mode), own in kinds.items():
        x, y = [_place(point) for point in own], [_percent(point) for point in own]
        if platform:
            entry = entries[platform]
            look = {"colour": entry.colour, "mark": entry.mark, "mode": mode}
            canvas.points(axes, x, y, look, markersize=4, label=entry.in_words(mode))
        else:
            each = own[0]["last"] - own[0]["first"] + 1
            several = f"mean of {each} trials in a row"
            axes.plot(x, y, ".", color=canvas.INK, markersize=3, label=several)
    if odd := [point for point in points if point["suspect"]]:
        axes.plot(
            [_place(point) for point in odd], [_percent(point) for point in odd], "x",
            color=canvas.INK, markersize=7, markeredgewidth=0.8, label="suspect",
        )  # fmt: skip
    axes.axhline(0, color=canvas.INK, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+.3g}%"))
    axes.grid(axis="y", color=canvas.INK, alpha=0.15, linewidth=0.8)
    axes.set_xlabel("number of the trial, in the order in which they ran")
    canvas.set_y_label(axes, f"{label}, %")
    canvas.legend(axes, 3)


def _place(point: Json) -> float:
    return float(point["first"] + point["last"]) / 2


def _percent(point: Json) -> float:
    return 100 * math.expm1(point["deviation"])
