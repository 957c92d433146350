"""Which cell is the best: simulated sweeps with drift, failures, unequal replicates, outliers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from virtbed_analysis.advice import set_aside
from virtbed_analysis.best import contrast_of, ranking
from virtbed_analysis.candidates import Candidate, Ends
from virtbed_analysis.cells import DEFAULTED, MATCHED
from virtbed_analysis.engine import Logs
from virtbed_analysis.intervals import holm, pairs_needed, ratio_interval, share_bounds
from virtbed_analysis.question import Question

Floats = NDArray[np.float64]
MARGIN = 0.03
TRUTH = (1.0, 1.01, 1.06, 1.1, 1.3)


def cell(
    name: str, times: dict[int, float], *, cores: int = 2, failed: int = 0, memory_mib: int = 4096
) -> Candidate:
    factors = {factor.name: factor.default for factor in (*MATCHED, *DEFAULTED)}
    about = {
        "platform": name, "mode": "pinned", "cores": cores, "application": "a", "scale": "trained",
        "scenario": "single_stream", **factors,
    }  # fmt: skip
    mean = float(np.mean(list(times.values())))
    return Candidate(
        about,
        Logs.of({r: (["x"], [math.log(ms)]) for r, ms in times.items()}),
        (mean, mean, mean),
        latency=None,
        per_sample=None,
        p99=(None, None),
        memory_mib=memory_mib,
        requests=100 * len(times),
        ends=Ends(measured=len(times), failed=failed),
        slo=None,
        price=None,
    )


def sweep_times(
    random: np.random.Generator, truth: Sequence[float], n: int, noise: float
) -> Floats:
    """Return times by replicate and cell: drift over the order of trials, noise, slow trials."""
    cells = len(truth)
    steps = random.normal(size=cells * n)
    drift = np.empty(cells * n)
    drift[0] = steps[0]
    for trial in range(1, cells * n):
        drift[trial] = 0.95 * drift[trial - 1] + np.sqrt(1 - 0.95**2) * steps[trial]
    place = random.random((n, cells)).argsort(axis=1).argsort(axis=1)
    common = drift.reshape(n, cells)[np.arange(n)[:, None], place]
    slowed = (random.random((n, cells)) < 0.05) * random.exponential(3, (n, cells))
    logs = common + random.normal(size=(n, cells)) + slowed
    return np.asarray(100 * np.array(truth) * np.exp(noise * logs))


def sweep(random: np.random.Generator, n: int, noise: float, bad: bool) -> dict[str, Candidate]:
    """Return the cells of a sweep: some stop early, 8% of trials fail, one instance may be bad."""
    truth = random.permutation(TRUTH)
    times = sweep_times(random, truth, n, noise)
    if bad:
        times[random.integers(n), random.integers(len(truth))] *= 3
    found = {}
    for column, factor in enumerate(truth):
        last = n - random.integers(0, n // 3 + 1)
        failed = random.random(n) < 0.08
        kept = {r: float(times[r, column]) for r in range(last) if not failed[r]}
        if kept:
            found[f"{factor}"] = cell(f"{factor}", kept, failed=int(failed[:last].sum()))
    return found


@pytest.mark.parametrize("bad", [False, True], ids=["", "one bad instance"])
@pytest.mark.parametrize(
    ("n", "noise"), [(3, 0.01), (3, 0.03), (4, 0.03), (5, 0.03), (10, 0.03), (20, 0.02)]
)
def test_the_choice_is_the_best_or_as_good(n: int, noise: float, bad: bool) -> None:
    random, sweeps = np.random.default_rng(16), 120
    seen: Counter[str] = Counter()
    for _ in range(sweeps):
        cells = sweep(random, n, noise, bad)
        best = min(map(float, cells))
        fit, _ = set_aside(list(cells.values()))
        ranked = ranking(fit, [], Question("a", margin=MARGIN))
        assert ranked.choice is not None
        good = float(ranked.choice.cell["platform"]) <= best * (1 + MARGIN)
        seen[ranked.answer] += 1
        seen["good"] += good
        seen["wrong"] += ranked.answer != "cannot tell" and not good
        seen["kept"] += any(float(one.cell["platform"]) == best for one in ranked.may_be_best)
    assert seen["kept"] / sweeps > 0.95
    assert seen["wrong"] / sweeps < 0.05
    # From three replicates, of which a cell may lack two, nearly each answer is "cannot tell".
    assert seen["good"] / sweeps >= 0.95
    if n == 20:
        assert seen["cannot tell"] / sweeps < 0.4


def rank(*cells: Candidate, **question: object) -> tuple[str, str, set[str]]:
    ranked = ranking(cells, [], Question("a", **question))  # type: ignore[arg-type]
    assert ranked.choice is not None
    names = {str(one.cell["platform"]) for one in ranked.may_be_best}
    return ranked.answer, str(ranked.choice.cell["platform"]), names


def around(mean: float, *errors: float) -> dict[int, float]:
    return {r: mean * (1 + error / 100) for r, error in enumerate(errors)}


def test_ten_cells_alike_have_rarely_a_best() -> None:
    random = np.random.default_rng(5)
    sweeps = 100
    seen: Counter[str] = Counter()
    for _ in range(sweeps):
        times = 100 * np.exp(0.02 * random.standard_normal((10, 6)))
        cells = [cell(f"p{i}", dict(enumerate(own))) for i, own in enumerate(times)]
        seen[rank(*cells)[0]] += 1
    assert seen["best"] / sweeps < 0.05


def test_best_is_said_of_all_others_not_of_the_second_alone() -> None:
    """b is clearly slower than a; of c, which has one replicate, nothing is known."""
    a, b = cell("a", around(100, 0, 1, -1, 0.5, -0.5)), cell("b", around(120, 1, 0, -1, 0, 0.5))
    assert rank(a, b) == ("best", "a", {"a"})
    assert rank(a, b, cell("c", {1: 130.0})) == ("cannot tell", "a", {"a", "c"})
    assert rank(a, b, cell("c", {99: 130.0})) == ("cannot tell", "a", {"a", "c"})


def test_cells_are_compared_in_the_replicates_that_both_have() -> None:
    """The first replicates are slow; the cell that is missing in them only looks faster."""
    level = np.array([200.0, 190, 180, 100, 101, 99, 100, 102])
    noise = np.array([0, 0.004, -0.003, 0.002, -0.002, 0.001, 0.003, -0.001])
    faster = cell("faster", dict(enumerate(level)))
    slower = cell("slower", {r: 1.1 * level[r] * (1 + noise[r]) for r in range(3, 8)})
    assert slower.e2e[0] < faster.e2e[0]
    assert rank(faster, slower) == ("best", "faster", {"faster"})


def test_means_decide_not_logarithms() -> None:
    """In two replicates of five a takes four times as long: 22 on average, b 18."""
    a = cell("a", dict(enumerate([10.0, 40, 10, 40, 10] * 40)))
    b = cell("b", dict(enumerate([18.0, 18.1, 17.9, 18, 18] * 40)))
    assert np.exp(np.mean(np.log([10, 40, 10, 40, 10]))) < 18
    prices = {("a", 2, "cpu"): 1.0, ("b", 2, "cpu"): 1.0}
    assert rank(a, b, prices=prices)[1:] == ("b", {"b"})
    assert rank(a, b)[1:] == ("b", {"b"})


def test_of_equals_the_smallest_and_with_a_price_the_cheapest() -> None:
    big = cell("big", around(100, 0.1, 0, -0.1, 0.2, -0.2, 0), cores=8)
    small = cell("small", around(101, 0, 0.1, 0.1, -0.1, -0.2, 0.1), cores=4)
    assert rank(big, small)[:2] == ("equivalent", "small")
    assert rank(big, small, margin=0.005)[:2] == ("best", "big")
    lean = cell("lean", around(100.5, 0, 0, 0.1, -0.1, 0.2, -0.2), cores=4, memory_mib=2048)
    assert rank(big, small, lean)[:2] == ("equivalent", "lean")


def test_of_what_cannot_be_distinguished_the_smallest_of_the_typically_fastest() -> None:
    big = cell("big", around(100, 6, -7, 3, -4, 5, -3), cores=8)
    small = cell("small", around(101, -5, 6, -4, 7, -2, 1), cores=4)
    slow = cell("slow", around(150, 90, -32, 20, 85, -35, -28), cores=1)
    answer, choice, may = rank(big, small, slow)
    assert (answer, choice, may) == ("cannot tell", "small", {"big", "small", "slow"})


def test_one_bad_instance_of_the_slow_does_not_hide_that_it_is_slow() -> None:
    fast = cell("fast", around(100, 0, 1, -1, 0.5, -0.5, 0))
    slow = cell("slow", around(130, 1, 0, -1, 0.5, 200, 0))
    assert rank(fast, slow) == ("best", "fast", {"fast"})
    assert rank(fast, cell("odd", around(95, 0, 1, -1, 0.5, 200, 0)))[0] == "cannot tell"


def test_cells_that_share_no_replicate_are_compared_through_the_others() -> None:
    """The fast and the slow never met: a third cell met both, and tells which to begin with."""
    fast = cell("fast", {1: 100.0, 2: 100.5})
    cells = [cell("slow", {3: 131.0}), fast, cell("mid", {1: 106.0, 2: 106.5, 3: 105.0})]
    assert rank(*cells)[:2] == ("cannot tell", "fast")
    alike = {(name, 2, "cpu"): 1.0 for name in ("slow", "fast", "mid")}
    assert rank(*cells, prices=alike)[:2] == ("cannot tell", "fast")
    drifted = cell("fast", {1: 200.0, 2: 201.0})  # in slow hours; its times alone are the longest
    between = cell("mid", {1: 212.0, 2: 213.0, 3: 120.0})
    assert rank(cell("slow", {3: 131.0}), drifted, between)[:2] == ("cannot tell", "fast")


def test_how_many_more_replicates_would_tell() -> None:
    few = [cell("a", around(100, 4, -2, 1, 3, -3)), cell("b", around(102, -3, 3, -2, 4, 1))]
    random = np.random.default_rng(1)
    more = ranking(few, [], Question("a")).more
    assert more is not None and 20 <= more <= 100
    spread = 0.03 * random.standard_normal((2, 5 + more))
    many = [
        cell(name, dict(enumerate(mean * np.exp(own))))
        for name, mean, own in zip("ab", (100.0, 102.0), spread, strict=True)
    ]
    assert ranking(many, [], Question("a")).answer in ("best", "equivalent")
    assert ranking(many, [], Question("a")).more is None


def test_unknown_cells_keep_the_answer_open_and_are_not_chosen() -> None:
    a, b = cell("a", around(100, 0, 1, -1, 0, 1)), cell("b", around(90, 0, 1, -1, 1, 0))
    ranked = ranking([a], [b], Question("a"))
    assert ranked.answer == "cannot tell" and ranked.choice is a
    assert {one.cell["platform"] for one in ranked.may_be_best} == {"a", "b"}
    assert ranking([b], [a], Question("a")).answer == "best"
    assert ranking([], [b], Question("a")).answer == "cannot tell"
    assert ranking([], [], Question("a")).answer == "none"


@pytest.mark.parametrize("n", [3, 5, 10, 30])
@pytest.mark.parametrize("tail", [0.0, 0.1], ids=["normal", "slow trials on both sides"])
def test_the_interval_of_a_ratio_of_means_covers(n: int, tail: float) -> None:
    random, sweeps = np.random.default_rng(n), 1500
    shape = (2, sweeps, n)
    drift = 0.1 * random.normal(size=(sweeps, n))
    slow = (random.random(shape) < tail) * random.exponential(3, shape)
    above, below = np.exp(drift + 0.02 * (random.normal(size=shape) + slow))
    missed = 0
    for one, other in zip(above, below, strict=True):
        low, high = ratio_interval(one, other)
        missed += (low is not None and low > 1) or (high is not None and high < 1)
    assert missed / sweeps < 0.065


def test_replicates_that_do_not_differ_at_all_show_no_spread() -> None:
    a, b = cell("a", around(100, 0, 0, 0)), cell("b", around(120, 0, 0, 0))
    assert rank(a, b) == ("cannot tell", "a", {"a", "b"})


def test_an_interval_is_the_same_whichever_side_is_divided() -> None:
    one, other = np.array([1.0, 1.1, 0.9, 1.2, 5.0]), np.array([1.3, 1.2, 1.0, 1.4, 1.2])
    low, high = ratio_interval(one, other)
    turned = ratio_interval(other, one)
    assert low is not None and high is None
    assert turned == (None, pytest.approx(1 / low))
    pair = contrast_of(one, other, 2.0, 0.95)
    assert pair.low == pytest.approx(2 * low)
    assert pair.turned().high == pytest.approx(1 / pair.low)
    assert contrast_of(one[:0], other[:0], 1.0, 0.95).low is None


def test_shares_have_exact_bounds_and_holm_is_no_less_powerful_than_bonferroni() -> None:
    assert share_bounds(0, 10, 0.95) == (0.0, pytest.approx(1 - 0.05 ** (1 / 10)))
    assert share_bounds(10, 10, 0.95) == (pytest.approx(0.05 ** (1 / 10)), 1.0)
    assert holm([0.02, 0.001, 0.03, 0.2]) == [False, True, False, False]
    assert holm([0.02, 0.001, 0.013]) == [True, True, True]
    assert holm([]) == []
    assert pairs_needed(0.02, 0.0001, 0.95, 100) is None
