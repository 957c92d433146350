"""A sweep's course, with a fake in place of the playbooks; the real ones are in integration."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from virtbed import host as host_module
from virtbed import playbooks, sweep
from virtbed.host import HostError
from virtbed.image import image_key
from virtbed.ledger import LedgerError
from virtbed.plan import Plan
from virtbed.playbooks import Outcome
from virtbed.progress import Progress
from virtbed.sweep import Interrupted, Sweep, SweepError

from .conftest import report

DIGEST = "sha256:" + "a" * 64


class Host:
    """Stands in for a host: remembers the playbooks called, and answers as it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.playbooks: list[list[str]] = []  # the instances of each call of "block"
        self.blocks: list[str] = []  # those that were begun
        self.tells = True
        self.answers: dict[str, Callable[[], Outcome]] = {}
        self.doctor = report()
        image = {"digest": DIGEST, "key": image_key(), "path": "/image"}
        self.doctor["facts"]["image"] = image

    def play(
        self, playbook: str, variables: dict[str, Any], *_: Any, heard: Any = None,
        turns: Any = ({},), **__: Any,
    ) -> Outcome:  # fmt: skip
        self.calls.append(playbook)
        if playbook == "doctor":
            examined = {"host_doctor": [{"doctor": self.doctor}], "host_tuning": [{"settings": []}]}
            return Outcome("successful", results=examined)
        if playbook != "block":
            return self.answers.get(playbook, lambda: Outcome("successful"))()
        self.playbooks.append([turn["virtbed_instance"]["id"] for turn in turns])
        for turn in turns:
            if (said := self.block(turn, variables["virtbed_bench"], heard)).status != "successful":
                return said
        return Outcome("successful")

    def block(self, turn: dict[str, Any], bench: str, heard: Any) -> Outcome:
        instance = turn["virtbed_instance"]
        self.blocks.append(instance["id"])
        moved = {"here": bench == os.uname().nodename, "cpus": instance["housekeeping"]}
        heard("controller_affinity", {"instance": instance["id"], **moved})
        if "provision" in self.answers:
            return self.answers["provision"]()
        for trial in turn["virtbed_trials"] if self.tells else []:
            said = self.answers["trial"]()
            if said.status == "canceled":
                return said
            failure = {"task": "Run", "result": {"msg": said.message}}
            outcome = {"process": {}, "evidence": {}, "failure": failure}
            heard("trial_outcome", {"outcome": {"id": trial["id"], "started_at": "", **outcome}})
        return self.answers.get("release", lambda: Outcome("successful"))()


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    made = Host()
    monkeypatch.setattr(playbooks, "play", made.play)
    # A mark of the tests' own, lest they end the playbooks of a sweep that runs beside them.
    monkeypatch.setattr(playbooks, "_MARK", "VIRTBED_TEST")
    monkeypatch.setattr(host_module, "RUN", tmp_path / "run")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return made


@pytest.fixture
def make(tmp_path: Path) -> Callable[[Plan], Sweep]:
    console = Console(file=io.StringIO())
    return lambda plan: Sweep(plan, Progress(console), results=tmp_path / "results")


def small(plan: Plan) -> Plan:
    return plan.model_copy(update={"platforms": {"bm": ["pinned"], "cn": ["pinned"]}, "cores": [1]})


def failing(message: str) -> Callable[[], Outcome]:
    return lambda: Outcome("failed", message)


def test_each_failed_trial_says_why_and_each_instance_is_released(
    host: Host, make: Callable[[Plan], Sweep], plan: Plan
) -> None:
    host.answers["trial"] = failing("a pin was changed")
    run = make(small(plan))
    run.run()
    assert len(run.failed) == len(host.blocks) == 6
    assert host.calls == ["restore", "doctor", "clear", "block"]  # which releases each itself
    for trial in run.failed:
        folder = run.folder / "trials" / trial
        assert json.loads((folder / "failure.json").read_text())["message"] == "a pin was changed"
        assert json.loads((folder / "evidence.json").read_text())["attested"] is False
        assert not (folder / "result.json").exists()


