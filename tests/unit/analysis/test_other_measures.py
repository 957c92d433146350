"""Measures with one value per trial: geometric means and ratios to bare metal."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from virtbed_analysis.document import document
from virtbed_analysis.frames import read_sweep
from virtbed_analysis.page import render

from .conftest import Folder
from .test_report import Page


def lay(folder: Folder, peaks: dict[str, list[int | None]]) -> dict[str, dict]:
    for platform, kib in peaks.items():
        for replicate, own in enumerate(kib, start=1):
            folder.trial(platform, "pinned", replicate, {"a.png": [10.0]}, peak_kib=own)
    content = document(read_sweep(folder.path))
    assert render(content)
    if not content["other_measures"]:
        return {}
    (table,) = content["other_measures"]
    assert (table["name"], table["unit"], table["better"]) == ("peak_memory", "MiB", "lower")
    return {row["platform"]: row for row in table["rows"]}


def test_memory_has_a_typical_value_and_a_ratio_with_an_interval(folder: Folder) -> None:
    rows = lay(folder, {"bm": [102400, 204800, 102400], "cn": [204800, 409600, 307200]})
    assert rows["cn"]["value"] == pytest.approx((200 * 400 * 300) ** (1 / 3))
    assert "low" not in rows["cn"]
    wanted = stats.ttest_1samp(np.log([2.0, 2.0, 3.0]), 0).confidence_interval(0.95)
    assert rows["cn"]["ratio_low"] == pytest.approx(math.exp(wanted.low))
    assert rows["cn"]["ratio_high"] == pytest.approx(math.exp(wanted.high))
    assert rows["cn"]["ratio"] == pytest.approx((2 * 2 * 3) ** (1 / 3))  # paired by replicate
    assert (rows["cn"]["ratio_replicates"], rows["cn"]["ratio_dropped"]) == (3, 0)
    assert rows["bm"]["baseline"] and rows["bm"]["ratio"] is None


def test_a_trial_without_the_measure_is_left_out_and_counted(folder: Folder) -> None:
    rows = lay(folder, {"bm": [1024, 1024, 1024], "cn": [2048, None, 2048]})
    assert (rows["cn"]["value"], rows["cn"]["replicates"]) == (pytest.approx(2.0), 2)
    assert (rows["cn"]["ratio"], rows["cn"]["ratio_dropped"]) == (pytest.approx(2.0), 1)


def test_a_value_of_zero_gives_no_geometric_mean_and_is_counted(folder: Folder) -> None:
    rows = lay(folder, {"bm": [1024, 1024], "cn": [0, 2048], "vm": [1024, 1024]})
    assert (rows["cn"]["value"], rows["cn"]["ratio"], rows["cn"]["zeros"]) == (None, None, 1)
    page = Page(render(document(read_sweep(folder.path))))
    assert any(
        "no geometric mean: 1 replicate measured 0" in cell
        for cell in page.tables["measure-peak_memory"]
    )


def test_a_baseline_of_zero_gives_no_ratio(folder: Folder) -> None:
    rows = lay(folder, {"bm": [0, 0], "cn": [2048, 2048]})
    assert (rows["cn"]["value"], rows["cn"]["ratio"]) == (pytest.approx(2.0), None)


def test_a_measure_that_no_trial_has_gives_no_table(folder: Folder) -> None:
    assert lay(folder, {"bm": [None], "cn": [None]}) == {}


def test_emulated_trials_are_in_no_table(folder: Folder) -> None:
    folder.trial("vm", "pinned", 1, {"a.png": [10.0]}, emulated=True)
    assert set(lay(folder, {"bm": [1024]})) == {"bm"}
