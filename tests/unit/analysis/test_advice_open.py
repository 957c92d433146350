"""What advice says where something is open: of whom it speaks, and what would tell."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from virtbed_analysis import AnalysisError
from virtbed_analysis.best import contrast_of
from virtbed_analysis.intervals import ratio_interval

from .conftest import Folder
from .test_advice import ask, fail, lay, named
from .test_drift import start

PRICES = {("bm", 1, "cpu"): 1.0, ("cn", 1, "cpu"): 0.5}


@pytest.fixture
def one_slow(folder: Folder) -> Folder:
    """Of ten instances of a pinned container one takes a hundred times as long."""
    random = np.random.default_rng(2)
    for replicate in range(1, 11):
        for platform, mode, ms in (
            ("bm", "pinned", 20.0),
            ("cn", "vanilla", 30.0),
            ("cn", "pinned", 2010.0 if replicate == 10 else 20.1),
        ):
            times = (ms * np.exp(0.01 * random.standard_normal(101))).tolist()
            folder.trial(platform, mode, replicate, {"a": times})
    return folder


def test_the_runner_up_is_one_that_may_be_the_best(one_slow: Folder) -> None:
    """With prices the pinned container may cost less; bare metal is known to cost more."""
    advice = ask(one_slow, prices=PRICES)
    assert (advice["answer"], named(advice["choice"])) == ("cannot tell", ("cn", "vanilla", 1))
    assert named(advice["runner_up"]) == ("cn", "pinned", 1)
    assert "cannot be distinguished" in advice["sure"] and "clearly more" not in advice["sure"]


def test_as_many_more_replicates_as_are_named_would_tell(one_slow: Folder) -> None:
    """Were they as these: the ratio is far from 1, and so is the end of its interval."""
    more = ask(one_slow, prices=PRICES)["more_replicates"]
    above, below = np.tile([20.1] * 9 + [2010.0], 20), np.full(200, 30.0)
    needed = next(
        n for n in range(10, 200) if (ratio_interval(above[:n], below[:n], 0.975)[0] or 0) > 1
    )
    assert more == pytest.approx(needed - 10, abs=12)
    assert contrast_of(above[:10], below[:10], 1.0, 0.975).low is None or more > 10


def test_where_only_a_bound_is_open_more_replicates_of_the_others_are_no_way(
    folder: Folder,
) -> None:
    random = np.random.default_rng(2)
    cells = {("cn", "pinned"): 9, ("podman", "pinned"): 9, ("bm", "pinned"): 3}
    for (platform, mode), last in cells.items():
        for replicate in range(1, last):
            times = (20 * np.exp(0.01 * random.standard_normal(100))).tolist()
            folder.trial(platform, mode, replicate, {"a": times})
    fail(folder, "port taken", range(3, 9), platform="bm", mode="pinned")
    advice = ask(folder, slo_ms=25)
    assert advice["answer"] == "cannot tell" and advice["more_replicates"] is None
    assert "the same within 3%" in advice["sure"] and "more replicates" not in advice["sure"]
    assert advice["sure"].endswith("whether another cell keeps the bound; the list of "
                                 "cells left out states what would decide that.")  # fmt: skip
    assert "of the 2 suitable cells and 1 that may not keep the bound." in advice["because"]


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ({"prices": {("bm", 1, "cpu"): 0.0}}, "a price of 0 found for bm with 1 core on cpu"),
        ({"prices": {("bm", 1, "cpu"): math.nan}}, "a price of nan found"),
        ({"slo_ms": math.nan}, "--slo-ms nan found"),
        ({"slo_ms": math.inf}, "--slo-ms inf found"),
        ({"slo_ms": -1.0}, "--slo-ms -1 found"),
        ({"margin": -0.5}, "--margin -0.5 found"),
        ({"margin": math.nan}, "--margin nan found"),
    ],
)
def test_no_question_of_what_is_no_number(
    folder: Folder, question: dict[str, Any], found: str
) -> None:
    lay(folder, "bm", "pinned", 1, 100)
    with pytest.raises(AnalysisError, match=found):
        ask(folder, **question)
    assert ask(folder, slo_ms=0.0)["answer"] == "none"


def test_of_a_cell_whose_trials_are_all_suspect_nothing_is_left_to_compare(folder: Folder) -> None:
    random = np.random.default_rng(3)
    for replicate in range(1, 7):
        for platform, ms, steal in (("bm", 20.0, 0.2), ("cn", 21.5, 0.0)):
            own = ms * float(np.exp(0.005 * random.standard_normal()))
            moved = {"steal_share": steal}
            folder.trial(platform, "pinned", replicate, {"a": [own] * 9}, confounders=moved)
    advice = ask(folder)
    assert named(advice["choice"]) == ("bm", "pinned", 1)
    assert (
        "All trials of bare metal, pinned, 1 core are suspect: without them, nothing is compared "
        "with it."
    ) in advice["notes"]


def test_advice_says_what_the_report_says_of_drift(folder: Folder) -> None:
    """Bare metal first in each replicate, and what follows later 5% slower: no cost, but order."""
    random = np.random.default_rng(4)
    for replicate in range(1, 11):
        for place, platform in enumerate(("bm", "cn", "podman")):
            own = 20 * 1.05**place * float(np.exp(0.003 * random.standard_normal()))
            name = folder.trial(platform, "pinned", replicate, {"a": [own] * 9})
            start(folder, name, (3 * replicate + place) / 60)
    advice = ask(folder)
    assert named(advice["choice"]) == ("bm", "pinned", 1)
    (note,) = [note for note in advice["notes"] if "may be drift" in note]
    assert note.startswith("The result of container, pinned, 1 core may be drift: it ran after ")


def test_a_runner_up_that_another_cell_beats_is_not_one_that_may_be_better(folder: Folder) -> None:
    """Two cells share two replicates; bare metal, which lies between, shares all of both."""
    random = np.random.default_rng(12)
    for replicate in range(1, 21):
        common = 20 * float(np.exp(0.02 * random.standard_normal()))
        times = common * np.exp(0.003 * random.standard_normal(3))
        if replicate < 12:
            folder.trial("cn", "pinned", replicate, {"a": [float(times[0])] * 3})
        if replicate >= 10:
            cost = 1.0 if replicate == 10 else 1.08
            folder.trial("podman", "pinned", replicate, {"a": [cost * float(times[1])] * 3})
        folder.trial("bm", "pinned", replicate, {"a": [1.05 * float(times[2])] * 3})
    advice = ask(folder)
    assert (advice["answer"], named(advice["choice"])) == ("best", ("cn", "pinned", 1))
    assert named(advice["runner_up"]) == ("podman", "pinned", 1)
    assert "may swap" not in advice["sure"]
    assert "another candidate is shown to be better than the runner-up" in advice["sure"]
