"""Intervals, bounds of shares and Holm's test, against SciPy and at edge cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from virtbed_analysis.intervals import (
    holm,
    holm_adjusted,
    mean_interval,
    p_above,
    paired_spread,
    pairs_needed,
    ratio_interval,
    share_bounds,
    simultaneous,
)

RANDOM = np.random.default_rng(11)


def test_the_interval_of_a_mean_is_students() -> None:
    values = RANDOM.normal(0.2, 0.1, 7)
    (low,), (high,) = mean_interval(
        np.array([values.mean()]), np.array([values.std(ddof=1)]), np.array([7])
    )
    wanted = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (low, high) == pytest.approx((wanted.low, wanted.high))


def test_one_observation_has_no_interval() -> None:
    low, high = mean_interval(np.zeros(2), np.array([0.0, 1.0]), np.array([1, 4]))
    assert [*np.isnan(low)] == [*np.isnan(high)] == [True, False]


def test_noise_that_both_sides_of_a_pair_share_cancels() -> None:
    hours = np.exp(RANDOM.normal(0, 1, 12))
    assert paired_spread(3 * hours, hours) == pytest.approx(0)
    assert math.isnan(paired_spread(np.ones(1), np.ones(1)))


def test_the_interval_of_a_ratio_is_symmetric_in_its_sides() -> None:
    above, below = np.exp(RANDOM.normal(0.3, 0.1, 9)), np.exp(RANDOM.normal(0, 0.1, 9))
    low, high = ratio_interval(above, below)
    inverse = ratio_interval(below, above)
    assert low and high and inverse[0] and inverse[1]
    assert (low, high) == pytest.approx((1 / inverse[1], 1 / inverse[0]))
    assert low < above.mean() / below.mean() < high


def test_a_ratio_dominated_by_one_pair_has_no_end() -> None:
    assert ratio_interval(np.ones(1), np.ones(1)) == (None, None)
    assert ratio_interval(np.array([1.0, 100.0]), np.ones(2))[0] is None


def test_one_very_slow_instance_does_not_hide_a_difference() -> None:
    below = np.full(8, 1.0) + RANDOM.normal(0, 0.005, 8)
    above = 1.3 * below
    slow = above.copy()
    slow[3] *= 40
    low, _ = ratio_interval(slow, below)
    assert low is not None and low > 1.1


def test_more_pairs_are_needed_for_a_smaller_gap() -> None:
    needed = [pairs_needed(0.05, gap, 0.95, 99) for gap in (0.2, 0.05, 0.02, 0.001)]
    assert needed[-1] is None
    found = [n for n in needed if n is not None]
    assert found == sorted(found)
    for n, gap in zip(found, (0.2, 0.05, 0.02), strict=True):
        assert stats.t.ppf(0.975, n - 1) * 0.05 / math.sqrt(n) <= gap
        assert n == 2 or stats.t.ppf(0.975, n - 2) * 0.05 / math.sqrt(n - 1) > gap
    assert pairs_needed(math.nan, 0.5, 0.95, 99) is None


def test_bounds_of_a_share_are_clopper_and_pearsons() -> None:
    low, high = share_bounds(3, 20, 0.975)
    wanted = stats.binomtest(3, 20).proportion_ci(0.95, method="exact")
    assert (low, high) == pytest.approx((wanted.low, wanted.high))
    assert share_bounds(0, 5, 0.95)[0] == 0 and share_bounds(5, 5, 0.95)[1] == 1
    # Of 29 that kept a bound, 90% do, at 95%; of 28 that is not shown.
    assert share_bounds(29, 29, 0.95)[0] >= 0.9 > share_bounds(28, 28, 0.95)[0]


def test_several_intervals_are_each_wider() -> None:
    assert (simultaneous(0), simultaneous(1)) == (pytest.approx(0.95), pytest.approx(0.95))
    assert simultaneous(10) == pytest.approx(0.995)


def test_equal_values_are_no_precision() -> None:
    assert p_above(np.full(9, 5.0), 1.0) == 1.0
    assert p_above(np.array([5.0]), 1.0) == 1.0
    values = np.array([0.4, 0.6, 0.5, 0.55])
    wanted = stats.ttest_1samp(values, 0.1, alternative="greater").pvalue
    assert p_above(values, 0.1) == pytest.approx(wanted)


def test_holm_stops_at_the_first_hypothesis_that_is_not_rejected() -> None:
    assert holm([0.04, 0.001, 0.03, 0.02]) == [False, True, False, False]
    assert holm([0.01, 0.02, 0.03]) == [True, True, True]
    assert holm([]) == []
    assert holm_adjusted([0.9, 0.8]) == [1.0, 1.0]