def test_a_playbook_that_ends_well_and_tells_nothing_has_failed_its_trials(
    host: Host, make: Callable[[Plan], Sweep], plan: Plan
) -> None:
    host.tells = False
    run = make(small(plan))
    run.run()
    assert len(run.failed) == 6
    failure = json.loads((run.folder / "trials" / run.failed[0] / "failure.json").read_text())
    assert failure["message"] == "the playbook went on, and told nothing of it"


def test_without_an_instance_no_trial_runs(
    host: Host, make: Callable[[Plan], Sweep], plan: Plan
) -> None:
    host.answers["provision"] = failing("the port is taken")
    run = make(small(plan))
    run.run()
    assert len(run.failed) == 6
    # Each is cleared away, and the next playbook goes on after it.
    assert host.calls[3:] == ["block", "clear"] * 6
    assert host.blocks == [instances[0] for instances in host.playbooks] == host.playbooks[0]
    for trial in run.failed:
        failure = json.loads((run.folder / "trials" / trial / "failure.json").read_text())
        assert (failure["stage"], failure["message"]) == ("provision", "the port is taken")


def test_what_could_not_be_released_ends_the_sweep_and_is_released_first_by_the_next(
    host: Host, make: Callable[[Plan], Sweep], plan: Plan
) -> None:
    def port_taken() -> Outcome:
        host.answers["clear"] = failing("still there")
        return Outcome("failed", "the port is taken")

    host.answers["provision"] = port_taken
    with pytest.raises(HostError, match=r"could not be cleared.*: still there; run make teardown"):
        make(small(plan)).run()
    assert len(host.blocks) == 1
    del host.answers["clear"]
    host.answers["provision"] = failing("no matter")
    host.calls.clear()
    make(small(plan)).run()
    assert host.calls[:4] == ["restore", "doctor", "clear", "block"]


def test_an_instance_that_cannot_be_released_is_cleared_away_and_costs_no_trial(
    host: Host, make: Callable[[Plan], Sweep], plan: Plan
) -> None:
    host.answers["trial"] = failing("no matter")
    told = iter([Outcome("failed", "still there")])
    host.answers["release"] = lambda: next(told, Outcome("successful"))
    run = make(small(plan))
    run.run()
    assert host.calls[3:] == ["block", "clear", "block"]
    assert len(host.blocks) == len(run.failed) == 6
    for trial in run.failed:
        failure = json.loads((run.folder / "trials" / trial / "failure.json").read_text())
        assert failure["message"] == "no matter"


def test_a_host_that_cannot_be_cleared_is_not_measured(
    host: Host, make: Callable[[Plan], Sweep], plan: Plan
) -> None:
    host.answers["clear"] = failing("Docker does not answer")
    with pytest.raises(HostError, match=r"could not be cleared.*Docker does not answer"):
        make(small(plan)).run()
    assert host.blocks == []


def test_every_commit_that_carried_a_sweep_out_is_kept(
    plan: Plan, host: Host, make: Callable[[Plan], Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    host.answers["trial"] = failing("no")
    for commit in ("one", "two", "two"):
        monkeypatch.setattr(sweep, "commit", lambda commit=commit: commit)
        one = make(small(plan))
        one.run()
    kept = json.loads((one.folder / "doctor.json").read_text())["commits"]
    assert kept == ["one", "two"]
    monkeypatch.setattr(sweep, "commit", lambda: "three")
    monkeypatch.setattr(Sweep, "_missing", lambda *_: [])
    make(small(plan)).run()  # which carries nothing out
    assert json.loads((one.folder / "doctor.json").read_text())["commits"] == kept


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("kernel", lambda facts: facts.update(kernel="6.2.0")),
        ("docker", lambda facts: facts["docker"].update(version="2.0")),
        ("cpus", lambda facts: (facts["cpu"]["allowed"].pop(), facts["cpu"]["cpus"].pop())),
    ],
)
def test_another_kernel_engine_or_set_of_cpus_is_another_sweep(
    host: Host, make: Callable[[Plan], Sweep], plan: Plan, key: str, change: Callable[[Any], Any]
) -> None:
    host.answers["trial"] = failing("no matter")
    make(small(plan)).run()
    change(host.doctor["facts"])
    with pytest.raises(LedgerError, match=f"begun with {key} "):
        make(small(plan)).run()


