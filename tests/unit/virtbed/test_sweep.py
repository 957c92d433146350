"""A sweep on one host, with fake playbooks; tests/integration has the real ones."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from virtbed import ansible, records
from virtbed import bench as benches
from virtbed.ansible import Deadline
from virtbed.bench import Bench, BenchError
from virtbed.events import BlockStarted, Ended, Event, TaskOk, TrialEnded
from virtbed.host_lock import Claim
from virtbed.image import image_key
from virtbed.ledger import NAME, Ledger, LedgerError
from virtbed.plan import Plan
from virtbed.progress import Progress
from virtbed.sweep import Interrupted, Kept, Sweep, SweepError, blocks, sweep
from virtbed_analysis.checking import checked
from virtbed_contract.codec import decode, encode
from virtbed_contract.documents import Instance, TrialRequest
from virtbed_contract.events import BlockStart, FetchedFile, Readings, TaskFailure, TrialOutcome
from virtbed_contract.kernel.files import write_text
from virtbed_contract.kernel.machine import digest
from virtbed_contract.kernel.processes import mount_namespace
from virtbed_contract.limits import ROOMS, DiskFree
from virtbed_contract.objections import Planned
from virtbed_contract.sweep import Design, Evidence, Failure, HostReport, Reading, TuningRow

from ..analysis.conftest import reading_of, seen_in
from .conftest import DIGEST, MARK, PLATFORMS, report, small

GOOD = Ended("successful")
STARTED_AT = records.now()  # now, since old baselines would be measured again
Answer = Callable[[], Ended]
GUEST = {
    "ansible_host": "127.0.0.1", "ansible_port": 22022, "ansible_user": "root",
    "ansible_ssh_private_key_file": "/run/k", "ansible_ssh_common_args": "-o A=b\n",
}  # fmt: skip


_running = threading.local()  # its `instance` is the one whose block a thread carries out


class Host:
    """A fake host: it records the calls of playbooks, and answers as set in `answers`."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.variables: list[Mapping[str, Any]] = []
        self.playbooks: list[list[str]] = []  # the instances of each call of "block"
        self.blocks: list[str] = []  # the started blocks
        self.limits: list[tuple[str, float]] = []
        self.answers: dict[str, Answer] = {}
        self.trial: Callable[[TrialRequest, Path], TrialOutcome | None] = lambda *_: None
        self.hosts = ["bench"]
        self.turns: list[Mapping[str, Any]] = []
        self.disks: Callable[[], tuple[DiskFree, ...]] = lambda: ()
        self.boot: Callable[[], str] = lambda: ""
        self.restored = False
        self.taken = True
        self.settings = [TuningRow("interrupts", True, "0", "0", "measured", ("131: managed",))]
        self.report: HostReport = report()
        self.report.facts["image"]["key"] = image_key()

    def booted(self, boot: str) -> None:
        """Set the id of its boot, as its examination and each block read it."""
        self.boot = lambda: boot
        self.report.facts["machine"]["boot"] = digest(boot)

    def play(
        self, playbook: str, variables: Mapping[str, Any], *_: Any, deadline: Deadline,
        turns: Any = ({},), cancelled: Callable[[], bool] = lambda: False, **__: Any,
    ) -> Iterator[Event]:  # fmt: skip
        self.calls.append(playbook)
        self.variables.append(variables)
        self.limits.append((playbook, deadline.limit_s))
        if playbook == "examine":
            for host in self.hosts:
                if self.taken:
                    yield TaskOk(host, "host_lock", {"changed": False})
                yield TaskOk(host, "cpu_hotplug", {"changed": self.restored})
                yield TaskOk(host, "host_doctor", {"report": encode(self.report)})
        if playbook == "tune":
            yield TaskOk("bench", "host_tuning", {"settings": encode(self.settings)})
        if playbook != "block":
            yield self.answers.get(playbook, lambda: GOOD)()
            return
        self.playbooks.append([turn["virtbed_instance"]["id"] for turn in turns])
        for turn in turns:
            ended = yield from self.block(turn, variables, deadline)
            if not ended.ok or cancelled():
                yield Ended("canceled") if cancelled() else ended
                return
        yield GOOD

    def block(
        self, turn: Mapping[str, Any], variables: Mapping[str, Any], deadline: Deadline
    ) -> Iterator[Event]:
        instance = decode(Instance, turn["virtbed_instance"])
        self.blocks.append(instance.id)
        bench = variables["virtbed_bench"]
        here = bench == os.uname().nodename
        self.turns.append(turn)
        start = BlockStart(instance.id, bench, instance.housekeeping, here, self.disks())
        yield BlockStarted("h", start, self.boot())
        self.limits.append((instance.id, deadline.limit_s))
        if instance.own_kernel:
            yield TaskOk("h", "add_host", {"add_host": {"host_vars": GUEST}})
        if "provision" in self.answers:
            return self.answers["provision"]()
        _running.instance = instance
        for row in turn["virtbed_trials"]:
            request = decode(TrialRequest, row)
            if "trial" in self.answers:
                ended = self.answers["trial"]()
                if not ended.ok:
                    return ended
            outcome = self.trial(request, Path(variables["virtbed_incoming_dir"]))
            if outcome:
                yield TrialEnded("h", outcome)
                self.limits.append((f"after {request.id}", deadline.limit_s))
                if outcome.failure and variables["virtbed_keep"]:
                    (Path(variables["virtbed_run_dir"]) / "id_ed25519").touch()
                    return Ended("failed", "it is left")
        return self.answers.get("release", lambda: GOOD)()


