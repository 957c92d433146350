"""The stopping rule on results folders, and its coverage by simulation."""

import json
from typing import Any

import numpy as np
import pytest

from virtbed.ledger import Ledger
from virtbed.sweep.precision import Precision
from virtbed_analysis import passes, per_trial
from virtbed_analysis.cells import CELL
from virtbed_analysis.document import document
from virtbed_analysis.estimate import ratio_to_bare_metal
from virtbed_analysis.frames import read_sweep
from virtbed_analysis.intervals import mean_interval
from virtbed_analysis.precision import (
    close_enough,
    earlier_attempts,
    log_means,
    unneeded_trials,
)

from . import simulation
from .test_latency import load
from .test_passes import measure_again, start

SWEEPS, MOST, FEWEST = 4_000, 20, 8


def running_intervals(logs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the intervals of the ratio after each replicate, by the estimator."""
    n = np.arange(1, logs.shape[1] + 1)
    mean = logs.cumsum(axis=1) / n
    squares = (logs**2).cumsum(axis=1) - n * mean**2
    deviation = np.sqrt(squares.clip(0) / np.maximum(n - 1, 1))
    with np.errstate(invalid="ignore"):
        low, high = mean_interval(mean, deviation, np.broadcast_to(n, logs.shape))
    return np.exp(low), np.exp(high), np.broadcast_to(n, logs.shape)


def covered(low: np.ndarray, high: np.ndarray) -> float:
    return float(((low <= 1) & (high >= 1)).mean())


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    """Of 4,000 cells: 3% in the median, between 1.3% and 7% in nine of ten."""
    return np.exp(np.random.default_rng(7).normal(np.log(0.03), 0.5, SWEEPS))


@pytest.fixture(scope="module")
def intervals(noise: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return running_intervals(simulation.log_ratios(np.random.default_rng(2112), noise, MOST))


def stop(intervals: Any, precision: float) -> np.ndarray:
    """Return the index of the replicate at which each cell stops."""
    enough = close_enough(*intervals, precision, FEWEST)
    enough[:, -1] = True
    return enough.argmax(axis=1)


@pytest.mark.parametrize("replicates", [3, 5, 8, 12, 20])
def test_fixed_replication_covers_what_it_claims(intervals: Any, replicates: int) -> None:
    low, high, _ = intervals
    assert 0.93 <= covered(low[:, replicates - 1], high[:, replicates - 1]) <= 0.97


@pytest.mark.parametrize("precision", [0.01, 0.02, 0.03, 0.05, 0.08])
def test_adaptive_replication_covers_what_it_claims(intervals: Any, precision: float) -> None:
    low, high, _ = intervals
    at = stop(intervals, precision)
    cells = np.arange(SWEEPS)
    assert 0.93 <= covered(low[cells, at], high[cells, at]) <= 0.97


def test_adaptive_replication_takes_half_the_trials_of_fixed_for_the_same_precision(
    intervals: Any,
) -> None:
    """The required precision is that of 20 replicates in nine of ten cells; the noisiest decide."""
    low, high, _ = intervals
    reached = np.sqrt(high / low)
    precision = float(np.quantile(reached[:, MOST - 1], 0.9)) - 1
    at = stop(intervals, precision)
    as_narrow = reached[np.arange(SWEEPS), at] <= 1 + precision
    assert as_narrow.mean() >= 0.9
    assert np.median(at + 1) <= MOST / 2


def noisy(folder: Any, platform: str, spread: float, replicates: range) -> None:
    for replicate in replicates:
        wobble = 1 + spread * (-1) ** replicate
        folder.trial(platform, "pinned", replicate, {"a.png": [20 * wobble]})


def unneeded(folder: Any) -> frozenset[str]:
    """Return the unneeded trials as a controller does, from the log means in its ledger."""
    sweep = read_sweep(folder.path)
    kept = {
        path.parent.name: log_means(json.loads(path.read_text()))
        for path in folder.path.glob("trials/*/result.json")
    }
    assert sweep.design
    started = passes.started_s(sweep.trials)
    for one in earlier_attempts(folder.path):
        kept[one.name] = one.log_means
        assert started[one.name] == one.started_s
    found = unneeded_trials(sweep.design, kept, started)
    assert unneeded_trials(sweep.design, per_trial.log_means(sweep.samples), started) == found
    return found


def asked(folder: Any, **changes: Any) -> None:
    folder.design |= {"precision": 0.02, "min_replicates": 4} | changes
    folder.write("design.json", folder.design)


def planned(folder: Any, replicate: int) -> set[str]:
    return {
        folder.plan(platform, "pinned", replicate)["id"] for platform in ("bm", "cn", "vm")
    }  # fmt: skip


def test_a_precise_cell_stops_and_its_baseline_continues_for_the_others(folder: Any) -> None:
    asked(folder)
    for platform, spread in (("bm", 0), ("cn", 0.001), ("vm", 0.2)):
        noisy(folder, platform, spread, range(1, 5))
    planned(folder, 5)
    assert unneeded(folder) == {"cn-pinned-c01-image_classification-r05"}


def test_bare_metal_stops_when_every_cell_is_precise(folder: Any) -> None:
    asked(folder)
    for platform, spread in (("bm", 0), ("cn", 0.001), ("vm", 0.002)):
        noisy(folder, platform, spread, range(1, 5))
    missing = planned(folder, 5)
    assert unneeded(folder) == missing
    counts = document(read_sweep(folder.path))["counts"]
    assert (counts["unneeded"], counts["waiting"]) == (3, 0)


@pytest.mark.parametrize("changes", [{"precision": None}, {"min_replicates": 5}])
def test_without_precision_or_below_the_minimum_every_trial_is_needed(
    folder: Any, changes: dict[str, Any]
) -> None:
    asked(folder, **changes)
    for platform, spread in (("bm", 0), ("cn", 0.001), ("vm", 0.002)):
        noisy(folder, platform, spread, range(1, 5))
    planned(folder, 5)
    assert unneeded(folder) == frozenset()


def test_a_cell_without_a_result_keeps_its_baseline_needed(folder: Any) -> None:
    asked(folder)
    noisy(folder, "bm", 0, range(1, 5))
    noisy(folder, "cn", 0.001, range(1, 5))
    planned(folder, 5)
    assert unneeded(folder) == {"cn-pinned-c01-image_classification-r05"}


@pytest.mark.parametrize(("scenario", "queries"), [("server", 4), ("multi_stream", 2)])
def test_in_queueing_scenarios_the_rule_uses_latency(
    folder: Any, scenario: str, queries: int
) -> None:
    """The e2e time is known to a thousandth, but the wait is not."""
    asked(folder)
    for replicate in range(1, 5):
        for platform, spread in (("bm", 0.0), ("cn", 0.001), ("vm", 0.4)):
            wait = 20.0 * (1 + spread * (-1) ** replicate)
            waits = [0.5 * wait, wait] * 2
            e2e_ms = 20.0 * (1 + 0.001 * (-1) ** replicate * (platform != "bm"))
            load(
                folder, scenario, waits, platform=platform, replicate=replicate, e2e_ms=e2e_ms,
                queries=queries,
            )  # fmt: skip
    for platform in ("bm", "cn", "vm"):
        folder.plan(platform, "pinned", 5, scenario=scenario)
    (spared,) = unneeded(folder)
    assert spared.startswith("cn-pinned")


def test_equal_replicates_show_no_precision(folder: Any) -> None:
    asked(folder)
    for platform in ("bm", "cn", "vm"):
        noisy(folder, platform, 0, range(1, 5))
    planned(folder, 5)
    assert unneeded(folder) == frozenset()


def test_after_a_pause_a_cell_is_paired_with_the_nearest_baseline(
    folder: Any,
) -> None:
    """A day later, with the guest to go, the host is twice as slow, and bare metal with it."""
    asked(folder)
    for platform, spread in (("bm", 0), ("cn", 0.001), ("vm", 0.002)):
        noisy(folder, platform, spread, range(1, 5))
    for trial in folder.design["trials"]:
        start(folder, trial["id"], trial["replicate"] + trial["position"] / 100)
    slow = folder.trial("vm", "pinned", 5, {"a.png": [40.0]})
    near = folder.trial("cn", "pinned", 5, {"a.png": [20.0]})
    bare = folder.trial("bm", "pinned", 5, {"a.png": [20.0]})
    for name, hours in ((bare, 5.0), (near, 5.1), (slow, 30.0)):
        start(folder, name, hours)
    measure_again(folder, bare, 30.1, 2.0)
    missing = planned(folder, 6)
    assert unneeded(folder) == missing
    sweep = read_sweep(folder.path)
    assert document(sweep)["counts"]["unneeded"] == 3
    # As a controller asks, whose journal knows of the latest attempt alone.
    with Ledger(folder.path / "ledger.sqlite") as ledger:
        ledger.begin({}, [(t["id"], t["position"], t["platform"]) for t in folder.design["trials"]])
        for path in folder.path.glob("trials/*/result.json"):
            ledger.measure(path.parent.name, log_means(json.loads(path.read_text())))
            ledger.close(path.parent.name, "done", 1.0)
        assert sweep.design
        assert Precision(folder.path, ledger, sweep.design).unneeded() == missing


def test_a_cell_that_stopped_early_has_no_lost_trials(folder: Any) -> None:
    asked(folder)
    noisy(folder, "bm", 0, range(1, 7))
    noisy(folder, "cn", 0.001, range(1, 5))
    noisy(folder, "vm", 0.2, range(2, 7))
    for replicate in (5, 6):
        folder.plan("cn", "pinned", replicate)
    notes = {c["platform"]: c["note"] for c in document(read_sweep(folder.path))["cells"]}
    assert notes["cn"] is None
    assert notes["vm"] == "1 replicate left out, without a pair"


@pytest.mark.parametrize("seed", range(12))
def test_the_log_means_of_a_ledger_give_the_same_answer_as_the_estimates(
    folder: Any, seed: int
) -> None:
    """Ragged sweeps: inputs and replicates that only one side has, warm-ups, emulated trials."""
    random = np.random.default_rng(seed)
    precision, fewest = float(random.choice([0.005, 0.02, 0.05])), int(random.integers(2, 5))
    asked(folder, precision=precision, min_replicates=fewest)
    for replicate in range(1, 7):
        for platform, mode in (
            ("bm", "pinned"),
            ("bm", "vanilla"),
            ("cn", "pinned"),
            ("vm", "pinned"),
        ):
            for cores in (1, 2):
                if random.random() < 0.2:
                    folder.plan(platform, mode, replicate, cores=cores)
                    continue
                inputs = random.choice(list("abcd"), size=int(random.integers(1, 5)), replace=False)
                times = {
                    str(name): list(random.normal(20, 0.3, int(random.integers(1, 4))))
                    for name in inputs
                }
                folder.trial(platform, mode, replicate, times, cores=cores, warmup_ms=(90.0,))
    folder.trial("vmcn", "pinned", 1, {"a": [5_000.0]}, emulated=True)
    samples = read_sweep(folder.path).samples
    ratios = ratio_to_bare_metal(samples)
    ends = (ratios[end].fill_null(float("nan")).to_numpy() for end in ("ratio_low", "ratio_high"))
    close = close_enough(*ends, ratios["ratio_replicates"].to_numpy(), precision, fewest)
    wanted = set(ratios.filter(close).select(CELL).rows())
    done = set(samples["trial"])
    real = [t for t in folder.design["trials"] if not t["emulated"] and t["id"] not in done]
    others = [t for t in real if (t["platform"], t["mode"]) != ("bm", "pinned")]
    metal = {t["id"] for t in real} - {t["id"] for t in others}
    assert unneeded(folder) - metal == {
        t["id"] for t in others if tuple(t[key] for key in CELL) in wanted
    }
