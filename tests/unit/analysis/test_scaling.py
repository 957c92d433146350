"""Speed-up, overhead by size and container-to-host ratio, of curves with a known shape."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest

from virtbed_analysis import estimate, words
from virtbed_analysis.cells import CURVE, MATCHED, Cell
from virtbed_analysis.document import document
from virtbed_analysis.effects import Units, of_sweep
from virtbed_analysis.engine import Logs
from virtbed_analysis.frames import read_sweep
from virtbed_analysis.page import render
from virtbed_analysis.platforms import platforms_of
from virtbed_analysis.scaling import container_to_host, efficient_range, overhead_by_size, scale_up

from .conftest import Folder

RANDOM = np.random.default_rng(11)


def units_of(folder: Folder) -> Units:
    sweep = read_sweep(folder.path)
    return of_sweep(sweep.samples, sweep.platforms)


def curve(folder: Folder, platform: str, mode: str, ms: dict[int, float], noise: float) -> None:
    for cores, typical in ms.items():
        for replicate in range(1, 7):
            e2e = typical * float(np.exp(noise * RANDOM.standard_normal()))
            folder.trial(platform, mode, replicate, {"a": [e2e]}, cores=cores)


def test_the_efficient_range_ends_where_a_doubling_stops_paying(folder: Folder) -> None:
    curve(folder, "bm", "pinned", {1: 100, 2: 55, 4: 30, 8: 29}, 0.01)
    rows = scale_up(units_of(folder))
    assert [row["cores"] for row in rows] == [1, 2, 4]
    assert [row["speed_up"] for row in rows] == pytest.approx([1.82, 1.83, 1.03], rel=0.03)
    assert all(row["low"] < row["speed_up"] < row["high"] and row["n"] == 6 for row in rows)
    (reach,) = efficient_range(rows)
    assert (reach["cores"], reach["open"]) == (4, False)
    assert reach["speed_up"] == rows[-1]["speed_up"]


def test_a_range_that_pays_to_its_end_is_open(folder: Folder) -> None:
    curve(folder, "bm", "pinned", {1: 100, 2: 55, 4: 30}, 0.01)
    (reach,) = efficient_range(scale_up(units_of(folder)))
    assert (reach["cores"], reach["open"]) == (4, True)


@pytest.mark.parametrize(("low", "reach"), [(1.05, 2), (None, 2), (1.15, 4)])
def test_a_doubling_that_may_not_pay_ends_the_range(low: float | None, reach: int) -> None:
    curve = dict.fromkeys(CURVE, "") | {"application": "faces", "platform": "bm", "mode": "pinned"}
    doubling = {**curve, "cores": 2, "speed_up": 1.3, "low": low, "high": 1.6, "n": 5}
    assert efficient_range([doubling])[0]["cores"] == reach


@pytest.mark.parametrize(
    ("low", "high", "beyond", "reach"),
    [
        (1.05, 1.6, "cannot tell", "at least 2"),
        (1.01, 1.08, "does not pay", "2"),
        (1.15, 1.6, None, "at least 4"),
        (None, None, "cannot tell", "unknown"),
    ],
)
def test_whether_more_cores_pay_has_three_answers(
    low: float | None, high: float | None, beyond: str | None, reach: str
) -> None:
    curve = dict.fromkeys(CURVE, "") | {"application": "faces", "platform": "bm", "mode": "pinned"}
    (row,) = efficient_range(
        [{**curve, "cores": 2, "speed_up": 1.06, "low": low, "high": high, "n": 5}]
    )
    assert (row["beyond"], words.reach(row)) == (beyond, reach)
    assert words.doubling(row).endswith(f": {beyond}" if beyond else ")")


def test_a_gap_between_sizes_is_no_doubling(folder: Folder) -> None:
    curve(folder, "bm", "pinned", {1: 100, 4: 30}, 0.01)
    assert scale_up(units_of(folder)) == []


def test_overhead_of_type_and_of_size_are_distinguished(folder: Folder) -> None:
    metal = {1: 100, 2: 60, 4: 40, 8: 30}
    curve(folder, "bm", "pinned", metal, 0.003)
    slower = {n: ms * 1.05 * 1.4 ** (1 / n) for n, ms in metal.items()}
    curve(folder, "cn", "vanilla", slower, 0.003)
    (row,) = overhead_by_size(units_of(folder))
    assert row["type"] == pytest.approx(1.05, abs=0.01)
    assert row["size"] == pytest.approx(1.4, abs=0.03)
    assert row["type_low"] < row["type"] < row["type_high"]
    assert row["sizes"] == [1, 2, 4, 8]
    assert row["fit"] == "fits" and abs(row["deviation"] - 1) < 0.01


def costs(platform: str, ratios: dict[int, float], noise: float, replicates: int) -> Units:
    """Units of one platform whose cost per size is known, and of bare metal."""
    cells, names = {}, np.array(["a"], dtype=np.str_)
    for name, cost in (("bm", dict.fromkeys(ratios, 1.0)), (platform, ratios)):
        for cores, ratio in cost.items():
            cell = Cell(
                "app", "trained", "single_stream", "trained", FACTORS, cores, name, "pinned"
            )
            own = np.log(ratio) + noise * RANDOM.standard_normal(replicates)
            cells[cell] = Logs.of({str(n): (names, own[n : n + 1]) for n in range(replicates)})
    return Units(cells, "replicate", {}, platforms_of((), PLACES))


FACTORS = tuple(factor.default for factor in MATCHED)
PLACES = {"bm": ("metal", "process"), "cn": ("metal", "docker")}
SIZES = (1, 2, 4, 8, 16, 32, 64)


def test_a_model_that_does_not_fit_gives_no_parts(folder: Folder) -> None:
    """A cost that rises and falls: the fit gave 1.85 for a large instance, 1.05 was measured."""
    peak = {1: 1.05, 2: 1.4, 4: 2.4, 8: 2.6, 16: 2.4, 32: 1.5, 64: 1.05}
    for platform, mode, cost in (("bm", "pinned", {}), ("cn", "vanilla", peak)):
        curve(folder, platform, mode, {n: 100 * cost.get(n, 1.0) for n in SIZES}, 0.003)
    sweep = read_sweep(folder.path)
    (row,) = overhead_by_size(of_sweep(sweep.samples, sweep.platforms))
    assert row["fit"] == "does not fit"
    assert (row["type"], row["type_low"], row["size"]) == (None, None, None)
    # The fitted curve itself, by least squares on the truth.
    x = np.column_stack([np.ones(len(SIZES)), [1 / n for n in SIZES]])
    y = np.log(list(peak.values()))
    left = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    worst = int(abs(left).argmax())
    assert row["deviation_cores"] == SIZES[worst]
    assert row["deviation"] == pytest.approx(np.exp(left[worst]), rel=0.01)
    assert row["because"].startswith(f"measured {row['deviation']:.3f} times the fit at ")
    page = render(document(sweep))
    assert "does not fit: measured" in page


@pytest.mark.parametrize(("replicates", "noise"), [(2, 0.001), (5, 0.2)])
def test_a_model_that_cannot_be_tested_gives_no_parts(replicates: int, noise: float) -> None:
    ratios = {n: 1.05 * 1.4 ** (1 / n) for n in SIZES[:4]}
    (row,) = overhead_by_size(costs("cn", ratios, noise, replicates))
    assert row["fit"] == "cannot tell"
    assert (row["type"], row["size"]) == (None, None)


@pytest.mark.parametrize("replicates", [3, 5, 10])
def test_a_right_model_is_seldom_rejected_and_a_wrong_one_seldom_accepted(
    replicates: int,
) -> None:
    """400 sweeps each; 5% of 400 has a standard error of 1.1 points."""
    answers = {
        truth: Counter(
            overhead_by_size(costs("cn", ratios, 0.02, replicates))[0]["fit"] for _ in range(400)
        )
        for truth, ratios in {
            "right": {n: 1.05 * 1.4 ** (1 / n) for n in SIZES[:4]},
            "wrong": {n: 1.05 * 1.4 ** (1 / n) * (1.3 if n == 4 else 1) for n in SIZES[:4]},
        }.items()
    }
    assert answers["right"]["does not fit"] <= 0.08 * 400
    assert answers["wrong"]["fits"] <= 0.05 * 400
    if replicates == 10:
        steady = {n: 1.05 * 1.8 ** (1 / n) for n in SIZES[:4]}
        fits = [overhead_by_size(costs("cn", steady, 0.01, 10))[0]["fit"] for _ in range(100)]
        assert fits.count("fits") >= 0.9 * 100
        assert answers["wrong"]["does not fit"] >= 0.99 * 400


def test_sizes_that_share_no_replicate_are_not_fitted_together() -> None:
    units = costs("cn", {1: 1.3, 2: 1.2, 4: 1.1}, 0.001, 4)
    (alone,) = (cell for cell in units.logs if (cell.platform, cell.cores) == ("cn", 4))
    of_bare = units.baseline(alone)
    for cell in (alone, of_bare):
        own = units.logs[cell]
        late = tuple(f"late {n}" for n in own.units)
        units.logs[cell] = replace(own, units=late)  # type: ignore[index]
    (row,) = overhead_by_size(units)
    assert (row["fit"], row["because"]) == ("cannot tell", "no replicate has all of its sizes")


def test_two_sizes_are_not_fitted(folder: Folder) -> None:
    for platform, mode in (("bm", "pinned"), ("cn", "vanilla")):
        curve(folder, platform, mode, {1: 100, 2: 60}, 0.01)
    assert overhead_by_size(units_of(folder)) == []


def test_the_least_share_of_the_host_with_a_low_cost_is_reported(folder: Folder) -> None:
    metal = {1: 100, 2: 60, 4: 40, 8: 30}
    curve(folder, "bm", "pinned", metal, 0.003)
    cost = {1: 1.4, 2: 1.2, 4: 1.03, 8: 1.02}
    curve(folder, "cn", "vanilla", {n: ms * cost[n] for n, ms in metal.items()}, 0.003)
    curve(folder, "vmcn", "vanilla", metal, 0.003)
    table = container_to_host(units_of(folder), 16)
    assert [(row["platform"], row["cores"], row["chr"]) for row in table["rows"]] == [
        ("cn", 1, 1 / 16), ("cn", 2, 1 / 8), ("cn", 4, 1 / 4), ("cn", 8, 1 / 2),
    ]  # fmt: skip
    assert [row["ratio"] for row in table["rows"]] == pytest.approx(list(cost.values()), rel=0.01)
    (enough,) = table["enough"]
    assert (enough["cores"], enough["chr"], enough["sizes"]) == (4, 1 / 4, 4)


@pytest.mark.parametrize(("largest", "cores"), [(1.3, None), (1.02, 2)])
def test_a_costly_large_container_leaves_no_share_that_is_enough(
    folder: Folder, largest: float, cores: int | None
) -> None:
    curve(folder, "bm", "pinned", {1: 100, 2: 60}, 0.003)
    curve(folder, "cn", "pinned", {1: 102 if largest > 1.1 else 130, 2: 60 * largest}, 0.003)
    (enough,) = container_to_host(units_of(folder), 4)["enough"]
    assert enough["cores"] == cores


def test_without_the_size_of_the_host_there_is_no_share(folder: Folder) -> None:
    curve(folder, "cn", "vanilla", {1: 100}, 0.01)
    assert container_to_host(units_of(folder), None)["rows"] == []


def test_a_gap_between_sizes_ends_the_efficient_range(folder: Folder) -> None:
    curve(folder, "bm", "pinned", {1: 100, 2: 50, 5: 90, 10: 45}, 0.003)
    (reach,) = efficient_range(scale_up(units_of(folder)))
    assert (reach["cores"], reach["open"]) == (2, True)


def test_costs_by_size_are_those_of_the_cells(folder: Folder) -> None:
    """Where pinned bare metal is missing nothing stands in for it."""
    curve(folder, "bm", "pinned", {1: 100, 2: 60}, 0.003)
    curve(folder, "bm", "vanilla", {1: 130, 2: 78, 4: 52}, 0.003)
    curve(folder, "cn", "vanilla", {1: 110, 2: 66, 4: 44}, 0.003)
    sweep = read_sweep(folder.path)
    rows = container_to_host(of_sweep(sweep.samples, sweep.platforms), 16)["rows"]
    cells = estimate.cells(sweep.samples).filter(platform="cn")
    wanted = {c["cores"]: c["ratio"] for c in cells.to_dicts() if c["ratio"] is not None}
    assert {row["cores"]: row["ratio"] for row in rows} == pytest.approx(wanted)
    assert set(wanted) == {1, 2}
    assert overhead_by_size(of_sweep(sweep.samples, sweep.platforms)) == []


@pytest.mark.parametrize("cores", [(1, 2, 4), (1, 2, 4, 8), (2, 4, 8, 16)])
@pytest.mark.parametrize(("power", "part"), [(0.5, 0.2), (2.0, 0.05)])
def test_a_limit_that_an_alternative_model_contradicts_is_not_given(
    cores: tuple[int, ...], power: float, part: float
) -> None:
    """A ratio of 1.22 that falls with the root of the cores ends at 1; the fit gave 1.07."""
    ratios = {n: float(np.exp(part * n**-power)) for n in cores}
    for _ in range(20):
        (row,) = overhead_by_size(costs("cn", ratios, 0.002, 5))
        if row["fit"] == "fits":
            assert row["type"] == pytest.approx(1, abs=0.02)
        else:
            assert row["type"] is row["size"] is None


def test_an_alternative_model_is_named_with_its_limit() -> None:
    ratios = {n: float(np.exp(0.2 / np.sqrt(n))) for n in (1, 2, 4)}
    (row,) = overhead_by_size(costs("cn", ratios, 0.001, 5))
    assert row["fit"] == "cannot tell"
    assert "falls with the root of the cores is not excluded, and its limit is " in (row["because"])
    template = files("virtbed_analysis").joinpath("templates/by_size.html.j2").read_text()
    assert "its interval does not cover other forms" in template


@pytest.mark.parametrize("cores", [(1, 2, 4), (1, 2, 4, 8)])
def test_a_limit_that_does_not_depend_on_the_model_is_given(cores: tuple[int, ...]) -> None:
    found = [overhead_by_size(costs("cn", dict.fromkeys(cores, 1.05), 0.001, 5))[0] for _ in "abcd"]
    assert [row["fit"] for row in found] == ["fits"] * 4
    assert [row["type"] for row in found] == pytest.approx([1.05] * 4, abs=0.01)