def failed(message: str) -> Callable[[TrialRequest, Path], TrialOutcome]:
    def outcome(request: TrialRequest, _: Path) -> TrialOutcome:
        failure = TaskFailure("Run", message)
        return TrialOutcome(request.id, STARTED_AT, None, None, Readings(), failure)

    return outcome


def good(
    document: Mapping[str, Any],
    change: Callable[[dict[str, Any], dict[str, Any]], object] = lambda *_: None,
) -> Callable[[TrialRequest, Path], TrialOutcome]:
    """Fetch a document, as the role trial_run does, of a trial that is placed as required.

    Args:
        document: What the harness printed; it is made that of the requested trial.
        change: Changes the document and the reading before and after the trial.
    """

    def outcome(request: TrialRequest, incoming: Path) -> TrialOutcome:
        instance = encode(_running.instance)
        printed = printed_in(instance, request, deepcopy(document))
        reading = reading_of(instance, printed["environment"])
        change(printed, reading)
        content = json.dumps(printed).encode()
        path = incoming / f"{request.id}.json"
        path.write_bytes(content)
        fetched = FetchedFile(str(path), len(content), hashlib.sha256(content).hexdigest())
        side = decode(Reading, reading)
        evidence = Readings(side, printed["environment"], side)
        return TrialOutcome(request.id, STARTED_AT, fetched, 3_600 * 10**9, evidence)

    return outcome


def printed_in(
    instance: dict[str, Any], request: TrialRequest, document: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a document of the harness as if it had run the requested trial in an instance."""
    application, *rest = request.argv
    options = dict(option[2:].split("=", 1) for option in rest)
    labels = {**instance, **instance["factors"], "thread_policy": request.thread_policy}
    saw = seen_in(instance, labels | {"huge_pages": request.huge_pages})
    settings = {
        "seed": int(options["seed"]),
        "scenario": options["scenario"],
        "thread_policy": request.thread_policy,
        "slowdown": float(options.get("slowdown", 0)),
    }
    return {
        **document,
        "application": document["application"] | {"name": application, "scale": options["scale"]},
        "environment": saw | {"isa": request.isa or saw["isa"]},
        "settings": document["settings"] | settings,
        "confounders": document["confounders"]
        | {"ran_on": saw["affinity"], "migrations": 0, "transparent_hugepage": "madvise"},
    }


def failing(message: str, status: Any = "failed") -> Answer:
    return lambda: Ended(status, message)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    made = Host()
    monkeypatch.setattr(ansible, "play", made.play)
    monkeypatch.setattr(benches, "RUN", tmp_path / "run")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return made


Make = Callable[..., Sweep]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    progress = Progress(Console(file=io.StringIO()), PLATFORMS.trial_s)

    def made(plan: Plan, **options: Any) -> Sweep:
        bench = Bench(hung_after_s=60)
        return Sweep(plan, progress, bench, tmp_path / "results", platforms=PLATFORMS, **options)

    return made


def failure_of(run: Sweep, trial: str) -> Failure:
    path = run.folder / "trials" / trial / "failure.json"
    return decode(Failure, json.loads(path.read_text()), str(path))


def test_a_good_trial_has_a_complete_result_and_no_fetched_file_is_left(
    host: Host, make: Make, plan: Plan, harness_document: dict[str, Any]
) -> None:
    host.trial = good(harness_document)
    run = make(small(plan))
    run.run()
    assert run.failed == []
    folders = sorted((run.folder / "trials").iterdir())
    assert len(folders) == 6
    for folder in folders:
        result = json.loads((folder / "result.json").read_text())
        records.check_result(result)
        head = result["trial"]
        assert head["id"] == folder.name and head["image_digest"] == DIGEST
        assert (head["variant"], head["thread_policy"], head["processor"]) == (
            "plain", "default", "cpu",
        )  # fmt: skip
        assert "files" not in result
        assert (folder / "mlperf_log_summary.txt").exists()
        evidence = decode(Evidence, json.loads((folder / "evidence.json").read_text()))
        assert evidence.attested and evidence.asked.id
    assert not (run.folder / ".incoming").exists()
    design = decode(Design, json.loads((run.folder / "design.json").read_text()))
    assert {t.id for t in design.trials} == {folder.name for folder in folders}
    recorded = decode(HostReport, json.loads((run.folder / "doctor.json").read_text()))
    assert recorded.tuned == () and "tune" not in host.calls


def test_settings_of_a_tuned_host_are_recorded_and_passed_to_every_block(
    host: Host, make: Make, plan: Plan, harness_document: dict[str, Any]
) -> None:
    host.trial = good(harness_document)
    run = make(small(plan).model_copy(update={"tuning": True}))
    run.run()
    recorded = decode(HostReport, json.loads((run.folder / "doctor.json").read_text()))
    assert recorded.tuned == tuple(host.settings)
    interrupts = {
        name: values.get("virtbed_interrupts")
        for name, values in zip(host.calls, host.variables, strict=True)
        if name in {"tune", "block"}
    }
    assert interrupts == {"tune": "0", "block": "0"}  # CPU 1 is measured


@pytest.mark.parametrize("per_playbook", [1, 4, 20])
def test_results_do_not_depend_on_the_number_of_blocks_per_playbook(
    host: Host, make: Make, plan: Plan, harness_document: dict[str, Any], per_playbook: int
) -> None:
    host.trial = good(harness_document)
    run = make(small(plan), per_playbook=per_playbook)
    run.run()
    assert [len(instances) for instances in host.playbooks] == {1: [1] * 6, 4: [4, 2], 20: [6]}[
        per_playbook
    ]
    order = [i for instances in host.playbooks for i in instances]
    designed = json.loads((run.folder / "design.json").read_text())["trials"]
    assert [f"{t['platform']}-pinned-c01-r{t['replicate']:02d}" for t in designed] == order


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes() + b" "), "changed during the transfer"),
        (lambda path: path.write_bytes(b"x" * path.stat().st_size), "changed during the transfer"),
        (lambda path: path.unlink(), "not found, the fetched result needed"),
    ],
)
def test_a_result_that_was_changed_during_the_transfer_is_rejected(
    host: Host, make: Make, plan: Plan, harness_document: dict[str, Any],
    spoil: Callable[[Path], Any], message: str,
) -> None:  # fmt: skip
    def spoiled(request: TrialRequest, incoming: Path) -> TrialOutcome:
        outcome = good(harness_document)(request, incoming)
        assert outcome.result
        spoil(Path(outcome.result.path))
        return outcome

    host.trial = spoiled
    run = make(small(plan))
    run.run()
    assert len(run.failed) == 6
    failure = failure_of(run, run.failed[0])
    assert failure.stage == "record" and message in failure.message


def test_a_result_that_violates_its_schema_is_rejected(
    host: Host, make: Make, plan: Plan, harness_document: dict[str, Any]
) -> None:
    host.trial = good({**harness_document, "samples": []})
    run = make(small(plan))
    run.run()
    failure = failure_of(run, run.failed[0])
    assert failure.stage == "record" and failure.message.startswith("result.json: $.samples: ")
    assert not (run.folder / "trials" / run.failed[0] / "result.json").exists()


def without_filter(_: dict[str, Any], reading: dict[str, Any]) -> None:
    """Let a container's reading be that of an engine without a seccomp filter."""
    if "seccomp" in reading["enclosure"]:
        reading["enclosure"]["seccomp"] = "none"


OBJECTED: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], object], str]] = {
    "evidence": (without_filter, "before the trial: seccomp_profile filter was requested"),
    "arithmetic": (lambda r, _: r["answers"].update(checked=1), "states 1 checked answers"),
    "plan": (lambda r, _: r["settings"].update(seed=1), "seed 1, but design.json plans 2112"),
    "no reading": (lambda _, reading: reading.update(machine=None), "no reading of machine"),
}


