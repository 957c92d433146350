"""Requests in bursts: more slow ones by chance do not break a bound."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from virtbed_analysis.reasons import bursts_seen
from virtbed_analysis.slo import Instance, judge

from .test_slo import bursts_in, instances


def in_bursts(
    random: np.random.Generator, share: float, size: int, alike: bool, shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Return a share of requests in bursts: of one size, or of sizes that are geometric."""
    chance = share / size / (1 if alike else 1 - share)
    found, left = np.zeros(shape, dtype=np.bool_), np.zeros(shape[:-1], dtype=np.int64)
    for at in range(-size, shape[-1]):
        begins = (left == 0) & (random.random(shape[:-1]) < chance)
        sizes = np.full(shape[:-1], size) if alike else random.geometric(1 / size, shape[:-1])
        left = np.where(begins, sizes, left)
        found[..., max(0, at)] = left > 0
        left = np.maximum(left - 1, 0)
    return found


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("size", [3, 10])
@pytest.mark.parametrize(("n", "requests"), [(5, 300), (30, 100)])
def test_bursts_break_no_bound_that_is_kept(n: int, requests: int, size: int, alike: bool) -> None:
    """1% of every instance's requests are beyond it, in bursts: its p99 is within the bound."""
    random, sweeps = np.random.default_rng(size), 200
    beyond = in_bursts(random, 0.0095, size, alike, (sweeps, n, requests))
    times = beyond + random.random(beyond.shape)
    slow = times > np.sort(times, axis=-1)[..., -requests // 10 - 1 : -requests // 10]
    counts = [beyond.sum(-1), bursts_in(beyond), slow.sum(-1), bursts_in(slow)]
    slos = [
        judge([Instance(requests, *map(int, own)) for own in zip(*rows, strict=True)])
        for rows in zip(*counts, strict=True)
    ]
    assert np.mean([slo.verdict == "broken" for slo in slos]) <= 0.05


def test_an_instance_that_is_slow_throughout_is_not_a_burst() -> None:
    """One of ten, of whose requests all, or two in three, are beyond; the others meet bursts."""
    for slow in (Instance(100, 100, 1, 10, 8), Instance(100, 67, 11, 10, 8)):
        others = [Instance(100, 0, 0, 10, 8)] * 7 + [Instance(100, 3, 1, 10, 7)] * 2
        assert judge([*others, slow]).verdict == "broken"


def test_the_effect_of_bursts_is_reported_in_numbers() -> None:
    """Five runs of 120 requests, of bursts of 10: exp(-0.6) meet none."""
    verdicts = bursts_seen(judge(instances(*[0] * 5, requests=120)))
    assert "Slow requests are not clustered here" in verdicts
    assert "arrived 10 at a time, 55% of such sweeps would meet none" in verdicts
    together = judge([Instance(300, 6, 1, 30, 24), *[Instance(300, 0, 0, 30, 24)] * 4])
    assert "and in so few bursts, that it may be chance" in together.reason
