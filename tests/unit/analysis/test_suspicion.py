"""A disturbed trial is marked with its number, stays in the ratios, and both results are shown."""

import json
from typing import Any

import pytest

from virtbed_analysis import report
from virtbed_analysis.document import document
from virtbed_analysis.frames import read_sweep
from virtbed_analysis.suspicion import THRESHOLDS

NAME = "bm-pinned-c01-image_classification-r01"
STOPPED = {"throttling": {"periods": 20, "throttled": 3, "throttled_ns": 400_000_000}}


def suspicions(folder: Any, platform: str = "bm", mode: str = "pinned", **found: Any) -> list[str]:
    name = folder.trial(platform, mode, 1, {"a.png": [20.0]}, confounders=found)
    trials = read_sweep(folder.path).trials
    return trials.filter(trial=name)["suspicions"].to_list()[0]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"steal_share": 0.034}, "steal: 3.4% of the CPU time, at most 1.0% expected"),
        ({"others_share": 0.12}, "other processes: 12.0% of the CPU time, at most 2.0%"),
        ({"siblings_share": 0.3}, "sibling threads: 30.0% of their CPU time, at most 5.0%"),
        (STOPPED, "throttling: 20.0% of the window, at most 0.0%"),
        ({"pressure": {"cpu": 0.9, "memory": 0.05, "io": 0.0}}, "memory pressure: 5.0% of"),
        ({"pressure": {"cpu": 0.9, "memory": 0.0, "io": 0.5}}, "I/O pressure: 50.0% of"),
        ({"clock_apart_share": 0.02}, "clocks: 2.0% of the time, at most 0.1% expected"),
        ({"mhz": {"before": 3000.0, "after": 2400.0}}, "frequency: 20.0% between start and end"),
    ],
)
def test_a_breach_is_named_with_the_number_found(folder: Any, found: Any, said: str) -> None:
    (suspicion,) = suspicions(folder, **found)
    assert suspicion.startswith(said)


def test_a_quiet_trial_and_a_silent_kernel_are_not_suspect(folder: Any) -> None:
    silent = {
        "throttling": None,
        "pressure": {"cpu": None, "memory": None, "io": None},
        "mhz": {"before": None, "after": None},
    }
    assert suspicions(folder, **silent) == []


def test_stalls_of_a_quota_that_was_asked_are_what_is_measured(folder: Any) -> None:
    assert suspicions(folder, "cn", "vanilla", **STOPPED) == []
    (suspicion,) = suspicions(folder, "cn", "pinned", **STOPPED)
    assert suspicion.startswith("throttling: 20.0% of the window")


def test_pages_from_disk(folder: Any) -> None:
    folder.trial("bm", "pinned", 1, {"a.png": [20.0, 20.0]})
    folder.edit(f"trials/{NAME}/result.json", lambda r: r["rusage"].update(major_faults=5))
    (suspicion,) = read_sweep(folder.path).trials["suspicions"].to_list()[0]
    assert suspicion == "major faults: 2.5 per sample, at most 0.1 expected"


def test_every_threshold_has_its_reason() -> None:
    assert all(len(threshold.reason) > 20 for threshold in THRESHOLDS)
    assert len({threshold.name for threshold in THRESHOLDS}) == len(THRESHOLDS)


def test_the_report_counts_suspects_and_shows_both_results(folder: Any) -> None:
    for replicate, ratio in enumerate([1.1, 1.1, 1.11, 1.5], start=1):
        folder.trial("bm", "pinned", replicate, {"a.png": [20.0]})
        disturbed = {"others_share": 0.4} if replicate == 4 else {}
        folder.trial("cn", "pinned", replicate, {"a.png": [20.0 * ratio]}, confounders=disturbed)
    content = document(read_sweep(folder.path))
    assert content["counts"]["suspect"] == 1
    assert [row["trial"] for row in content["suspect"]] == [
        "cn-pinned-c01-image_classification-r04"
    ]
    (row,) = content["without_suspects"]
    assert (row["all_ratio_replicates"], row["clean_ratio_replicates"]) == (4, 3)
    assert row["all_ratio"] > 1.18 and row["clean_ratio"] == pytest.approx(1.1033, abs=1e-3)
    assert next(c for c in content["cells"] if c["platform"] == "cn")["ratio"] == row["all_ratio"]
    page = report(folder.path).html.read_text()
    assert "other processes: 40.0% of the CPU time" in page
    assert 'id="without-suspects"' in page


def test_an_emulated_guest_is_not_suspect_but_emulated(folder: Any) -> None:
    folder.trial(
        "vm", "pinned", 1, {"a.png": [5_000.0]}, emulated=True, confounders={"others_share": 0.9}
    )
    content = document(read_sweep(folder.path))
    assert content["counts"]["suspect"] == 0
    json.dumps(content)