@pytest.mark.parametrize("kind", OBJECTED)
def test_a_result_that_the_report_would_leave_out_fails_its_trial(
    host: Host, make: Make, plan: Plan, harness_document: dict[str, Any], kind: str
) -> None:
    change, message = OBJECTED[kind]
    host.trial = good(harness_document, change)
    run = make(small(plan).model_copy(update={"platforms": {"cn": ["pinned"]}, "replicates": 1}))
    run.run()
    (trial,) = run.failed
    failure, folder = failure_of(run, trial), run.folder / "trials" / trial
    assert failure.stage == "record"
    assert failure.message.startswith("result.json: the report would leave it out: ")
    assert message in failure.message
    evidence = decode(Evidence, json.loads((folder / "evidence.json").read_text()))
    assert not evidence.attested and evidence.mismatches == (failure.message,)
    assert not (folder / "result.json").exists()


@pytest.mark.parametrize("guests", ["emulated", "available"])
def test_a_correct_trial_of_every_platform_that_ships_is_kept(
    host: Host, make: Make, plan: Plan, harness_document: dict[str, Any], guests: str
) -> None:
    every = {name: ["vanilla", "pinned"] for name in PLATFORMS.entries}
    host.report = report(cpus=4, guests=guests)
    host.report.facts["image"]["key"] = image_key()
    host.trial = good(harness_document)
    varied = {"platforms": every, "cores": [1, 2], "replicates": 1, "threads": ["matched"]}
    run = make(Plan.model_validate(plan.model_dump() | varied))
    run.run()
    assert run.failed == []
    design = decode(Design, json.loads((run.folder / "design.json").read_text()))
    kept = {path.name for path in (run.folder / "trials").iterdir()}
    assert kept == {row.id for row in design.trials}
    assert {row.platform for row in design.trials} == every.keys()
    for name in kept:
        checked(run.folder / "trials" / name, Planned.of(design))  # as the report does


