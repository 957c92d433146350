"""Judging twins and slowed platforms whose truth the test knows."""

import json
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from virtbed_analysis import AnalysisError, calibrate
from virtbed_analysis.calibration import resolvable
from virtbed_analysis.doubts import limit
from virtbed_analysis.margin import EQUIVALENT, answer

SPREAD = [0.0, 0.01, -0.01, 0.005, -0.005, 0.0]


def measured(folder: Any, twin: float = 1.0, slowed: float = 1.1, spread: float = 1.0) -> Any:
    for replicate, wobble in enumerate(SPREAD, start=1):
        for variant, ratio in (("plain", 1.0), ("twin", twin), ("slowed", slowed)):
            # As far off as `wobble` says, in twin and slowed alone.
            factor = ratio if variant == "plain" else ratio * math.exp(spread * wobble)
            folder.trial(
                "bm", "pinned", replicate, {"a.png": [20 * factor], "b.png": [50 * factor]},
                variant=variant, slowdown=0.1 if variant == "slowed" else 0.0,
            )  # fmt: skip
    return folder


def test_a_testbed_that_finds_the_true_ratios_passes(folder: Any) -> None:
    content = calibrate(measured(folder).path)
    assert content["passed"] is True
    twin, slowed = content["checks"]
    assert (twin["check"], twin["expected"], twin["replicates"]) == ("twin", 1.0, 6)
    assert twin["low"] < 1 < twin["high"]
    assert (slowed["check"], slowed["expected"]) == ("slowdown", 1.1)
    assert slowed["low"] < 1.1 < slowed["high"]
    assert json.loads((folder.path / "calibration.json").read_text()) == content


@pytest.mark.parametrize(
    ("truth", "failed", "reason"),
    [
        ({"twin": 1.05}, "twin", "misses 1"),
        ({"spread": 8.0}, "twin", "is not wholly within 3% of 1: the check cannot"),
        ({"twin": 1.02, "spread": 3.0}, "twin", "is not wholly within 3% of 1"),
        ({"slowed": 1.1, "spread": 5.0}, "slowdown", "is not wholly within 3% of 1.1"),
        ({"slowed": 1.2}, "slowdown", "misses 1.1"),
        ({"slowed": 1.05, "spread": 9.0}, "slowdown", "does not distinguish 1.1"),
    ],
)
def test_a_testbed_that_misses_the_true_ratios_fails_with_a_reason(
    folder: Any, truth: dict[str, float], failed: str, reason: str
) -> None:
    content = calibrate(measured(folder, **truth).path)
    assert content["passed"] is False
    check = next(c for c in content["checks"] if c["check"] == failed)
    assert not check["passed"]
    assert reason in check["reason"]
    verdict = "failed" if "misses" in reason else "cannot tell"
    assert check["verdict"] == verdict and check["sentence"].startswith(f"{verdict}: ")
    assert reason in check["sentence"]


def test_the_resolution_is_what_its_sentence_says(folder: Any) -> None:
    (row,) = calibrate(measured(folder).path)["resolution"]
    assert row["overhead"] == pytest.approx(resolvable(float(np.std(SPREAD, ddof=1)), 6), rel=1e-5)
    assert row["sentence"].startswith(f"on this host, 6 replicates resolve {row['overhead']:.1%} (")


@pytest.mark.parametrize("replicates", [5, 8, 12, 15])
def test_a_resolvable_overhead_is_found_four_times_in_five(replicates: int) -> None:
    random = np.random.default_rng(2112)
    overhead = math.log1p(resolvable(0.03, replicates))
    logs = random.normal(overhead, 0.03, (20_000, replicates))
    found = stats.ttest_1samp(logs, 0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.03)


def test_a_planned_check_without_a_result_fails(folder: Any) -> None:
    folder.plan("cn", "pinned", 1, variant="twin")
    content = calibrate(measured(folder).path)
    assert content["passed"] is False
    (missing,) = [check for check in content["checks"] if check["platform"] == "cn"]
    assert (missing["check"], missing["replicates"], missing["low"]) == ("twin", 0, None)
    assert not missing["passed"]


def test_a_slowdown_that_no_result_states_is_not_reported_as_zero(folder: Any) -> None:
    folder.trial("bm", "pinned", 1, {"a.png": [20.0]})
    folder.trial("bm", "pinned", 1, {"a.png": [20.0]}, variant="twin")
    folder.plan("bm", "pinned", 1, variant="slowed")
    content = calibrate(folder.path)
    (slowed,) = [check for check in content["checks"] if check["check"] == "slowdown"]
    assert slowed["expected"] is None and not slowed["passed"]
    assert "1 expected" not in slowed["sentence"]


def test_suspect_trials_are_counted(folder: Any) -> None:
    measured(folder)
    name = "bm-pinned-c01-twin-image_classification-r02"
    folder.edit(f"trials/{name}/result.json", lambda r: r["confounders"].update(others_share=0.5))
    assert calibrate(folder.path)["suspect"] == 1


