"""The trials that a sweep measures again after a pause, and that no earlier result is lost."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from virtbed import ansible, records
from virtbed import bench as benches
from virtbed.design import design
from virtbed.plan import Plan
from virtbed.sweep.resumption import keep_earlier, measured_again, started_s
from virtbed.trial import Trial
from virtbed_contract.documents import TrialRequest
from virtbed_contract.events import TrialOutcome

from .conftest import PLATFORMS, report, small
from .test_sweep import Host, Make, failed, good, make  # noqa: F401 - a fixture

HOUR = 3600.0
USUAL_S = {"bm": 60.0, "cn": 60.0, "vm": 180.0}


@pytest.fixture
def trials(plan: Plan) -> tuple[Trial, ...]:
    """Three replicates of pinned bare metal and of containers in both modes, on one core."""
    platforms = {"bm": ["pinned"], "cn": ["pinned", "vanilla"]}
    changed = plan.model_copy(update={"platforms": platforms, "cores": [1]})
    return design(changed, report(), PLATFORMS).trials


def again(
    trials: tuple[Trial, ...], missing: list[str], *, pause_s: float,
    usual_s: dict[str, float] = USUAL_S,
) -> list[str]:  # fmt: skip
    found = measured_again(trials, set(missing), lambda _: 1000.0, usual_s, 1000.0 + pause_s)
    return [trial.id for trial in found]


def ids(trials: tuple[Trial, ...], replicate: int, platform: str) -> list[str]:
    return [
        trial.id
        for trial in trials
        if trial.replicate == replicate and trial.instance.platform == platform
    ]


def test_a_baseline_from_before_a_long_pause_is_measured_again(
    trials: tuple[Trial, ...],
) -> None:
    missing = ids(trials, 2, "cn") + ids(trials, 3, "cn") + ids(trials, 3, "bm")
    assert again(trials, missing, pause_s=10 * HOUR) == ids(trials, 2, "bm")
    assert again(trials, missing, pause_s=0.5 * HOUR) == []


def test_trials_from_before_a_long_pause_are_measured_again_if_their_baseline_is_missing(
    trials: tuple[Trial, ...],
) -> None:
    missing = ids(trials, 2, "bm") + ids(trials, 3, "cn") + ids(trials, 3, "bm")
    assert again(trials, missing, pause_s=10 * HOUR) == ids(trials, 2, "cn")
    assert again(trials, missing, pause_s=0.5 * HOUR) == []
    one, other = ids(trials, 2, "cn")
    assert again(trials, [*missing, one], pause_s=10 * HOUR) == [other]


def test_a_pause_between_replicates_measures_nothing_again(trials: tuple[Trial, ...]) -> None:
    missing = ids(trials, 3, "cn") + ids(trials, 3, "bm")
    assert again(trials, missing, pause_s=99 * HOUR) == []


def test_a_baseline_younger_than_its_replicates_duration_is_kept(trials: tuple[Trial, ...]) -> None:
    missing = ids(trials, 2, "cn")
    slow = {"bm": HOUR, "cn": HOUR}
    assert again(trials, missing, pause_s=2.5 * HOUR, usual_s=slow) == []
    assert again(trials, missing, pause_s=3.5 * HOUR, usual_s=slow) == ids(trials, 2, "bm")


def test_without_missing_pairs_nothing_is_measured_again(
    trials: tuple[Trial, ...],
) -> None:
    assert again(trials, [], pause_s=99 * HOUR) == []
    everything = [trial.id for trial in trials]
    assert again(trials, everything, pause_s=99 * HOUR) == []


def test_only_the_baseline_of_the_same_size_and_application_is_measured_again(plan: Plan) -> None:
    every = design(plan.model_copy(update={"cores": [1, 2]}), report(cpus=4), PLATFORMS).trials
    (missing,) = (t for t in every if t.id.startswith("cn-vanilla-c02") and t.id.endswith("r01"))
    assert again(every, [missing.id], pause_s=9 * HOUR) == [
        "bm-pinned-c02-image_classification-r01"
    ]
    guests = [trial.id for trial in every if trial.emulated]
    assert guests and again(every, guests, pause_s=9 * HOUR) == []  # never compared


def test_a_result_without_a_known_start_is_not_measured_again(
    trials: tuple[Trial, ...], tmp_path: Path
) -> None:
    assert started_s(tmp_path) is None
    good = {"started_at": "2026-01-01T00:00:00Z", "attempt": 1}
    for trial in ({}, good | {"started_at": "soon"}, good | {"attempt": "../../.."}, [], good):
        (tmp_path / "result.json").write_text(json.dumps({"trial": trial}))
        assert (started_s(tmp_path) is not None) == (trial == good)
    (tmp_path / "result.json").unlink()
    os.mkfifo(tmp_path / "result.json")  # no process writes to it, so reading would block
    assert started_s(tmp_path) is None
    found = measured_again(trials, set(ids(trials, 2, "cn")), lambda _: None, USUAL_S, 1e9)
    assert found == []


def test_an_earlier_result_is_copied_completely_before_it_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "trials/x"
    records.write_json(folder / "result.json", {"trial": {"attempt": 2}})
    records.write_json(folder / "evidence.json", {"trial": "x"})
    (folder / "log.txt").write_bytes(b"\xff")
    (folder / "link").symlink_to("/etc/hostname")
    write = records.write_text

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        keep_earlier(tmp_path, "x")
    assert (folder / "result.json").exists()
    monkeypatch.setattr(records, "write_text", write)
    keep_earlier(tmp_path, "x")
    assert not (folder / "result.json").exists()
    assert sorted(p.name for p in (tmp_path / "earlier/2/x").iterdir()) == [
        "evidence.json", "log.txt", "result.json",
    ]  # fmt: skip


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    made = Host()
    monkeypatch.setattr(ansible, "play", made.play)
    monkeypatch.setattr(benches, "end_strays", lambda *_: None)
    monkeypatch.setattr(benches, "RUN", tmp_path / "run")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return made


Answer = Callable[..., Any]
BASE, CELL = (f"{name}-pinned-c01-image_classification-r01" for name in ("bm", "cn"))


def half_done(host: Host, run: Any, document: dict[str, Any]) -> None:
    """Carry a sweep out except for one container, and make its baseline a day old."""
    fine, bad = good(document), failed("no")

    def trial(request: TrialRequest, path: Path) -> TrialOutcome:
        outcome = (bad if request.id == CELL else fine)(request, path)
        old = "2026-01-01T00:00:00Z" if request.id == BASE else outcome.started_at
        return replace(outcome, started_at=old)

    host.trial = trial
    run.run()
    host.blocks.clear()


def test_a_sweep_that_continues_a_day_later_measures_the_baseline_again(
    host: Host,
    make: Make,  # noqa: F811
    plan: Plan,
    harness_document: dict[str, Any],
) -> None:
    run = make(small(plan))
    half_done(host, run, harness_document)
    host.trial = good(harness_document)
    later = make(small(plan))
    later.run()
    assert later.failed == []
    assert sorted(host.blocks) == ["bm-pinned-c01-r01", "cn-pinned-c01-r01"]
    new = json.loads((run.folder / "trials" / BASE / "result.json").read_text())["trial"]
    old = json.loads((run.folder / "earlier/1" / BASE / "result.json").read_text())["trial"]
    assert (old["attempt"], old["started_at"]) == (1, "2026-01-01T00:00:00Z")
    assert new["attempt"] == 2 and new["started_at"] > old["started_at"]
    assert (run.folder / "earlier/1" / BASE / "evidence.json").exists()
    host.blocks.clear()
    make(small(plan)).run()
    assert host.blocks == []  # nothing is missing any more


def test_a_baseline_that_fails_the_second_time_keeps_its_first_result(
    host: Host,
    make: Make,  # noqa: F811
    plan: Plan,
    harness_document: dict[str, Any],
) -> None:
    run = make(small(plan))
    half_done(host, run, harness_document)
    fine, bad = good(harness_document), failed("busy")
    host.trial = lambda request, path: (bad if request.id == BASE else fine)(request, path)
    later = make(small(plan))
    later.run()
    assert later.failed == [BASE]
    folder = run.folder / "trials" / BASE
    assert json.loads((folder / "result.json").read_text())["trial"]["attempt"] == 1
    assert json.loads((folder / "failure.json").read_text())["message"] == "busy"
    assert json.loads((folder / "evidence.json").read_text())["attested"] is True
    assert not (run.folder / "earlier").exists()
    host.blocks.clear()
    make(small(plan)).run()
    assert host.blocks == []
