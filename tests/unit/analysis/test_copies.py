"""Trials copied from another trial are detected: in part, reordered, scaled or shifted."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from virtbed_analysis import AnalysisError, load
from virtbed_analysis.copies import marks, same_times
from virtbed_analysis.frames import read_sweep

from .conftest import Folder, Json

Change = Callable[[list[Json]], object]
PHASES = ("pre_ns", "infer_ns", "post_ns")
ONE, OTHER = (f"cn-pinned-c01-image_classification-r0{replicate}" for replicate in (1, 2))


@pytest.fixture
def noisy(folder: Folder) -> Folder:
    """Bare metal and a container, three replicates of ten requests, with noise in nanoseconds."""
    chance = random.Random(5)
    for replicate in (1, 2, 3):
        for platform, ms in (("bm", 20.0), ("cn", 21.0)):
            times = {
                name: [ms * part * chance.lognormvariate(0, 0.03) for _ in range(5)]
                for name, part in (("a", 1), ("b", 2))
            }
            folder.trial(platform, "pinned", replicate, times)
    return folder


def made(folder: Folder, source: str, target: str, change: Change) -> None:
    """Copy the changed samples of one trial into another."""
    samples = copy.deepcopy(
        json.loads((folder.path / f"trials/{source}/result.json").read_text())["samples"]
    )
    change(samples)
    for sample in samples:
        sample["e2e_ns"] = sum(sample[phase] for phase in PHASES)
    folder.edit(f"trials/{target}/result.json", lambda result: result.update(samples=samples))


def times(
    samples: list[Json], factor: float, shift: int = 0, phases: tuple[str, ...] = PHASES
) -> None:
    for sample in samples:
        sample.update({phase: round(sample[phase] * factor) for phase in phases})
        sample["infer_ns"] += shift


CHANGES: dict[str, tuple[Change, str]] = {
    "a nanosecond": (lambda s: s[3].update(infer_ns=s[3]["infer_ns"] + 1), "in common"),
    "another order": (lambda s: s.reverse(), "in common"),
    "half its own": (
        lambda s: [s[i].update(infer_ns=s[i]["infer_ns"] + 70_001 * i) for i in range(5)],
        "in common",
    ),
    "other names": (
        lambda s: [one.update(input="ba"["ab".index(one["input"])]) for one in s], "in common"
    ),
    "scaled": (lambda s: times(s, 1.1), "scaled or shifted"),
    "scaled down": (lambda s: times(s, 0.73), "scaled or shifted"),
    "shifted": (lambda s: times(s, 1.0, 2_000_000), "scaled or shifted"),
    "one phase scaled": (lambda s: times(s, 1.4, phases=("infer_ns",)), "scaled or shifted"),
    "another queue": (lambda s: [one.update(queue_ns=901) for one in s], "scaled or shifted"),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("source", [ONE, OTHER.replace("cn", "bm")], ids=["replicate", "platform"])
def test_a_trial_made_of_another_is_left_out_with_it(noisy: Folder, source: str, what: str) -> None:
    change, why = CHANGES[what]
    made(noisy, source, OTHER, change)
    rejected = {row.file.split("/")[1]: row.reason for row in read_sweep(noisy.path).rejected}
    assert rejected.keys() == {source, OTHER}
    assert why in rejected[OTHER] and source in rejected[OTHER]


@pytest.mark.parametrize("what", ["scaled", "half its own", "another order"])
def test_a_trial_made_of_another_folder_s_is_refused(
    noisy: Folder, tmp_path: Path, what: str
) -> None:
    """A second host's folder has its own times except in one trial."""
    second, chance = Folder(tmp_path / "second"), random.Random(6)
    for replicate in (1, 2):
        times = {name: [21 * chance.lognormvariate(0, 0.03) for _ in range(5)] for name in "ab"}
        second.trial("cn", "pinned", replicate, times)
    for file in second.path.glob("trials/*/result.json"):
        second.edit(
            f"trials/{file.parent.name}/result.json", lambda r: r["trial"].update(host="bench02")
        )
    assert load(noisy.path, second.path).height == 80
    samples = json.loads((noisy.path / f"trials/{ONE}/result.json").read_text())["samples"]
    CHANGES[what][0](samples)
    for sample in samples:
        sample["e2e_ns"] = sum(sample[phase] for phase in PHASES)
    second.edit(f"trials/{OTHER}/result.json", lambda result: result.update(samples=samples))
    with pytest.raises(AnalysisError, match=f"{ONE} of host bench01.*{CHANGES[what][1]}"):
        load(noisy.path, second.path)


def alike(trials: dict[str, list[Json]]) -> list[tuple[list[str], str]]:
    return list(same_times({trial: marks(samples) for trial, samples in trials.items()}))


def test_trials_of_their_own_are_kept(noisy: Folder) -> None:
    assert read_sweep(noisy.path).rejected == []


def test_a_chance_agreement_is_distinguished_from_a_copy() -> None:
    """A coarse clock, few samples or times that do not vary make trials alike by chance."""
    chance = random.Random(1)

    def trials(number: int, samples: int, tick_ns: int, spread_ns: int) -> dict[str, list[Json]]:
        return {
            str(trial): [
                one(20_000_000 + tick_ns * round(chance.gauss(0, spread_ns) / tick_ns), trial)
                for _ in range(samples)
            ]
            for trial in range(number)
        }

    def one(ns: int, trial: int) -> Json:
        return {
            "input": "a", "queue_ns": trial, "pre_ns": 0, "infer_ns": ns, "post_ns": 0,
            "e2e_ns": ns, "warmup": False,
        }  # fmt: skip

    for shape in ((500, 3, 1, 100_000), (500, 6, 10_000, 30_000), (200, 50, 1_000_000, 600_000)):
        assert alike(trials(*shape)) == []
    stalls = {
        str(trial): [one(7 * k * (101 + trial), trial) for k in [9**7] * 98 + [3 * 9**7] * 2]
        for trial in range(3)
    }
    assert alike(stalls) == []  # two values make a line of any two trials
    for nothing in ({}, {"1": [one(0, 1)] * 9, "2": [one(0, 2)] * 9}):
        assert alike(nothing) == []


def test_a_million_samples_are_checked_in_seconds(tmp_path: Path) -> None:
    """If many trials share a sample, only some of their pairs are compared."""
    sample = {"queue_ns": 5, "pre_ns": 0, "infer_ns": 9, "post_ns": 0, "e2e_ns": 9}
    samples = [{"input": "a", "warmup": False, **sample}] * 10
    assert alike({str(trial): samples for trial in range(5000)}) == []