def test_each_failed_trial_has_a_reason_and_each_instance_is_released(
    host: Host, make: Make, plan: Plan
) -> None:
    host.trial = failed("a pin was changed")
    run = make(small(plan))
    run.run()
    assert len(run.failed) == len(host.blocks) == 6
    assert host.calls == [
        "examine",
        "clear",
        "block",
        "restore",
    ]  # the playbook releases each instance
    for trial in run.failed:
        folder = run.folder / "trials" / trial
        assert failure_of(run, trial).message == "a pin was changed"
        assert json.loads((folder / "evidence.json").read_text())["attested"] is False
        assert not (folder / "result.json").exists()


def test_trials_without_an_outcome_fail_even_if_the_playbook_succeeds(
    host: Host, make: Make, plan: Plan
) -> None:
    run = make(small(plan))
    run.run()
    assert len(run.failed) == 6
    message = failure_of(run, run.failed[0]).message
    assert message == "the playbook reported no outcome of this trial"


def test_a_full_disk_ends_the_sweep_with_a_message_and_releases_the_instance(
    host: Host, make: Make, plan: Plan, harness_document: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def full(path: Path, *rest: Any) -> None:
        if path.name == "result.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write_text(path, *rest)

    monkeypatch.setattr(records, "write_whole_text", full)
    host.trial = good(harness_document)
    run = make(small(plan))
    with pytest.raises(SweepError, match=r"results cannot be written: .*No space left on device"):
        run.run()
    assert host.calls == ["examine", "clear", "block", "clear", "restore"]
    assert len(host.blocks) == 1
    assert run.failed == []
    monkeypatch.setattr(records, "write_whole_text", write_text)
    again = make(small(plan))
    again.run()
    assert len(list((again.folder / "trials").glob("*/result.json"))) == 6


def test_a_block_that_hangs_fails_and_the_sweep_continues(
    host: Host, make: Make, plan: Plan
) -> None:
    host.answers["provision"] = failing("the playbook block hung in the task 'Create'", "hung")
    run = make(small(plan))
    run.run()
    assert len(run.failed) == 6
    assert host.calls[2:] == [*["block", "clear"] * 6, "restore"]
    assert "hung in the task 'Create'" in failure_of(run, run.failed[0]).message


def test_a_clearance_that_hangs_ends_the_sweep(host: Host, make: Make, plan: Plan) -> None:
    def hung() -> Ended:
        host.answers["clear"] = failing("the playbook clear hung in the task 'Remove'", "hung")
        return Ended("hung", "the playbook block hung in the task 'Create'")

    host.answers["provision"] = hung
    run = make(small(plan))
    with pytest.raises(BenchError, match=r"could not be cleared.*clear hung in the task 'Remove'"):
        run.run()
    assert host.calls == ["examine", "clear", "block", "clear", "restore"]
    assert "hung in the task 'Create'" in failure_of(run, *run.failed).message


def test_every_step_has_a_time_limit_according_to_its_work(
    host: Host, make: Make, plan: Plan, harness_document: dict[str, Any]
) -> None:
    host.trial = good(harness_document)
    emulated = {"platforms": {"vm": ["pinned"]}, "cores": [1], "timeout_s": 100, "replicates": 1}
    make(plan.model_copy(update=emulated)).run()
    (trial,) = (limit for limit in host.limits if limit[0].startswith("after"))
    assert host.limits == [
        ("examine", 60), ("clear", 60), ("block", 60),
        ("vm-pinned-c01-r01", 6 * 60 + 6 * 100),  # emulated: 6 times as long
        (trial[0], 6 * 60),  # its release
        ("restore", 60),
    ]  # fmt: skip


def test_without_an_instance_no_trial_runs(host: Host, make: Make, plan: Plan) -> None:
    host.answers["provision"] = failing("the port is taken")
    run = make(small(plan))
    run.run()
    assert len(run.failed) == 6
    # Each failed instance is cleared, and the next playbook continues with the next block.
    assert host.calls[2:] == [*["block", "clear"] * 6, "restore"]
    assert host.blocks == [instances[0] for instances in host.playbooks] == host.playbooks[0]
    for trial in run.failed:
        failure = failure_of(run, trial)
        assert (failure.stage, failure.message) == ("provision", "the port is taken")
        assert failure.attempt == 1  # trials that were not started are not counted


def test_a_failed_release_ends_the_sweep_and_the_next_one_releases_first(
    host: Host, make: Make, plan: Plan
) -> None:
    def port_taken() -> Ended:
        host.answers["clear"] = failing("still there")
        return Ended("failed", "the port is taken")

    host.answers["provision"] = port_taken
    with pytest.raises(BenchError, match=r"could not be cleared.*: still there; run make setup"):
        make(small(plan)).run()
    assert len(host.blocks) == 1
    del host.answers["clear"]
    host.answers["provision"] = failing("no matter")
    host.calls.clear()
    make(small(plan)).run()
    assert host.calls[:3] == ["examine", "clear", "block"]


def test_an_instance_whose_release_fails_is_cleared_and_no_trial_is_lost(
    host: Host, make: Make, plan: Plan
) -> None:
    host.trial = failed("no matter")
    endings = iter([Ended("failed", "still there")])
    host.answers["release"] = lambda: next(endings, GOOD)
    run = make(small(plan))
    run.run()
    assert host.calls[2:] == ["block", "clear", "block", "restore"]
    assert len(host.blocks) == len(run.failed) == 6
    assert {failure_of(run, trial).message for trial in run.failed} == {"no matter"}


def test_a_host_that_cannot_be_cleared_is_not_measured(host: Host, make: Make, plan: Plan) -> None:
    host.answers["clear"] = failing("Docker does not answer")
    with pytest.raises(BenchError, match=r"could not be cleared.*Docker does not answer"):
        make(small(plan)).run()
    assert host.blocks == []


def test_every_commit_that_ran_trials_is_recorded(
    plan: Plan, host: Host, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.trial = failed("no")
    for commit in ("one", "two", "two"):
        monkeypatch.setattr(sweep, "commit", lambda commit=commit: commit)
        one = make(small(plan))
        one.run()

    def kept() -> list[str]:
        return list(json.loads((one.folder / "design.json").read_text())["commits"])

    assert kept() == ["one", "two"]
    monkeypatch.setattr(sweep, "commit", lambda: "three")
    monkeypatch.setattr(Sweep, "_missing", lambda *_: [])
    make(small(plan)).run()  # this call runs no trial
    assert kept() == ["one", "two"]


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("kernel", lambda facts: facts.update(kernel="6.2.0")),
        ("docker", lambda facts: facts["engines"]["docker"].update(version="2.0")),
        ("cpus", lambda facts: facts["cpu"]["allowed"].pop()),
    ],
)
def test_another_kernel_engine_or_set_of_cpus_is_another_sweep(
    host: Host, make: Make, plan: Plan, key: str, change: Callable[[Any], Any]
) -> None:
    host.trial = failed("no matter")
    make(small(plan)).run()
    change(host.report.facts)
    with pytest.raises(LedgerError, match=f"started with {key} "):
        make(small(plan)).run()


