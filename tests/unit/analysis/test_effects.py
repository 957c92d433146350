"""Cells of a data set, and the cost of one over another."""

from __future__ import annotations

import numpy as np
import pytest

from virtbed_analysis import load
from virtbed_analysis.cells import Cell, cell_of
from virtbed_analysis.effects import Units, of_sweep
from virtbed_analysis.engine import Logs
from virtbed_analysis.platforms import Platforms

from .conftest import DEFAULTS, LISTED, Folder


def cell(platform: str, mode: str = "pinned", cores: int = 1, **more: str) -> Cell:
    about = {"application": "faces", "scale": "tiny", "scenario": "", "weights": ""}
    return cell_of(DEFAULTS | about | {"platform": platform, "mode": mode, "cores": cores} | more)


def units(seconds: dict[Cell, dict[str, float]]) -> Units:
    """Return cells with their seconds by replicate."""
    logs = {
        one: Logs.of({unit: (np.array(["a"]), np.log([time])) for unit, time in times.items()})
        for one, times in seconds.items()
    }
    return Units(logs, "replicate", {}, Platforms(LISTED))


METAL, CONTAINER = cell("bm"), cell("cn")
TWO = {METAL: {"1": 1.0, "2": 2.0, "3": 4.0}, CONTAINER: {"1": 1.5, "2": 3.0, "9": 7.0}}


def test_a_cost_is_paired_in_the_replicates_that_both_sides_have() -> None:
    cost = units(TWO).cost(CONTAINER)
    assert cost is not None
    assert np.exp(cost) == pytest.approx([1.5, 1.5])


def test_a_cell_that_was_not_measured_has_no_cost() -> None:
    found = units(TWO)
    assert found.cost(cell("cn", cores=2)) is None
    assert found.over(CONTAINER, cell("podman")) is None


def test_the_baseline_is_pinned_bare_metal_of_the_same_size_and_factors() -> None:
    vanilla = cell("cn", "vanilla", 2, thread_policy="matched")
    assert units(TWO).baseline(vanilla) == cell("bm", "pinned", 2, thread_policy="matched")
    assert [units(TWO).is_bare(one) for one in (METAL, CONTAINER)] == [True, False]


def test_cells_are_found_by_machine_and_enclosure_and_by_factors_in_a_reports_order() -> None:
    matched = cell("bm", thread_policy="matched")
    larger = cell("bm", cores=2)
    found = units({larger: {"1": 1.0}, **TWO, matched: {"1": 1.0}})
    assert found.cells(("metal", "docker")) == [CONTAINER]
    assert found.cells(thread_policy="matched") == [matched]
    assert found.cells(("metal", "process"), thread_policy="default") == [METAL, larger]
    assert found.elsewhere(METAL, ("metal", "gvisor")) == [cell("gvisor")]


def test_the_units_of_a_sweep_are_its_replicates(folder: Folder) -> None:
    for replicate in (1, 2, 3):
        folder.trial("bm", "pinned", replicate, {"a.png": [10.0 * replicate] * 2})
        folder.trial("cn", "vanilla", replicate, {"a.png": [13.0 * replicate] * 2})
    folder.trial("vm", "pinned", 1, {"a.png": [900.0]}, emulated=True)
    sweep = of_sweep(load(folder.path), Platforms(LISTED))
    assert {one.platform for one in sweep.logs} == {"bm", "cn"}  # an emulated guest has no cost
    (container,) = sweep.cells(("metal", "docker"))
    cost = sweep.cost(container)
    assert cost is not None and np.exp(cost) == pytest.approx([1.3] * 3)
    assert sweep.pre_post[container] == pytest.approx(0.35, abs=1e-6)
