"""What is drawn, read back from the axes it was drawn on."""

from __future__ import annotations

import re
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from virtbed_analysis import canvas, figures
from virtbed_analysis.document import document
from virtbed_analysis.frames import read_sweep

from .conftest import LISTED, with_gpu

Panels = dict[str, Axes]


@pytest.fixture
def panels(monkeypatch: pytest.MonkeyPatch) -> Panels:
    """Give the axes of each panel, by its name, as they are drawn."""
    drawn: Panels = {}

    def panel(name: str, title: str, height: float, caption: str, draw: Any, note: str = "") -> str:
        drawn[name] = Figure().subplots()
        draw(drawn[name])
        return f"<svg>{title}. {note}. {caption}</svg>"

    monkeypatch.setattr(canvas, "panel", panel)
    return drawn


@pytest.fixture
def content(study: Any) -> dict[str, Any]:
    return document(with_gpu(read_sweep(study.path)))


def marks(axes: Axes, marker: str) -> list[tuple[float, float]]:
    """Return where a mark stands: its x and y, in the order of drawing."""
    return [
        (float(x), float(y))
        for line in axes.get_lines()
        if line.get_marker() == marker
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    ]


def spans(axes: Axes) -> list[list[tuple[float, float]]]:
    """Return the ends of the intervals that are drawn."""
    return [
        [(float(x), float(y)) for x, y in segment]
        for kept in axes.collections
        if isinstance(kept, LineCollection)
        for segment in kept.get_segments()
    ]


