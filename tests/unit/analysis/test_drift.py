"""Ratios that are confounded with time, by the order of trials and the drift of the host."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from virtbed_analysis import drift, report
from virtbed_analysis.document import document
from virtbed_analysis.frames import read_sweep

from .conftest import DEFAULTS, LISTED, Folder

START = datetime(2026, 1, 2, tzinfo=UTC)
CELLS = [("bm", "pinned"), ("cn", "pinned"), ("cn", "vanilla"), ("vm", "pinned")]


def lay(
    folder: Folder, *, per_hour: float, replicates: int = 6, shuffled: bool = False,
    apart_min: float = 10.0, noise: float = 0.005, seed: int = 1,
) -> None:  # fmt: skip
    """Lay trials whose platforms all cost the same, on a host that drifts by a share per hour."""
    chance = np.random.default_rng(seed)
    hours = 0.0
    for replicate in range(1, replicates + 1):
        for cell in chance.permutation(len(CELLS)) if shuffled else range(len(CELLS)):
            platform, mode = CELLS[cell]
            ms = 20 * (1 + per_hour) ** hours * chance.lognormal(0, noise)
            name = folder.trial(platform, mode, replicate, {"a": [ms], "b": [3 * ms]})
            start(folder, name, hours)
            hours += apart_min / 60


def start(folder: Folder, name: str, hours: float) -> None:
    at = f"{START + timedelta(hours=hours):%Y-%m-%dT%H:%M:%SZ}"
    folder.edit(f"trials/{name}/result.json", lambda result: result["trial"].update(started_at=at))


def ordered(folder: Folder) -> dict[str, Any]:
    sweep = read_sweep(folder.path)
    return drift.order(sweep.trials, sweep.samples)


def test_an_order_that_is_always_the_same_under_drift_is_warned_of_with_its_number(
    folder: Folder,
) -> None:
    lay(folder, per_hour=0.10)
    found = ordered(folder)
    (slope,) = found["slopes"]
    assert slope["unit"] == "hour"
    assert slope["low"] < 0.10 < slope["high"]
    guest = next(row for row in found["cells"] if row["platform"] == "vm")
    assert guest["gap"] == pytest.approx(0.5)
    assert guest["order"] == 3
    assert guest["bias"] == pytest.approx(1.1**0.5 - 1, abs=0.005)
    assert guest["warning"].startswith(
        "ran 30 min after bare metal on average while times drifted: +4."
    )
    content = document(read_sweep(folder.path))
    note = next(cell["note"] for cell in content["cells"] if cell["platform"] == "vm")
    assert guest["warning"] in note
    page = report(folder.path).html.read_text()
    # At the ratio, and wherever else a number is made of these trials.
    assert page.count("30 min after") >= 2


@pytest.mark.parametrize(("shuffled", "warned"), [(False, True), (True, False)])
def test_an_order_that_is_unlikely_by_chance_is_warned_of_without_a_slope(
    folder: Folder, shuffled: bool, warned: bool
) -> None:
    """What starts again in each replicate, as a cold cache, has no slope over the sweep."""
    lay(folder, per_hour=0.0, replicates=10, shuffled=shuffled)
    rows = ordered(folder)["cells"]
    text = "ran after bare metal in each of 10 pairs, as a random order does in 0.002 of sweeps"
    assert [text in (row["warning"] or "") for row in rows] == [warned] * 3


def test_a_finding_whose_effect_may_be_drift_says_so(folder: Folder) -> None:
    chance = np.random.default_rng(5)
    for position in range(18):
        platform, mode = [("bm", "pinned"), ("vm", "vanilla"), ("cn", "vanilla")][position % 3]
        ms = 20 * 1.05**position * chance.lognormal(0, 0.005)
        name = folder.trial(platform, mode, position // 3 + 1, {"a": [ms]})
        start(folder, name, position / 6)
    found = {row["id"]: row for row in document(read_sweep(folder.path))["findings"]}
    row = found["vanilla-container"]
    assert (row["with_suspects"], row["may_be_drift"]) == ("supported", True)
    assert row["answer"] == "supported; drift may explain it"
    assert "May be drift: container, CPU quota (cn vanilla) at 1 core" in row["because"]
    assert "ran 20 min after bare metal" in row["confounded"][0]
    assert found["passthrough"]["confounded"] == []


def test_an_effect_larger_than_the_drift_is_kept(folder: Folder) -> None:
    chance = np.random.default_rng(5)
    for position in range(18):
        platform, mode, cost = [
            ("bm", "pinned", 1.0), ("vm", "vanilla", 1.0), ("cn", "vanilla", 2.0)
        ][position % 3]  # fmt: skip
        ms = 20 * cost * 1.05**position * chance.lognormal(0, 0.005)
        name = folder.trial(platform, mode, position // 3 + 1, {"a": [ms]})
        start(folder, name, position / 6)
    found = {row["id"]: row for row in document(read_sweep(folder.path))["findings"]}
    row = found["vanilla-container"]
    assert (row["answer"], row["may_be_drift"]) == ("supported", False)
    assert row["confounded"]


def test_a_quiet_host_gives_no_warning(folder: Folder) -> None:
    lay(folder, per_hour=0.0)
    assert not drift.warnings(ordered(folder))


def test_a_random_order_is_no_warning_under_small_drift(folder: Folder) -> None:
    lay(folder, per_hour=0.01, shuffled=True, noise=0.01)
    assert not drift.warnings(ordered(folder))


def test_a_noisy_cell_causes_no_drift_of_the_others(folder: Folder) -> None:
    lay(folder, per_hour=0.0)
    chance = np.random.default_rng(4)
    for replicate in range(1, 7):
        ms = 20 * chance.lognormal(0, 0.4)
        name = folder.trial("vmcn", "pinned", replicate, {"a": [ms], "b": [3 * ms]})
        start(folder, name, replicate * 4 * 10 / 60)
    warned = drift.warnings(ordered(folder))
    assert not [key for key in warned if "cn" in key or "vm" in key]


def test_a_baseline_from_before_a_pause_is_warned_of_however_slow_the_drift(
    folder: Folder,
) -> None:
    lay(folder, per_hour=0.0, replicates=3)
    late = folder.trial("vmcn", "pinned", 3, {"a": [20.1], "b": [60.0]})
    start(folder, late, 30.0)
    found = {row["platform"]: row for row in ordered(folder)["cells"]}
    assert found["vmcn"]["paused"] == 1
    assert (
        "1 of 1 pair with a pause of the sweep between, up to 28.7 h apart"
        in (found["vmcn"]["warning"])
    )
    assert found["vm"]["paused"] == 0


@pytest.mark.parametrize("sign", [1, -1])
def test_a_gap_of_months_gives_finite_numbers(folder: Folder, sign: int) -> None:
    lay(folder, per_hour=sign * 0.3, replicates=3)
    late = folder.trial("vmcn", "pinned", 3, {"a": [20.1], "b": [60.0]})
    start(folder, late, -20_000.0)
    content = document(read_sweep(folder.path))
    json.dumps(content, allow_nan=False)
    found = {row["platform"]: row for row in content["drift"]["cells"]}
    assert "h apart" in found["vmcn"]["warning"]


def test_another_level_after_a_pause_is_not_drift(folder: Folder) -> None:
    """As after a restart: pairs within what ran without a pause are as good as before."""
    chance = np.random.default_rng(1)
    for position in range(32):
        platform, mode = CELLS[position % 4]
        ms = 20 * (1.5 if position >= 16 else 1) * chance.lognormal(0, 0.005)
        name = folder.trial(platform, mode, position // 4 + 1, {"a": [ms]})
        start(folder, name, position / 6 + (20 if position >= 16 else 0))
    warned = drift.warnings(ordered(folder)).values()
    assert not any("drifted" in text or "pause" in text for text in warned)


def test_a_sweep_of_long_trials_has_not_paused(folder: Folder) -> None:
    lay(folder, per_hour=0.0, replicates=4, apart_min=100.0)
    assert [row["paused"] for row in ordered(folder)["cells"]] == [0, 0, 0]


def test_without_starts_the_order_of_trials_is_used(folder: Folder) -> None:
    chance = np.random.default_rng(1)
    for position in range(24):
        platform, mode = CELLS[position % 4]
        ms = 20 * 1.02**position * chance.lognormal(0, 0.002)
        folder.trial(platform, mode, position // 4 + 1, {"a": [ms]})
    found = ordered(folder)
    assert found["slopes"][0]["unit"] == "trial"
    guest = next(row for row in found["cells"] if row["platform"] == "vm")
    assert guest["warning"].startswith("ran 3.0 trials after bare metal")


def simulated(chance: np.random.Generator, per_hour: float, *, shuffled: bool) -> drift.Json:
    """Return the drift of six replicates of four cells of equal cost, ten minutes per trial."""
    turns = [chance.permutation(4) if shuffled else range(4) for _ in range(6)]
    rows: list[dict[str, Any]] = []
    for position, cell in enumerate(cell for turn in turns for cell in turn):
        platform, mode = CELLS[cell]
        log = np.log(2e7) + per_hour * position / 6 + 0.01 * chance.standard_normal()
        rows.append(
            DEFAULTS
            | {"trial": str(position), "host": "h", "plan_digest": "p", "platform": platform,
               "mode": mode, "machine": LISTED[platform].machine,
               "enclosure": LISTED[platform].enclosure, "cores": 1, "application": "faces",
               "scale": "tiny", "scenario": "x", "weights": "seeded",
               "replicate": position // 4 + 1, "position": position, "emulated": False,
               "started_at": f"{START + timedelta(hours=position / 6):%Y-%m-%dT%H:%M:%SZ}",
               "input": "a", "warmup": False, "e2e_ns": float(np.exp(log))}
        )  # fmt: skip
    frame = pl.DataFrame(rows)
    return drift.order(frame.drop("input", "warmup", "e2e_ns"), frame)


def test_a_pause_is_seen_where_most_starts_are_the_same(folder: Folder) -> None:
    for replicate in (1, 2, 3):
        for platform, mode in CELLS:
            folder.trial(platform, mode, replicate, {"a": [20.0 + replicate]})
    start(folder, "bm-pinned-c01-image_classification-r03", -9.0)
    found = ordered(folder)["cells"]
    assert [row["paused"] for row in found] == [1, 1, 1]
    assert (
        "1 of 3 pairs with a pause of the sweep between, up to 12.1 h apart"
        in (found[0]["warning"])
    )


def test_simulated_biased_sweeps_are_warned_of_and_quiet_ones_are_not() -> None:
    chance = np.random.default_rng(3)
    quiet = [simulated(chance, 0.0, shuffled=True)["cells"] for _ in range(60)]
    assert sum(any(row["warning"] for row in cells) for cells in quiet) <= 3
    drifting = [simulated(chance, 0.1, shuffled=False)["cells"] for _ in range(60)]
    biased = [row for cells in drifting for row in cells if row["gap"] * 0.1 > np.log(1.03)]
    assert len(biased) == 120
    assert all(row["warning"] for row in biased)