def test_the_intervals_of_all_checks_are_simultaneous(folder: Any) -> None:
    """A testbed that is right passes 95 times of 100, not 90 as with two intervals of 95%."""
    content = calibrate(measured(folder, twin=1.004, slowed=1.104).path)
    twin, slowed = content["checks"]
    deviation = float(np.std(SPREAD, ddof=1))
    wide = math.exp(stats.t.ppf(1 - 0.05 / 4, 5) * deviation / math.sqrt(6))
    assert twin["high"] == pytest.approx(1.004 * wide, rel=1e-5)
    assert slowed["low"] == pytest.approx(1.104 / wide, rel=1e-5)
    assert twin["half_width"] == pytest.approx(wide - 1, rel=1e-4)


def test_a_sweep_without_twins_is_refused(quick: Any) -> None:
    with pytest.raises(AnalysisError, match=r"variants: \[plain, twin, slowed\]"):
        calibrate(quick.path)


def test_one_replicate_gives_no_verdict(folder: Any) -> None:
    folder.trial("bm", "pinned", 1, {"a.png": [20.0]})
    folder.trial("bm", "pinned", 1, {"a.png": [20.0]}, variant="twin")
    content = calibrate(folder.path)
    assert content["passed"] is False
    assert "fewer than two" in content["checks"][0]["reason"]
    assert content["resolution"] == []


def test_a_twin_passes_by_equivalence_not_by_an_interval_around_1(folder: Any) -> None:
    """A small difference that is seen passes, one that may be larger does not."""
    twin, _ = calibrate(measured(folder, twin=1.012, spread=0.5).path)["checks"]
    assert twin["low"] > 1 and (twin["answer"], twin["passed"]) == ("equivalent", True)
    twin, _ = calibrate(folder.path, margin=0.01)["checks"]
    assert (twin["answer"], twin["passed"]) == ("differs", False)


def test_replicates_that_are_alike_show_no_precision(folder: Any) -> None:
    twin, _ = calibrate(measured(folder, spread=0.0).path)["checks"]
    assert (twin["answer"], twin["passed"]) == ("cannot tell", False)


def test_a_check_without_an_interval_does_not_widen_the_rest(folder: Any) -> None:
    alone = calibrate(measured(folder).path)["checks"][0]
    folder.plan("cn", "pinned", 1, variant="twin")
    folder.trial("vm", "pinned", 1, {"a.png": [20.0]})
    folder.trial("vm", "pinned", 1, {"a.png": [20.0]}, variant="twin")
    checks = calibrate(folder.path)["checks"]
    assert len(checks) == 4
    assert next(c for c in checks if c["platform"] == "bm" and c["check"] == "twin") == alone


@pytest.mark.parametrize("bias", [0.03, -0.03])
def test_a_testbed_that_is_off_by_the_margin_seldom_passes(bias: float) -> None:
    random = np.random.default_rng(14)
    logs = math.copysign(math.log1p(abs(bias)), bias) + random.normal(0, 0.01, (4_000, 8))
    half = stats.t.ppf(0.975, 7) * logs.std(axis=1, ddof=1) / math.sqrt(8)
    ends = np.exp(logs.mean(axis=1) - half), np.exp(logs.mean(axis=1) + half)
    passed = [answer(low, high) == EQUIVALENT for low, high in zip(*ends, strict=True)]
    assert np.mean(passed) <= 0.035


def test_the_caution_states_how_often_one_sided_noise_passes(folder: Any) -> None:
    content = calibrate(measured(folder).path)
    assert "passes in at most 5% of sweeps only if noise is alike" in content["caution"]
    assert "in up to 17%, or 46% if they are rare and long" in content["caution"]


def test_replicates_that_contradict_their_interval_mark_the_check(folder: Any) -> None:
    for replicate in range(1, 13):
        late = 1.01 if replicate == 7 else 1 + 0.0001 * (replicate % 3)
        folder.trial("bm", "pinned", replicate, {"a.png": [20.0]})
        folder.trial("bm", "pinned", replicate, {"a.png": [20.0 * late]}, variant="twin")
    (twin,) = calibrate(folder.path)["checks"]
    assert twin["passed"]
    assert {"far-out", "skewed"} <= {warning["kind"] for warning in twin["warnings"]}
    assert "; but: Replicate 7 has a ratio of 1.01" in twin["sentence"]


@pytest.mark.parametrize("replicates", [5, 8, 15])
@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_a_host_off_by_the_margin_passes_at_most_as_often_as_stated(
    replicates: int, sigma: float
) -> None:
    """Lognormal noise on one side, at either margin: what `caution` says is borne out."""
    random, reported = np.random.default_rng(2), limit(replicates)
    stated = 1 - (reported.skewed_covers if sigma == 1 else reported.very_skewed_covers)
    for margin, side in ((1.03, 1), (1 / 1.03, -1)):
        noise = np.exp(sigma * random.standard_normal((4_000, replicates))) - np.exp(sigma**2 / 2)
        logs = math.log(margin) + side * 0.0005 * noise
        half = stats.t.ppf(0.975, replicates - 1) * logs.std(axis=1, ddof=1) / replicates**0.5
        ends = np.exp(logs.mean(axis=1) - half), np.exp(logs.mean(axis=1) + half)
        passed = [answer(low, high) == EQUIVALENT for low, high in zip(*ends, strict=True)]
        assert 0.05 < np.mean(passed) <= stated + 0.03
