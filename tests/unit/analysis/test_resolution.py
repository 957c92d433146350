"""The power of a sweep: the stated power is that of simulations."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import numpy as np
import polars as pl
import pytest

from virtbed_analysis import hours, report
from virtbed_analysis.cells import CELL
from virtbed_analysis.document import document
from virtbed_analysis.frames import read_sweep
from virtbed_analysis.intervals import mean_interval
from virtbed_analysis.resolution import (
    POWER,
    detectable_shift,
    equivalence_power,
    replicates_needed,
    upper_spread,
)

SWEEPS, SPREAD = 2000, 0.01


def intervals(shift: float, replicates: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(2112)
    logs = shift + SPREAD * random.normal(size=(SWEEPS, replicates))
    return mean_interval(logs.mean(axis=1), logs.std(axis=1, ddof=1), np.full(SWEEPS, replicates))


@pytest.mark.parametrize("replicates", [2, 3, 5, 10, 30, 99])
def test_the_smallest_detectable_difference_is_detected_in_four_sweeps_of_five(
    replicates: int,
) -> None:
    low, high = intervals(detectable_shift(replicates) * SPREAD, replicates)
    assert float(((low > 0) | (high < 0)).mean()) == pytest.approx(POWER, abs=0.03)


@pytest.mark.parametrize("replicates", [3, 5, 8, 20])
def test_the_power_of_equivalence_is_what_simulation_has(replicates: int) -> None:
    low, high = intervals(0.0, replicates)
    found = float(((low > -math.log1p(0.03)) & (high < math.log1p(0.03))).mean())
    assert equivalence_power(SPREAD, replicates, 0.03) == pytest.approx(found, abs=0.03)


@pytest.mark.parametrize("margin", [0.01, 0.03, 0.1])
def test_the_replicates_needed_reach_the_power_and_one_fewer_does_not(margin: float) -> None:
    needed = replicates_needed(SPREAD, margin)
    assert needed is not None
    limit = math.log1p(margin)
    low, high = intervals(0.0, needed)
    assert float(((low > -limit) & (high < limit)).mean()) >= POWER - 0.03
    low, high = intervals(limit, needed)
    assert float(((low > 0) | (high < 0)).mean()) >= POWER - 0.03
    assert equivalence_power(SPREAD, needed - 1, margin) < POWER


def test_more_than_a_plan_can_have_are_not_promised() -> None:
    assert replicates_needed(0.2, 0.03) is None
    assert replicates_needed(0.2, 0.03, most=2000) is not None


@pytest.mark.parametrize("replicates", [2, 3, 5, 10])
def test_the_upper_limit_of_a_spread_is_too_low_in_one_sweep_of_five(
    replicates: int,
) -> None:
    random = np.random.default_rng(7)
    seen = SPREAD * random.normal(size=(SWEEPS, replicates)).std(axis=1, ddof=1)
    enough = np.mean([upper_spread(float(one), replicates) >= SPREAD for one in seen])
    assert enough == pytest.approx(0.8, abs=0.03)


def lay(folder: Any, spread: float, replicates: int = 5, **design: Any) -> dict[str, Any]:
    """cn pinned wanders by this much from replicate to replicate."""
    wobble = np.random.default_rng(1).normal(size=replicates)
    wobble = (wobble - wobble.mean()) / (wobble.std(ddof=1) if replicates > 1 else 1)
    for replicate, own in enumerate(wobble, start=1):
        folder.trial("bm", "pinned", replicate, {"a.png": [20.0]})
        folder.trial("cn", "pinned", replicate, {"a.png": [20 * math.exp(spread * own)]})
    folder.design |= design
    folder.write("design.json", folder.design)
    found: dict[str, Any] = document(read_sweep(folder.path))["resolution"]
    return found


def test_a_report_has_the_detectable_overhead_and_the_next_command(folder: Any) -> None:
    found = lay(folder, 0.02)
    row = found["rows"][0]
    assert (row["platform"], row["replicates"]) == ("cn", 5)
    assert row["spread"] == pytest.approx(0.02, rel=1e-4)
    # detectable_shift(5) is 1.68, the upper limit of the spread 1.56 times what is seen
    assert row["detectable"] - 1 == pytest.approx(0.0537, abs=0.001)
    assert row["needed"] == replicates_needed(upper_spread(row["spread"], 5), 0.03)
    assert row["more"] == row["needed"] - 5 > 0
    assert (
        "The smallest overhead that 80% of sweeps like this detect is about 5.4%"
        in found["sentence"]
    )
    assert "at the margin of 3% can be expected in 0 of 1 cell." in found["sentence"]
    command = f"virtbed sweep quick --replicates {row['needed']}"
    assert found["command"] == command
    assert f"<code>{command}</code>" in report(folder.path).html.read_text()


def test_a_sweep_with_enough_replicates_has_no_next_command(folder: Any) -> None:
    found = lay(folder, 0.002)
    assert (found["rows"][0]["more"], found["command"], found["remedy"]) == (0, None, None)
    assert "can be expected in 1 of 1 cell." in found["sentence"]


def test_a_wide_margin_needs_fewer(folder: Any) -> None:
    assert lay(folder, 0.02, margin=0.2)["command"] is None


def test_a_sweep_with_more_replicates_than_are_recommended_has_enough_of_them(folder: Any) -> None:
    """At a spread of 9.5%, 99 replicates are too few."""
    (row,) = lay(folder, 0.095, replicates=130)["rows"]
    assert 99 < row["needed"] <= 130 and row["more"] == 0


def test_too_much_noise_gives_the_advice_to_reduce_it(folder: Any) -> None:
    found = lay(folder, 0.3)
    assert (found["rows"][0]["needed"], found["command"]) == (None, None)
    assert found["remedy"].startswith(
        "Reduce other load on the host (virtbed doctor lists some causes): with its noise "
        "1 cell would need more than 99"
    )
    assert "change the plan, under another name: tuning: true" in found["remedy"]


@pytest.mark.parametrize("within", [0.02, 0.9])
def test_more_samples_are_a_remedy_only_where_the_best_number_is_higher(
    folder: Any, within: float
) -> None:
    """Samples that vary by 2% say nothing about instances that vary by a half; by 90%, all."""
    random = np.random.default_rng(4)
    for replicate in range(1, 9):
        for platform in ("bm", "cn"):
            own = 20.0 * math.exp((0.5 if within < 0.1 else 0.0) * random.normal())
            times = own * np.exp(within * random.normal(size=6))
            folder.trial(platform, "pinned", replicate, {"a.png": times.tolist()})
    content = document(read_sweep(folder.path))
    (row,) = content["diagnostics"]["samples"]
    remedy = content["resolution"]["remedy"]
    assert "would need more than" in remedy and "more samples" not in remedy
    if within > 0.1:
        assert row["longer"].startswith("samples")
        assert f"tuning: true, {row['longer']} (image_classification, trained), a wider" in remedy
    else:
        assert row["longer"] is None and "tuning: true, a wider margin" in remedy


def test_with_one_replicate_the_next_command_measures_five(folder: Any) -> None:
    found = lay(folder, 0.0, replicates=1)
    assert found["rows"][0]["detectable"] is None
    assert "not known" in found["sentence"]
    assert found["command"] == "virtbed sweep quick --replicates 5"


def test_replicates_that_are_planned_already_are_only_to_be_finished(folder: Any) -> None:
    for replicate in range(6, 60):
        folder.plan("cn", "pinned", replicate)
    found = lay(folder, 0.02)
    assert found["command"] == "virtbed sweep quick"
    assert "not all have a result" in found["remedy"]


def test_a_precision_too_coarse_for_the_margin_is_what_to_change(folder: Any) -> None:
    found = lay(folder, 0.02, precision=0.05)
    assert found["command"] is None
    assert "precision: 1.4% in the plan, under another name" in found["remedy"]


def test_replicates_without_spread_give_no_resolution(folder: Any) -> None:
    found = lay(folder, 0.0)
    assert found["rows"][0]["detectable"] is None


def test_a_sweep_without_comparisons_has_a_sentence(folder: Any) -> None:
    folder.trial("cn", "pinned", 1, {"a": [11.0]})
    found = document(read_sweep(folder.path))["resolution"]
    assert (found["rows"], found["command"]) == ([], None)


def starts(*minutes: float, pause: float = 0.0) -> pl.DataFrame:
    """Two replicates of bare metal and a guest of 1 and 2 cores, at these minutes of a day."""
    cells = [("bm", 1), ("vm", 1), ("bm", 2), ("vm", 2)] * 2
    rows = []
    for number, (minute, (platform, cores)) in enumerate(zip(minutes, cells, strict=True)):
        at = datetime(2026, 1, 2, tzinfo=UTC) + timedelta(minutes=minute)
        at += timedelta(minutes=pause if number > 3 else 0)
        cell = dict.fromkeys(CELL, "") | {"platform": platform, "cores": cores}
        own = {"trial": str(number), "started_at": at.isoformat(), "host": "a", "emulated": False}
        rows.append(cell | own)
    return pl.DataFrame(rows)


@pytest.mark.parametrize("pause", [0.0, 600.0])
def test_more_replicates_take_as_long_as_those_before(pause: float) -> None:
    """Bare metal takes 2 minutes, a guest 10; a pause of hours is none of theirs."""
    trials = starts(0, 2, 12, 14, 24, 26, 36, 38, pause=pause)
    seconds = hours.needed_s(trials, 15)
    assert seconds == pytest.approx(15 * 24 * 60)
    assert hours.in_words(seconds, 15) == (
        "15 more replicates, which take about 6 hours on each host, by the times of this sweep."
    )


def test_equal_starts_give_no_hours() -> None:
    assert hours.needed_s(starts(*[0] * 8), 5) is None
    assert hours.needed_s(starts(*[0] * 8).head(1), 5) is None
    assert "is not known from the starts" in hours.in_words(None, 5)


def test_the_next_command_is_shown_with_its_duration(folder: Any) -> None:
    found = lay(folder, 0.02)
    assert found["takes_s"] is not None or "is not known from the starts" in found["takes"]
    assert f"{found['rows'][0]['more']} more replicates" in found["takes"]
    page = unescape(report(folder.path).html.read_text())
    assert f"</code> ({found['takes']})" in page
    assert f"</code> ({found['takes'].rstrip('.')})." in page[: page.index("<nav")]
    assert lay(folder, 0.002)["takes"] is None