def test_an_engine_that_no_platform_of_the_plan_needs_may_change(
    host: Host, make: Make, plan: Plan
) -> None:
    host.trial = failed("no matter")
    make(small(plan)).run()
    host.report.facts["engines"]["qemu"]["version"] = "9.0"
    make(small(plan)).run()


def test_leftover_processes_of_a_killed_playbook_are_ended() -> None:
    stray = subprocess.Popen(["sleep", "600"], env=os.environ | {MARK: "1"}, start_new_session=True)
    others = [
        subprocess.Popen(["sleep", "600"], env=os.environ | {MARK: "12"}),
        # Another controller on this machine, with its own /run.
        subprocess.Popen(
            ["unshare", "--user", "--map-root-user", "--mount", "sleep", "600"],
            env=os.environ | {MARK: "1"},
        ),
    ]
    try:
        while mount_namespace(others[1].pid) == mount_namespace():
            assert others[1].poll() is None
        threading.Thread(target=stray.wait).start()
        assert ansible.end_strays() == []
        assert stray.wait() == -signal.SIGKILL
        assert [other.poll() for other in others] == [None, None]
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_leftover_processes_of_one_host_are_ended_without_those_of_others() -> None:
    """Otherwise a worker that cleans up would end the playbook of another host."""
    marks = {"a": "1:a", "b": "1:b", "alone": "1"}
    strays = {
        host: subprocess.Popen(["sleep", "600"], env=os.environ | {MARK: mark})
        for host, mark in marks.items()
    }
    try:
        threading.Thread(target=strays["a"].wait).start()
        assert ansible.end_strays("a") == []
        assert strays["a"].wait() == -signal.SIGKILL
        assert strays["b"].poll() is None and strays["alone"].poll() is None
        for host in ("b", "alone"):
            threading.Thread(target=strays[host].wait).start()
        assert ansible.end_strays() == []  # as at the start: of every killed playbook
        assert {stray.wait() for stray in strays.values()} == {-signal.SIGKILL}
    finally:
        for stray in strays.values():
            stray.kill()


def test_a_signal_in_a_trial_releases_and_records_nothing(
    host: Host, make: Make, plan: Plan
) -> None:
    def interrupted() -> Ended:
        signal.raise_signal(signal.SIGTERM)
        return Ended("canceled")

    host.answers["trial"] = interrupted
    run = make(small(plan))
    with pytest.raises(Interrupted, match="the next call continues"):
        run.run()
    assert len(host.blocks) == 1
    assert host.calls[2:] == ["block", "clear", "restore"]
    assert not (run.folder / "trials").exists()


def test_a_signal_ends_an_examination_that_hangs(host: Host, make: Make, plan: Plan) -> None:
    def interrupted() -> Ended:
        signal.raise_signal(signal.SIGINT)
        return Ended("canceled", "the playbook examine was ended")

    host.answers["examine"] = interrupted
    run = make(small(plan))
    with pytest.raises(Interrupted):
        run.run()
    assert host.calls == ["examine", "free"] and not run.folder.exists()


def test_the_controller_leaves_the_measured_cpus_during_a_block_and_then_may_use_them_again(
    host: Host, make: Make, plan: Plan
) -> None:
    host.report = replace(host.report, host=os.uname().nodename)
    seen: list[set[int]] = []

    def look() -> Ended:
        seen.append(os.sched_getaffinity(0))
        return GOOD

    host.answers["trial"] = look
    before = os.sched_getaffinity(0)
    make(small(plan)).run()
    assert seen == [{0}] * 6  # the housekeeping CPU of a host of two, with one measured
    assert os.sched_getaffinity(0) == before


