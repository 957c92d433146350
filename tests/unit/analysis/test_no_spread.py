"""Equal replicates and lost trials make no statement of a page more certain.

What is alike is no measurement; what is lost may have been the slow ones.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from virtbed_analysis import calibrate, compare
from virtbed_analysis.document import document
from virtbed_analysis.frames import read_sweep

from .conftest import Folder, Json, failure

CELLS = {("bm", "pinned"): 20.0, ("cn", "pinned"): 20.2, ("cn", "vanilla"): 28.0}


def sweep_of(path: Path, spread: float, **changed: float) -> Folder:
    folder, random = Folder(path), np.random.default_rng(5)
    for replicate in range(1, 6):
        for (platform, mode), ms in CELLS.items():
            own = changed.get(f"{platform}_{mode}", ms) * float(np.exp(spread * random.normal()))
            folder.trial(platform, mode, replicate, {"a": [own] * 20})
    return folder


@pytest.fixture
def flat(tmp_path: Path) -> Json:
    return document(read_sweep(sweep_of(tmp_path / "flat", 0.0).path))


def test_the_first_screen_shows_no_interval_for_equal_replicates(flat: Json) -> None:
    screen = flat["headline"]
    text = " ".join([*screen["sure"], *(row["text"] for row in screen["warnings"])])
    assert "0.0% to either side" not in text
    assert "includes both" not in text
    assert "2 of 2 cells have replicates alike to the last digit" in text


def test_a_complete_sweep_is_not_called_incomplete(flat: Json) -> None:
    resolution = flat["resolution"]
    assert resolution["command"] is None
    assert "not all have a result" not in resolution["remedy"]
    assert resolution["remedy"].startswith("2 cells with replicates alike to the last digit")


def test_one_side_without_spread_makes_no_change_clear(tmp_path: Path) -> None:
    first = sweep_of(tmp_path / "before", 0.01)
    second = sweep_of(tmp_path / "after", 0.0, cn_vanilla=40.0)
    comparison = compare(first.path, second.path, fail_above=0.03)
    assert {row["cost"]["answer"] for row in comparison["cells"] if row["cost"]} == {"cannot tell"}
    assert {row["cost"]["low"] for row in comparison["cells"] if row["cost"]} == {None}
    assert comparison["fail"]["verdict"] == "cannot tell"


def test_a_summary_names_the_cells_that_one_side_lacks(tmp_path: Path) -> None:
    first, second = (
        sweep_of(tmp_path / name, 0.01, cn_pinned=x) for name, x in (("a", 20), ("b", 21))
    )
    for replicate in range(1, 6):
        trial = f"cn-vanilla-c01-image_classification-r{replicate:02}"
        (second.path / "trials" / trial / "result.json").unlink()
        second.write(f"trials/{trial}/failure.json", failure(trial, "killed"))
    named = "container, CPU quota (cn vanilla) at 1 core, image_classification, trained."
    comparison = compare(first.path, second.path)["summary"]
    assert "Of 1 cell, " in comparison
    assert f"1 cell of the first without a result in the second: {named}" in comparison
    turned = compare(second.path, first.path)["summary"]
    assert f"1 cell of the second without a result in the first: {named}" in turned


def calibrated(folder: Folder, spread: float, twins: int, message: str = "") -> Json:
    random = np.random.default_rng(4)
    for replicate in range(1, 11):
        for variant in ("plain", "twin"):
            own = 20 * float(np.exp(spread * random.normal()))
            if variant == "plain" or replicate <= twins:
                folder.trial("bm", "pinned", replicate, {"a": [own] * 20}, variant=variant)
            else:
                trial = folder.plan("bm", "pinned", replicate, variant=variant)["id"]
                folder.write(f"trials/{trial}/failure.json", failure(trial, message))
    return calibrate(folder.path)


def test_equal_replicates_give_no_resolution(folder: Folder) -> None:
    calibration = calibrated(folder, 0.0, 10)
    assert (calibration["passed"], calibration["resolution"]) == (False, [])


def test_a_small_slowdown_not_distinguished_from_none_does_not_fail(folder: Folder) -> None:
    """The interval is within the margin of 1.01, and holds 1: too wide, of a sound testbed."""
    wobble = [0.008, -0.008, 0.006, -0.006, 0.01, -0.01]
    for replicate, own in enumerate(wobble, start=1):
        folder.trial("bm", "pinned", replicate, {"a": [20.0] * 9})
        slowed = 20.0 * 1.005 * float(np.exp(own))
        folder.trial(
            "bm", "pinned", replicate, {"a": [slowed] * 9}, variant="slowed", slowdown=0.01
        )
    (check,) = calibrate(folder.path)["checks"]
    assert check["low"] < 1 and check["answer"] == "equivalent"
    assert (check["verdict"], check["passed"]) == ("cannot tell", False)
    assert "does not distinguish 1.01 from 1" in check["reason"]


def test_survivors_of_a_time_limit_do_not_pass_a_calibration(folder: Folder) -> None:
    calibration = calibrated(folder, 0.003, 5, "still running after 600 s")
    (check,) = calibration["checks"]
    assert (check["verdict"], calibration["passed"]) == ("cannot tell", False)
    assert "trials of twin were ended at a time limit" in check["sentence"]
    assert "of twin 5 of 10 trials failed (5 at a time limit)" in check["sentence"]


def test_other_failures_are_shown_with_a_check_that_passes(folder: Folder) -> None:
    (check,) = calibrated(folder, 0.003, 8, "port taken")["checks"]
    assert check["verdict"] == "passed"
    assert "but: of twin 2 of 10 trials failed" in check["sentence"]


@pytest.mark.parametrize(
    ("message", "verdict"), [("still running after 600 s", "cannot tell"), ("port taken", "above")]
)
def test_a_rise_above_survivors_of_a_time_limit_is_unclear(
    tmp_path: Path, message: str, verdict: str
) -> None:
    """Where the slow trials of the first side are missing, the second need not be slower."""
    first, second = (
        sweep_of(tmp_path / name, 0.005, cn_vanilla=ms) for name, ms in (("a", 28), ("b", 40))
    )
    for replicate in range(6, 9):
        trial = first.plan("cn", "vanilla", replicate)["id"]
        first.write(f"trials/{trial}/failure.json", failure(trial, message))
    comparison = compare(first.path, second.path, fail_above=0.03)["fail"]
    assert comparison["verdict"] == verdict
    row = next(
        row for row in [*comparison["above"], *comparison["unclear"]] if row["what"] == "cost"
    )
    assert row["why"] == ("" if verdict == "above" else "3 of 8 trials and 0 of 5 trials lost")
