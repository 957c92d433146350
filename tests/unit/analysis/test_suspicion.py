"""A disturbed trial is marked with its number, stays in the ratios, and both results are shown."""

import json
from typing import Any

import numpy as np
import polars as pl
import pytest

from virtbed_analysis import report
from virtbed_analysis.document import document
from virtbed_analysis.frames import read_sweep
from virtbed_analysis.suspects import dependence
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


def test_a_heading_keeps_the_capitals_of_a_threshold(folder: Any) -> None:
    folder.trial("bm", "pinned", 1, {"a.png": [20.0]})
    waited = {"pressure": {"cpu": 0.0, "memory": 0.05, "io": 0.5}}
    folder.trial("cn", "pinned", 1, {"a.png": [20.0]}, confounders=waited)
    page = report(folder.path).html.read_text()
    assert ">I/O pressure</th>" in page and ">Memory pressure</th>" in page


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


def lay_busy(folder: Any, suspect: dict[tuple[str, str], list[int]], replicates: int = 10) -> None:
    """Lay a container that takes 1.4 times a guest's time; `suspect` has replicates by cell."""
    chance = np.random.default_rng(6)
    for replicate in range(1, replicates + 1):
        for platform, mode, cost in (
            ("bm", "pinned", 1.0), ("cn", "vanilla", 1.4), ("vm", "vanilla", 1.0)
        ):  # fmt: skip
            ms = 20 * cost * chance.lognormal(0, 0.01)
            busy = replicate in suspect.get((platform, mode), [])
            found = {"steal_share": 0.12} if busy else {}
            folder.trial(platform, mode, replicate, {"a": [ms]}, confounders=found)


def finding(content: Any, id_: str) -> Any:
    return next(row for row in content["findings"] if row["id"] == id_)


def test_an_answer_that_needs_suspect_trials_says_so(folder: Any) -> None:
    """17 of 30 trials are suspect, so that no pair of a container and a guest is clean."""
    lay_busy(folder, {("bm", "pinned"): list(range(1, 8)), ("cn", "vanilla"): [1, 3, 5, 7, 9],
                      ("vm", "vanilla"): [2, 4, 6, 8, 10]})  # fmt: skip
    content = document(read_sweep(folder.path))
    assert content["counts"]["suspect"] == 17
    row = finding(content, "vanilla-container")
    assert row["answer"] == "supported, but only with suspect trials"
    assert (row["with_suspects"], row["without_suspects"]) == ("supported", "not tested")
    assert row["depends_on_suspects"] is True
    assert "Without the 17 of 30 trials that are suspect: not testable." in row["because"]
    page = report(folder.path).html.read_text()
    assert "supported, but only with suspect trials" in page


def test_an_answer_that_suspect_trials_hide_says_so_too(folder: Any) -> None:
    chance = np.random.default_rng(8)
    for replicate in range(1, 11):
        busy = replicate > 7
        for platform, cost in (("cn", 1.4), ("vm", 1.0)):
            ms = 20 * cost * chance.lognormal(0, 0.01) * (0.1 if busy and platform == "cn" else 1)
            found = {"steal_share": 0.12} if busy else {}
            folder.trial(platform, "vanilla", replicate, {"a": [ms]}, confounders=found)
    row = finding(document(read_sweep(folder.path)), "vanilla-container")
    assert row["answer"] == "inconclusive with suspect trials, supported without"
    assert "Without the 6 of 20 trials that are suspect: supported." in row["because"]


def test_an_answer_that_stands_without_suspects_says_both(folder: Any) -> None:
    lay_busy(folder, {("bm", "pinned"): [1]})
    row = finding(document(read_sweep(folder.path)), "vanilla-container")
    assert (row["answer"], row["without_suspects"]) == ("supported", "supported")
    assert row["depends_on_suspects"] is False
    assert row["because"].endswith("Without the 1 of 30 trials that are suspect: supported, too.")


def test_rates_of_suspicion_stand_side_by_side(folder: Any) -> None:
    lay_busy(folder, {("cn", "vanilla"): [1, 2, 3]})
    cells = document(read_sweep(folder.path))["suspicion"]["cells"]
    assert [(row["platform"], row["suspect"], row["trials"], row["reasons"]) for row in cells] == [
        ("bm", 0, 10, {"steal": 0}), ("vm", 0, 10, {"steal": 0}), ("cn", 3, 10, {"steal": 3}),
    ]  # fmt: skip
    page = report(folder.path).html.read_text()
    assert 'id="suspicion"' in page


def test_suspicion_that_depends_on_the_platform_is_partly_an_outcome(folder: Any) -> None:
    lay_busy(folder, {("cn", "vanilla"): list(range(1, 10))})
    content = document(read_sweep(folder.path))
    note = content["suspicion"]["note"]
    assert "steal: 9 of 10 trials of container, CPU quota (cn vanilla), 0 of 10 trials of" in note
    assert "partly an outcome" in note
    row = finding(content, "vanilla-container")
    assert row["depends_on_suspects"] is True
    assert "is then a selection" in row["because"]
    assert "partly an outcome" in report(folder.path).html.read_text()


def test_five_of_five_against_none_is_dependence(folder: Any) -> None:
    lay_busy(folder, {("cn", "vanilla"): [1, 2, 3, 4, 5]}, replicates=5)
    assert document(read_sweep(folder.path))["suspicion"]["note"]


def test_suspicion_by_chance_is_taken_for_dependence_in_at_most_one_sweep_of_twenty() -> None:
    chance = np.random.default_rng(9)
    cells = [("bm", "pinned"), ("cn", "pinned"), ("cn", "vanilla"), ("vm", "pinned")]
    wrong = 0
    for _ in range(200):
        rows = []
        for replicate in range(1, 7):
            busy = chance.random() < 0.4  # as when a neighbour wakes up for a while
            for platform, mode in cells:
                found = []
                if chance.random() < (0.8 if busy else 0.2):
                    found.append("steal: 3.4% of the CPU time, at most 1.0% expected")
                if chance.random() < 0.3:
                    found.append("other processes: 12.0% of the CPU time, at most 2.0%")
                rows.append(
                    {"host": "h", "plan_digest": "p", "platform": platform, "mode": mode,
                     "cores": 1, "replicate": replicate, "emulated": False, "suspicions": found}
                )  # fmt: skip
        wrong += any(row["depends"] for row in dependence(pl.DataFrame(rows), draws=499))
    assert wrong / 200 < 0.05 + 2 * (0.05 * 0.95 / 200) ** 0.5