def test_trials_that_are_not_needed_get_no_instance(
    host: Host, make: Make, plan: Plan, monkeypatch: pytest.MonkeyPatch,
    harness_document: dict[str, Any],
) -> None:  # fmt: skip
    host.trial = good(harness_document)
    precise = small(plan).model_copy(update={"precision": 0.02})
    calls: list[tuple[Design, dict[str, Any]]] = []

    def unneeded(design: Design, measured: dict[str, Any], *_: object) -> frozenset[str]:
        calls.append((design, measured))
        return frozenset({"cn-pinned-c01-image_classification-r02"} if len(calls) == 2 else ())

    monkeypatch.setattr("virtbed_analysis.unneeded_trials", unneeded, raising=False)
    make(precise).run()
    assert [len(measured) for _, measured in calls] == [0, 2, 3]  # from the ledger's running sums
    assert [len(instances) for instances in host.playbooks] == [2, 1, 2]  # one per replicate
    assert "cn-pinned-c01-r02" not in host.blocks


def test_restored_settings_are_reported(host: Host, plan: Plan, tmp_path: Path) -> None:
    out = io.StringIO()
    host.restored = True
    progress = Progress(Console(file=out, width=200), PLATFORMS.trial_s)
    Sweep(small(plan), progress, Bench(), tmp_path, platforms=PLATFORMS).run()
    assert "restored what an interrupted sweep had changed on the host" in out.getvalue()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({"digest": None, "key": None}, "no image cpu found"),
        ({"digest": DIGEST, "key": "old"}, "built from other sources.*run make setup"),
    ],
)
def test_a_missing_or_outdated_image_is_refused(
    host: Host, make: Make, plan: Plan, image: dict[str, Any], message: str
) -> None:
    host.report.facts["image"] = image
    run = make(small(plan))
    with pytest.raises(SweepError, match=message):
        run.run()
    assert not run.folder.exists()


def test_a_platform_that_is_down_is_refused(host: Host, make: Make, plan: Plan) -> None:
    verdicts = tuple(
        replace(row, status="unavailable") if row.platform == "cn" else row
        for row in host.report.platforms
    )
    host.report = replace(host.report, platforms=verdicts)
    run = make(small(plan))
    with pytest.raises(
        SweepError, match="cn is unavailable: cn reason; cn remedy, or remove cn from"
    ):
        run.run()
    assert host.calls == ["examine", "free"]
    assert not run.folder.exists()


def test_two_hosts_in_the_folder_of_one_are_refused_and_both_named(
    host: Host, make: Make, plan: Plan
) -> None:
    host.hosts = ["bench02", "bench01"]  # the inventory changed between two calls
    run = make(small(plan))
    with pytest.raises(BenchError, match=r"hosts bench01 and bench02 found .*one needed here"):
        run.run()
    assert host.calls == ["examine", "free"] and not run.folder.exists()


def test_no_host_is_refused(host: Host, make: Make, plan: Plan) -> None:
    host.hosts = []
    run = make(small(plan))
    with pytest.raises(BenchError, match=r"no hosts found in the group bench of .*, one needed"):
        run.run()
    assert not run.folder.exists()


def test_extra_variables_reach_every_playbook(host: Host, plan: Plan, tmp_path: Path) -> None:
    progress = Progress(Console(file=io.StringIO()), PLATFORMS.trial_s)
    bench = Bench(variables={"virtbed_state_dir": "/x"})
    Sweep(small(plan), progress, bench, tmp_path, platforms=PLATFORMS).run()
    assert {v["virtbed_state_dir"] for v in host.variables} == {"/x"}
    assert set(host.calls) == {"examine", "clear", "block", "restore"}


def test_the_claim_on_the_host_covers_the_time_limit_of_each_step(
    host: Host, make: Make, plan: Plan
) -> None:
    host.trial = failed("no matter")
    make(small(plan)).run()
    claims = [Claim.of(variables["virtbed_claim"]) for variables in host.variables]
    assert len(set(claims)) == 1 and claims[0].what == "virtbed sweep demo"
    assert claims[0].pid == os.getpid()
    assert host.variables[0]["virtbed_claim_s"] >= 3 * 60
    # A trial and its release, each with 60 s added, and the clearance if it hangs.
    assert {turn["virtbed_claim_s"] for turn in host.turns} == {60 + 600 + 60 + 2 * 60 + 60}
    assert host.calls[-1] == "restore"  # which frees the host


def test_a_host_of_a_refused_sweep_is_freed(host: Host, make: Make, plan: Plan) -> None:
    host.report.facts["image"]["digest"] = None
    with pytest.raises(SweepError, match="no image"):
        make(small(plan)).run()
    assert host.calls == ["examine", "free"]


def test_a_host_of_another_controller_is_refused_and_not_freed(
    host: Host, make: Make, plan: Plan
) -> None:
    host.taken = False
    host.answers["examine"] = failing("host_lock: bench is in use by process 7 on ctl02")
    run = make(small(plan))
    with pytest.raises(BenchError, match="in use by process 7 on ctl02"):
        run.run()
    assert host.calls == ["examine"] and not run.folder.exists() and not run.began