def test_strays_of_a_playbook_that_was_cut_off_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playbooks, "_MARK", "VIRTBED_TEST")
    stray = subprocess.Popen(
        ["sleep", "60"], env=os.environ | {"VIRTBED_TEST": "1"}, start_new_session=True
    )
    other = subprocess.Popen(["sleep", "60"], env=os.environ | {"VIRTBED_TEST": "12"})
    try:
        threading.Thread(target=stray.wait).start()
        assert playbooks.end_strays() == []
        assert stray.wait() == -signal.SIGKILL
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_signal_in_a_trial_releases_and_records_nothing(
    host: Host, make: Callable[[Plan], Sweep], plan: Plan
) -> None:
    def interrupted() -> Outcome:
        signal.raise_signal(signal.SIGTERM)
        return Outcome("canceled")

    host.answers["trial"] = interrupted
    run = make(small(plan))
    with pytest.raises(Interrupted, match="the next call goes on"):
        run.run()
    assert len(host.blocks) == 1
    assert host.calls[3:] == ["block", "clear"]
    assert not (run.folder / "trials").exists()


def test_the_controller_keeps_off_the_measured_cpus_and_is_free_again(
    host: Host, make: Callable[[Plan], Sweep], plan: Plan
) -> None:
    host.doctor["host"] = os.uname().nodename
    seen: list[set[int]] = []

    def look() -> Outcome:
        seen.append(os.sched_getaffinity(0))
        return Outcome("failed", "no matter")

    host.answers["trial"] = look
    before = os.sched_getaffinity(0)
    make(small(plan)).run()
    assert seen == [{0}] * 6  # the housekeeping CPU of a host of two, with one measured
    assert os.sched_getaffinity(0) == before


def test_trials_that_are_not_needed_get_no_instance(
    host: Host, make: Callable[[Plan], Sweep], plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.answers["trial"] = failing("no matter")
    precise = small(plan).model_copy(update={"precision": 0.02})
    run = make(precise)
    asked = []

    def unneeded(folder: Path) -> set[str]:
        asked.append(folder)
        return set() if len(asked) == 1 else {"cn-pinned-c01-image_classification-r02"}

    monkeypatch.setattr(sweep, "unneeded_trials", unneeded)
    run.run()
    assert asked == [run.folder] * 3
    assert [len(instances) for instances in host.playbooks] == [2, 1, 2]  # one a replicate
    assert "cn-pinned-c01-r02" not in host.blocks


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({"digest": None, "key": None}, "no image found"),
        ({"digest": DIGEST, "key": "old"}, "made of other sources.*run make testbed"),
    ],
)
def test_a_missing_or_outdated_image_is_refused(
    host: Host, make: Callable[[Plan], Sweep], plan: Plan, image: dict[str, Any], message: str
) -> None:
    host.doctor["facts"]["image"] = image
    run = make(small(plan))
    with pytest.raises(SweepError, match=message):
        run.run()
    assert not run.folder.exists()


def test_a_platform_that_is_down_is_refused(
    host: Host, make: Callable[[Plan], Sweep], plan: Plan
) -> None:
    host.doctor["platforms"][1]["status"] = "unavailable"
    run = make(small(plan))
    with pytest.raises(SweepError, match="cn is unavailable: cn reason; cn remedy, or take cn out"):
        run.run()
    assert host.calls == ["restore", "doctor"]
    assert not run.folder.exists()