def first(rows: list[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
    """Return the rows of faces on the CPU."""
    wanted = {"application": "face_detection", "processor": "cpu"} | wanted
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def test_ratios_are_drawn_with_their_intervals(content: Any, panels: Panels) -> None:
    figures.draw(content)
    axes = panels["ratios-1"]
    cells = [cell for cell in first(content["cells"]) if cell["ratio"] is not None]
    for platform, mark in (("cn", "D"), ("vm", "o"), ("vmcn", "^")):
        wanted = [cell["ratio"] for cell in cells if cell["platform"] == platform]
        assert [x for x, _ in marks(axes, mark)] == wanted
    assert [(low[0], high[0]) for low, high in spans(axes)] == [
        (cell["ratio_low"], cell["ratio_high"]) for cell in cells
    ]
    labels = [" ".join(tick.get_text().split()) for tick in axes.get_yticklabels()]
    texts = [text.get_text() for text in axes.texts]
    rows = [label for label in labels if "core" not in label]
    assert rows == [LISTED[cell["platform"]].in_words(cell["mode"]) for cell in cells]
    assert texts == [f"{cell['ratio']:.3f}" for cell in cells]


def test_published_ratios_are_ticks_or_beyond_the_axis_arrowheads(
    content: Any, panels: Panels
) -> None:
    figures.draw(content)
    axes = panels["ratios-1"]
    least, most = axes.get_xlim()
    published = [
        ratio
        for row in content["published"]["rows"]
        if row["application"] == "face_detection"
        for ratio in row["published"].values()
    ]
    inside = [ratio for ratio in published if least <= ratio <= most]
    assert inside
    assert [x for x, _ in marks(axes, "|")] == inside
    assert len(marks(axes, "<")) == sum(ratio < least for ratio in published)
    above = [x for x, _ in marks(axes, ">")]
    assert above == [most] * sum(ratio > most for ratio in published)
    assert above


def test_overhead_has_the_fit_of_each_platform(content: Any, panels: Panels) -> None:
    figures.draw(content)
    axes = panels["overhead-1"]
    drawn = [
        (line.get_color(), line.get_ydata()[0], line.get_ydata()[-1])
        for line in axes.get_lines()
        if line.get_linestyle() == ":"
    ]
    fits = [
        (
            LISTED[row["platform"]].colour,
            pytest.approx(row["type"] * row["size"]),
            pytest.approx(row["type"] * row["size"] ** (1 / 8)),
        )
        for row in content["overhead_by_size"]
        if row["application"].startswith("face") and row["processor"] == "cpu"
    ]
    assert drawn == fits and len(fits) == 5
    assert axes.get_xticklabels()[-1].get_text() == "8\n0.5"  # of sixteen CPUs


def test_a_curve_is_dotted_beyond_its_efficient_range(content: Any, panels: Panels) -> None:
    figures.draw(content)
    axes = panels["scale_up-1"]
    metal = [cell["e2e_typical_ms"] for cell in first(content["cells"], platform="bm")]
    squares = {
        line.get_linestyle(): list(line.get_ydata())
        for line in axes.get_lines()
        if line.get_marker() == "s"
    }
    assert squares == {"-": metal[:3], ":": metal[2:]}  # four cores do all that eight do
    marked = {line.get_linestyle(): line.get_markevery() for line in axes.get_lines()}
    assert marked["-"] is None
    assert marked[":"] == slice(1, None)  # else the last mark of the range would be filled again
    (perfect,) = (line for line in axes.get_lines() if line.get_linestyle() == "-.")
    assert list(perfect.get_ydata()) == [metal[0], metal[0] / 8]
    assert axes.get_yscale() == "log"


def test_a_curve_without_intervals_has_no_dotted_end(folder: Any, panels: Panels) -> None:
    for cores in (1, 2, 4):
        folder.trial("bm", "pinned", 1, {"a.png": [100.0 / cores]}, cores=cores)
    figures.draw(document(read_sweep(folder.path)))
    lines = [line for line in panels["scale_up-1"].get_lines() if line.get_marker() == "s"]
    assert [len(line.get_xdata()) for line in lines if line.get_linestyle() == "-"] == [3]


@pytest.mark.parametrize(
    ("unit", "sides", "n", "stated"),
    [
        (
            "replicate",
            (1, 1),
            9,
            "n = 9 replicates on the side with fewer, each on a fresh instance",
        ),
        ("replicate", (1, 1), 9, "Welch's t over replicates"),
        ("sweep", (3, 3), 3, "n = 3 sweeps per side; lines: 95% intervals, Welch's t over sweeps"),
        ("sweep", (2, 3), 2, "n = 2 sweeps on the side with fewer"),
        ("sweep", (1, 3), 1, "Student's t over sweeps with one variance for both sides"),
    ],
)
def test_a_change_states_its_n_and_the_kind_of_its_interval(
    content: Any, panels: Panels, unit: str, sides: tuple[int, int], n: int, stated: str
) -> None:
    effect = {"value": 1.1, "low": 1.05, "high": 1.15, "n": n}
    rows = [row | {"time": None, "cost": effect} for row in first(content["cells"])[:2]]
    compared = {"platforms": content["platforms"], "cells": rows, "unit": unit}
    compared |= {name: ["x"] * size for name, size in zip(("first", "second"), sides, strict=True)}
    assert stated in figures.draw_comparison(compared)["cost"].panels[0]


def test_a_gpu_has_a_mark_end_to_end_and_one_of_inference(content: Any, panels: Panels) -> None:
    said = figures.draw(content)["gpu"].panels[0]
    gains = content["gpu_speed_up"]
    for phase, mark in (("e2e", "s"), ("infer", "^")):
        wanted = [row["ratio"] for row in first(gains[phase])]
        assert [x for x, _ in marks(panels["gpu-1"], mark)] == wanted
    assert "from 1.297" in said and "from 12.000" in said


@pytest.mark.parametrize(
    ("figure", "table", "parts", "whole"),
    [
        ("phases", "cells", ["pre_mean_ms", "infer_mean_ms", "post_mean_ms"], "e2e_mean_ms"),
        ("startup", "startup", ["spawn_ms", "import_ms", "load_ms", "first_call_ms"],
         "start_typical_ms"),
    ],
)  # fmt: skip
def test_parts_are_stacked_one_after_another(
    content: Any, panels: Panels, figure: str, table: str, parts: list[str], whole: str
) -> None:
    figures.draw(content)
    axes = panels[f"{figure}-1"]
    rows = first(content[table])
    for number, part in enumerate(parts):
        bars = list(axes.containers[number])
        assert [bar.get_width() for bar in bars] == pytest.approx([row[part] for row in rows])
        before = [sum(row[earlier] for earlier in parts[:number]) for row in rows]
        assert [bar.get_x() for bar in bars] == pytest.approx(before)
    assert len(axes.texts) == len(rows) and rows[0][whole] > 0


def test_twins_and_slowed_platforms_are_on_no_curve(content: Any, panels: Panels) -> None:
    cells = [
        cell
        for plain in content["cells"]
        for cell in (plain, plain | {"variant": "twin", "e2e_typical_ms": 1e6, "ratio": 99.0})
    ]
    figures.draw(content | {"cells": cells})
    for name in ("overhead-1", "scale_up-1"):
        assert max(max(line.get_ydata()) for line in panels[name].get_lines()) < 1e5
    labels = [tick.get_text() for tick in panels["ratios-1"].get_yticklabels()]
    assert "container, CPU quota,\ntwin" in labels


def test_a_figure_draws_its_own_subjects_whatever_others_differ(content: Any) -> None:
    """Subjects of one size have no curve; many of them that differ more leave the curves there."""
    strange = [
        cell | {"application": f"x_{n:02d}", "ratio": 3.0}
        for n in range(figures.SUBJECTS)
        for cell in first(content["cells"], cores=1)
        if cell["ratio"]
    ]
    found = figures.draw(content | {"cells": [*content["cells"], *strange]})
    assert len(found["overhead"].panels) == 4
    assert len(found["ratios"].panels) == figures.SUBJECTS


def test_an_axis_has_room_for_its_intervals(content: Any, panels: Panels) -> None:
    wide = [
        cell | {"ratio_low": 0.02, "ratio_high": 120.0} if cell["ratio"] else cell
        for cell in content["cells"]
    ]
    figures.draw(content | {"cells": wide})
    assert panels["ratios-1"].get_xscale() == "log"


@pytest.mark.parametrize("value", [0.001, 1.00002, 12345678.0])
def test_axes_are_labelled_in_plain_numbers(value: float) -> None:
    axes = Figure().subplots()
    axes.plot([value, value * 1000], [0, 1])
    canvas.set_scale(axes.xaxis, [value, value * 1000])
    axes.figure.canvas.draw()
    labels = [tick.get_text() for tick in axes.get_xticklabels()]
    assert labels == [f"{tick:,.7g}" for tick in axes.get_xticks()]
    assert axes.xaxis.get_offset_text().get_text() == ""


def test_marks_of_curves_stay_nearest_to_their_own_size() -> None:
    sizes = [7, 8, 64]
    for by in canvas.spread_cores(sizes, 7):
        for size in sizes:
            assert min(sizes, key=lambda other, at=size * by: abs(other - at)) == size


def test_a_title_is_escaped_and_text_has_the_colour_of_the_page() -> None:
    svg = canvas.panel("x", 'a"<b>&', 2.0, "caption", lambda axes: axes.plot([1], [1]))
    assert 'aria-label="a&quot;&lt;b&gt;&amp;. caption"' in svg
    assert "currentColor" in svg and canvas.INK not in svg


def test_a_long_title_is_broken() -> None:
    title = "image_classification, mlperf, cpu, server, matched threads, seeded weights"
    svg = canvas.panel("x", title, 2.0, "", lambda axes: axes.plot([1], [1]))
    lines = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert title not in lines
    assert any(line.startswith("image_classification, mlperf") for line in lines)


@pytest.mark.parametrize(
    "names", [["container in a KVM guest, CPU quota"] * 5, ["pre", "infer", "post"]]
)
def test_a_legend_stays_within_its_panel(names: list[str]) -> None:
    figure = Figure(figsize=(canvas.WIDTH_IN, 3.2), layout="constrained")
    axes = figure.subplots()
    for name in names:
        axes.plot([0, 1], [0, 1], label=name)
    canvas.legend(axes, 3)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert legend.get_window_extent().width <= figure.bbox.width
    height = axes.get_window_extent().height / figure.dpi
    assert height > 2  # what it names keeps its room