def test_a_reboot_of_the_host_ends_the_sweep_before_the_next_block(
    host: Host, make: Make, plan: Plan, harness_document: dict[str, Any]
) -> None:
    """After it the host's settings are those of its boot, and its kernel may be another."""
    host.trial = good(harness_document)
    host.booted("one")
    boots = iter(["one", "one", "two"])
    host.boot = lambda: next(boots)
    run = make(small(plan))
    with pytest.raises(SweepError, match=r"has rebooted since it was examined.*call again"):
        run.run()
    assert host.calls[2:] == ["block", "clear", "restore"]
    assert len(list((run.folder / "trials").glob("*/result.json"))) == 2 and run.failed == []
    host.boot = lambda: "two"
    with pytest.raises(SweepError, match="has rebooted"):  # between examination and first block
        make(small(plan)).run()
    host.booted("two")
    again = make(small(plan))
    again.run()
    assert len(list((again.folder / "trials").glob("*/result.json"))) == 6


@pytest.mark.parametrize("kind", ["state", "tmp", "store"])
def test_a_full_disk_of_the_host_ends_the_sweep_before_the_next_block(
    host: Host, make: Make, plan: Plan, harness_document: dict[str, Any], kind: str
) -> None:
    host.trial = good(harness_document)
    needed = ROOMS[kind].needed_mib
    free = iter([needed, needed, needed - 1])
    host.disks = lambda: (DiskFree(kind, "/there", next(free)),)
    run = make(small(plan))
    with pytest.raises(SweepError) as ended:
        run.run()
    expected = (
        f"{needed - 1} MiB free for /there ({ROOMS[kind].what}), {needed} MiB needed; free some"
    )
    assert expected in str(ended.value) and "the next call continues" in str(ended.value)
    assert run.began and host.calls[2:] == ["block", "clear", "restore"]
    assert len(list((run.folder / "trials").glob("*/result.json"))) == 2 and run.failed == []
    with Ledger(run.folder / NAME) as ledger:
        assert sum(ledger.attempts(t.name) for t in (run.folder / "trials").iterdir()) == 2
    host.disks = lambda: ()
    again = make(small(plan))
    again.run()
    assert len(list((again.folder / "trials").glob("*/result.json"))) == 6
    assert {json.loads(p.read_text())["trial"]["attempt"]
            for p in (again.folder / "trials").glob("*/result.json")} == {1}  # fmt: skip


