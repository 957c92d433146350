"""Differences within a cell: percentiles by trial, and ratios by input."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from virtbed_analysis import inputs
from virtbed_analysis.document import document
from virtbed_analysis.frames import read_sweep
from virtbed_analysis.page import render

from .conftest import Folder
from .test_report import Page


def written(folder: Folder) -> dict[str, Any]:
    content = document(read_sweep(folder.path))
    json.dumps(content, allow_nan=False)
    return content


def test_a_percentile_is_of_each_trial_and_its_ratio_is_paired(folder: Folder) -> None:
    """One instance in four has slow requests: a pooled p90 would hide how far trials differ."""
    for replicate, slow in enumerate((1.0, 1.0, 1.0, 3.0), start=1):
        host = 1 + 0.1 * replicate  # drifts, and cancels in the pairs
        folder.trial("bm", "pinned", replicate, {"a": [host * ms for ms in range(10, 20)]})
        times = [host * ms * (slow if ms >= 18 else 1) for ms in range(10, 20)]
        folder.trial("cn", "pinned", replicate, {"a": times})
    (table,) = written(folder)["percentiles"]
    rows = {row["platform"]: row for row in table["rows"]}
    cn = rows["cn"]
    assert (table["percentile"], cn["trials"], cn["left"]) == (90, 4, 0)
    assert (cn["least_ms"], cn["most_ms"]) == pytest.approx((19 * 1.1, 19 * 1.4 * 3), rel=0.06)
    assert cn["ratio"] == pytest.approx(3**0.25)
    wanted = stats.ttest_1samp([0, 0, 0, math.log(3)], 0).confidence_interval(0.95)
    assert cn["ratio_high"] == pytest.approx(math.exp(wanted.high), rel=1e-4)
    assert rows["bm"]["ratio"] is None


def test_trials_with_too_few_samples_show_no_percentile_and_are_counted(folder: Folder) -> None:
    for replicate, samples in enumerate((10, 10, 9), start=1):
        for platform in ("bm", "cn"):
            folder.trial(platform, "pinned", replicate, {"a": [10.0] * samples})
    content = written(folder)
    (table,) = content["percentiles"]
    assert {(row["trials"], row["left"]) for row in table["rows"]} == {(2, 1)}
    page = Page(render(content))
    assert page.open == [] and "2 (1 with too few samples)" in page.tables["p90"]


def lay(folder: Folder, factors: dict[str, float], noise: float = 0.01) -> dict[str, Any]:
    random = np.random.default_rng(14)
    for replicate in range(1, 6):
        shift = float(np.exp(0.1 * random.normal()))
        for platform in ("bm", "cn"):
            times = {
                name: [20.0 * shift * float(np.exp(noise * random.normal()))
                       * (factor if platform == "cn" else 1)]
                for name, factor in factors.items()
            }  # fmt: skip
            folder.trial(platform, "pinned", replicate, times)
    return written(folder)


def test_an_input_that_costs_more_than_the_others_is_shown_with_its_ratio(folder: Folder) -> None:
    content = lay(folder, {"a": 1.1, "b": 1.1, "c": 1.1, "long": 2.0})
    rows = {row["input"]: row for row in content["inputs_apart"]}
    assert "long" in rows and rows["long"]["inputs"] == 4
    assert rows["long"]["ratio_low"] < 2.0 < rows["long"]["ratio_high"]
    assert rows["long"]["apart_low"] < 2.0 / (1.1**3 * 2) ** 0.25 < rows["long"]["apart_high"]
    page = Page(render(content))
    assert "long" in page.tables["inputs"]


def test_inputs_that_are_alike_are_not_shown(folder: Folder) -> None:
    content = lay(folder, {"a": 1.3, "b": 1.3, "c": 1.3})
    assert content["inputs_apart"] == []
    assert "Inputs that differ" not in render(content)


@pytest.mark.parametrize("replicates", [3, 5, 12])
@pytest.mark.parametrize("spreads", [(0.03,) * 6, (0.01, 0.01, 0.01, 0.01, 0.02, 0.08)])
def test_equal_inputs_are_named_in_at_most_one_report_of_twenty(
    replicates: int, spreads: tuple[float, ...]
) -> None:
    random = np.random.default_rng(replicates)
    named, cell = 0, {name: [""] for name in inputs.GROUP}
    names = [str(place) for place in range(len(spreads))]
    for _ in range(400):
        logs = random.normal(size=(replicates, 1)) + random.normal(
            size=(replicates, len(spreads))
        ) * np.array(spreads)
        named += bool(inputs._rows(cell, names, logs, len(spreads), 0.0))  # type: ignore[arg-type]
    assert named / 400 <= 0.085  # 0.05 and its error of 400, twice


@pytest.mark.parametrize(("requests", "enough"), [(20, False), (100, True)])
def test_the_page_states_what_a_run_shows_of_a_bound(
    folder: Folder, requests: int, enough: bool
) -> None:
    for replicate in (1, 2, 3):
        folder.trial("bm", "pinned", replicate, {"a": [20.0 + replicate] * requests})
    html = render(written(folder))
    assert ("37% of trials with 100 requests show none of them" in html) == enough
    assert ("No trial has the 100 requests that a 99th percentile needs" in html) != enough
    bursts = "if 10 come at a time, 90% of trials with 100 requests meet none"
    assert (bursts in html) == enough
    assert round(100 * math.exp(-100 * 0.01 / 10)) == 90
    assert round(100 * 0.99**100) == 37 and round(100 * 0.99**300) == 5
