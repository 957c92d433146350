"""Percentiles per trial, for trials with enough requests only."""

from __future__ import annotations

import math

import pytest

from virtbed_analysis import load
from virtbed_analysis.estimate import samples_to_show
from virtbed_analysis.tails import by_trial

from .conftest import Folder

ENOUGH = samples_to_show(90)


def test_a_percentile_is_a_trials_own_and_its_ratio_is_paired(folder: Folder) -> None:
    """The slowest request of a container takes twice bare metal's, whatever the replicate's."""
    for replicate, slow_ms in ((1, 20.0), (2, 40.0)):
        folder.trial("bm", "pinned", replicate, {"a.png": [10.0] * (ENOUGH - 2) + [slow_ms] * 2})
        folder.trial(
            "cn", "pinned", replicate, {"a.png": [10.0] * (ENOUGH - 2) + [2 * slow_ms] * 2}
        )
    (table,) = by_trial(load(folder.path), "e2e_ns")
    assert table["percentile"] == 90
    metal, container = table["rows"]
    assert (metal["platform"], container["platform"]) == ("bm", "cn")
    assert (metal["least_ms"], metal["most_ms"]) == (20, 40)
    assert metal["typical_ms"] == pytest.approx(math.sqrt(20 * 40))
    assert (container["trials"], container["left"]) == (2, 0)
    assert container["ratio"] == pytest.approx(2)


def test_a_trial_with_too_few_requests_is_counted_as_left(folder: Folder) -> None:
    for replicate, requests in ((1, ENOUGH), (2, ENOUGH - 1)):
        folder.trial("bm", "pinned", replicate, {"a.png": [10.0] * requests})
    (table,) = by_trial(load(folder.path), "e2e_ns")
    (row,) = table["rows"]
    assert (row["trials"], row["left"]) == (1, 1)


def test_a_percentile_that_no_trial_can_show_has_no_table(folder: Folder) -> None:
    folder.trial("bm", "pinned", 1, {"a.png": [10.0] * (ENOUGH - 1)})
    assert by_trial(load(folder.path)) == []