@pytest.mark.parametrize("kind", ["results", "tmp"])
def test_a_full_disk_of_the_controller_is_refused_at_the_start_and_later_ends_the_sweep(
    host: Host, make: Make, plan: Plan, harness_document: dict[str, Any], kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    host.trial = good(harness_document)
    monkeypatch.setattr(blocks, "look", lambda room, path: DiskFree(room, str(path), 10**6))
    run, needed = make(small(plan)), ROOMS[kind].needed_mib

    def little(room: str, path: Path) -> DiskFree:
        return DiskFree(room, str(path), 0 if room == kind else 10**6)

    def fills() -> Ended:
        monkeypatch.setattr(blocks, "look", little)
        return GOOD

    host.answers["release"] = fills
    with pytest.raises(SweepError, match=f"0 MiB free for .*{needed} MiB needed; free some"):
        run.run()
    assert len(list((run.folder / "trials").glob("*/result.json"))) == 1 and run.began
    host.calls.clear()
    refused = make(small(plan))
    with pytest.raises(SweepError, match=f"{needed} MiB needed; free some.*nothing was started"):
        refused.run()
    assert host.calls == [] and not refused.began


def test_a_full_disk_during_provisioning_ends_the_sweep_and_fails_no_trial(
    host: Host, make: Make, plan: Plan
) -> None:
    host.answers["provision"] = failing("qemu-img: overlay.qcow2: No space left on device")
    run = make(small(plan))
    with pytest.raises(SweepError, match=r"a disk of the bench host is full: qemu-img.*continues"):
        run.run()
    assert host.calls[2:] == ["block", "clear", "restore"] and run.failed == []
    assert not (run.folder / "trials").exists()


@pytest.mark.parametrize(
    ("platform", "way"),
    [
        ("bm", "log in on bench; "),
        ("cn", "log in on bench, `docker exec --interactive --tty virtbed-cn-pinned-c01-r01 sh`"),
        ("vm", "`ssh -t -p 22022 -i /run/k -o A=b root@127.0.0.1`; "),
        ("vmcn", "root@127.0.0.1`, in it `docker exec --interactive --tty virtbed-vmcn-"),
    ],
)
def test_a_failed_trials_instance_is_kept_on_request_and_the_sweep_ends(
    host: Host, make: Make, plan: Plan, tmp_path: Path, platform: str, way: str
) -> None:
    host.trial = failed("a pin was changed")
    one = plan.model_copy(update={"platforms": {platform: ["pinned"]}, "cores": [1]})
    run = make(one, keep=True)
    with pytest.raises(Kept) as ended:
        run.run()
    message = str(ended.value)
    assert way in message and "failure.json)" in message and "`virtbed clear` removes it" in message
    assert len(host.blocks) == 1 and host.calls[2:] == ["block", "restore"]  # and no clear
    assert failure_of(run, run.failed[0]).message == "a pin was changed"
    # The lease is given up, or the next call would take this for a killed sweep.
    with Ledger(run.folder / NAME) as ledger:
        assert not ledger._rows("SELECT id FROM trial WHERE leased")
    assert (tmp_path / "run" / "keys" / "demo" / "id_ed25519").exists()  # needed for a login
    host.calls.clear()
    make(one).run()  # the next call removes it, and continues
    assert host.calls[:3] == ["examine", "clear", "block"]
    assert not (tmp_path / "run" / "demo").exists()


def test_an_instance_whose_provisioning_failed_is_kept_too(
    host: Host, make: Make, plan: Plan
) -> None:
    host.answers["provision"] = failing("the port is taken")
    run = make(small(plan), keep=True)
    with pytest.raises(Kept):
        run.run()
    assert host.calls[2:] == ["block", "restore"] and len(run.failed) == 1
    assert failure_of(run, run.failed[0]).message == "the port is taken"


def test_with_keep_a_sweep_without_failures_leaves_no_instance(
    host: Host, make: Make, plan: Plan, harness_document: dict[str, Any], tmp_path: Path
) -> None:
    host.trial = good(harness_document)
    make(small(plan), keep=True).run()
    assert not (tmp_path / "run" / "demo").exists() and host.calls[-2:] == ["block", "restore"]


def test_an_instance_that_hangs_or_is_interrupted_is_not_kept(
    host: Host, make: Make, plan: Plan
) -> None:
    host.answers["provision"] = failing("hung in the task 'Create'", "hung")
    make(small(plan), keep=True).run()
    assert host.calls[2:] == [*["block", "clear"] * 6, "restore"]


def test_a_signal_ends_a_clearance_that_hangs_before_anything_is_made(
    host: Host, make: Make, plan: Plan
) -> None:
    def interrupted() -> Ended:
        signal.raise_signal(signal.SIGINT)
        return Ended("canceled", "the playbook clear was ended")

    host.answers["clear"] = interrupted
    with pytest.raises(Interrupted):
        make(small(plan)).run()
    assert host.calls == ["examine", "clear", "free"] and host.blocks == []


def test_a_trial_that_failed_too_often_is_repeated_only_on_request(
    host: Host, make: Make, plan: Plan
) -> None:
    host.trial = failed("a wrong answer")
    one = plan.model_copy(update={"platforms": {"bm": ["pinned"]}, "cores": [1], "replicates": 1})
    for attempt in range(1, sweep.MOST_ATTEMPTS + 1):
        run = make(one)
        run.run()
        assert failure_of(run, *run.failed).attempt == attempt
    host.blocks.clear()
    run = make(one)
    run.run()
    assert host.blocks == [] and len(run.failed) == 1  # it has failed, and that is reported
    run = make(one, retry_failed=True)
    run.run()
    assert len(host.blocks) == 1
    assert failure_of(run, *run.failed).attempt == sweep.MOST_ATTEMPTS + 1


def test_a_playbook_that_fails_between_blocks_keeps_no_instance(
    host: Host, make: Make, plan: Plan, harness_document: dict[str, Any]
) -> None:
    """The previous block was released, and none of its trials failed."""
    host.trial = good(harness_document)
    ends = iter([Ended("failed", "host_lock: the host was taken by another")])
    host.answers["release"] = lambda: next(ends, GOOD)
    run = make(small(plan), keep=True)
    run.run()
    assert not run.failed and host.calls[2:5] == ["block", "clear", "block"]


def test_after_a_full_disk_or_a_signal_no_instance_is_kept_even_with_keep(
    host: Host, make: Make, plan: Plan, tmp_path: Path
) -> None:
    host.answers["provision"] = failing(f"docker: {os.strerror(errno.ENOSPC)}")
    with pytest.raises(SweepError, match="everything is released") as ended:
        make(small(plan), keep=True).run()
    assert not isinstance(ended.value, Kept) and host.calls[2:] == ["block", "clear", "restore"]
    assert not (tmp_path / "run" / "keys").exists()

    def interrupted() -> Ended:
        signal.raise_signal(signal.SIGINT)
        return Ended("failed", "the daemon is gone")

    host.calls.clear()
    host.answers["provision"] = interrupted
    with pytest.raises(Interrupted):
        make(small(plan), keep=True).run()
    assert host.calls[2:] == ["block", "clear", "restore"]


@pytest.mark.parametrize("playbook", ["examine", "restore"])
def test_a_claimed_host_is_freed_also_if_its_playbook_failed(
    host: Host, make: Make, plan: Plan, harness_document: dict[str, Any], playbook: str
) -> None:
    host.trial = good(harness_document)
    host.answers[playbook] = failing("no such file")
    with pytest.raises(BenchError, match="no such file"):
        make(small(plan)).run()
    assert host.calls[-2:] == [playbook, "free"]


def test_a_disk_whose_free_space_cannot_be_read_is_reported(
    host: Host, make: Make, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(*_: object) -> Any:
        raise OSError(errno.ESTALE, "Stale file handle", "results")

    monkeypatch.setattr(sweep, "own_disks", stale)
    with pytest.raises(SweepError, match=r"Stale file handle.*nothing was started"):
        make(small(plan)).run()
