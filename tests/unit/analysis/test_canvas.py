"""One panel of a figure as an element of a page, and how its parts are set."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from virtbed_analysis import canvas

ROW = {"platform": "cn", "mode": "vanilla", "cores": 1, "colour": "#d55e00", "mark": "D"}


def drawn(axes: Axes) -> None:
    canvas.points(axes, [1.0], [0.0], ROW, label="a")
    canvas.legend(axes, 2)


def axes() -> Axes:
    return Figure().subplots()


def test_equal_input_gives_equal_text_that_says_what_is_drawn() -> None:
    first, again = (
        canvas.panel("one", 'Ratio "cn" <1>', 2.0, "From 1 to 2.", drawn) for _ in range(2)
    )
    assert first == again
    root = ET.fromstring(first)
    assert root.get("aria-label") == 'Ratio "cn" <1>. From 1 to 2.'
    assert root.get("viewBox") and root.get("width") is None and root.get("height") is None
    assert canvas.INK not in first and "currentColor" in first
    assert "xmlns" not in first and "http" not in first.replace("http://www.w3.org", "")


def test_ids_are_the_panels_own_within_a_page() -> None:
    ids = [
        {element.get("id") for element in ET.fromstring(text).iter() if element.get("id")}
        for text in (canvas.panel(name, "t", 2.0, "c", drawn) for name in ("one", "two"))
    ]
    assert ids[0] and ids[1] and not ids[0] & ids[1]


def test_lines_have_each_number_of_cores_before_its_rows() -> None:
    rows: list[dict[str, Any]] = [{"cores": n, "row": r} for n, r in ((1, "a"), (1, "b"), (4, "c"))]
    assert canvas.lines(rows) == [1, rows[0], rows[1], 4, rows[2]]
    assert canvas.height_of(canvas.lines(rows)) > canvas.height_of([1])


def test_curves_stand_side_by_side_and_near_their_size() -> None:
    factors = canvas.spread_cores([1, 2, 4, 8], 3)
    assert factors == sorted(factors) and factors[1] == pytest.approx(1)
    assert factors[-1] / factors[0] < 2 ** (1 / 3)
    assert canvas.spread_cores([4], 1) == [pytest.approx(1)]


def test_vanilla_is_open_and_pinned_is_filled() -> None:
    found = axes()
    canvas.points(found, [1.0], [1.0], ROW)
    canvas.points(found, [1.0], [1.0], {**ROW, "mode": "pinned"})
    assert [line.get_markerfacecolor() for line in found.lines] == ["none", "#d55e00"]


@pytest.mark.parametrize(
    ("values", "scale"), [([1.0, 4.9, None], "linear"), ([1.0, 5.1], "log"), ([3.0], "linear")]
)
def test_a_wide_range_is_drawn_on_a_logarithmic_axis(
    values: list[float | None], scale: str
) -> None:
    found = axes()
    canvas.set_scale(found.xaxis, values)
    assert found.get_xscale() == scale
    assert found.get_yscale() == "linear"


def test_a_value_beyond_the_axis_is_an_arrowhead_at_the_edge() -> None:
    found = axes()
    found.set_xlim(1, 2)
    canvas.ticks(found, [(0, 1.5), (1, 0.1), (2, 9.0)])
    assert [(line.get_marker(), line.get_xdata()[0]) for line in found.lines] == [
        ("|", 1.5), ("<", 1), (">", 2),
    ]  # fmt: skip


def test_sizes_are_labelled_with_their_share_of_the_host() -> None:
    found = axes()
    canvas.set_cores(found, [4, 1, 4], host_cpus=16)
    assert [text.get_text() for text in found.get_xticklabels()] == ["1\n0.0625", "4\n0.25"]
