"""A sweep on several hosts, with fakes in place of their playbooks."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from virtbed import ansible, records
from virtbed import bench as benches
from virtbed.bench import Bench, BenchError
from virtbed.events import Ended, Event
from virtbed.fleet_ledger import FleetLedger
from virtbed.lease import Holder, LeaseError
from virtbed.ledger import NAME, Ledger, LedgerError
from virtbed.plan import Plan
from virtbed.progress import Progress
from virtbed.sweep import Interrupted, Kept, Sweep, SweepError, blocks, fleet
from virtbed_contract.codec import decode
from virtbed_contract.documents import TrialRequest
from virtbed_contract.events import TrialOutcome
from virtbed_contract.kernel import machine
from virtbed_contract.limits import ROOMS, DiskFree
from virtbed_contract.sweep import Design, HostReport

from .conftest import PLATFORMS, report, small
from .test_sweep import GOOD, Host, failed, failing, good

NAMES = ("bench01", "bench02", "bench03")
Json = dict[str, Any]
LOST = "Failed to connect to the host via ssh: Connection timed out"


class Hosts:
    """A fake of several hosts: one `Host` per name in the inventory."""

    def __init__(self, folder: Path, document: Json, names: tuple[str, ...] = NAMES) -> None:
        self.folder = folder
        self.document = document
        self.each: dict[str, Host] = {}
        self.output = io.StringIO()
        for name in names:
            self.add(name)

    def add(self, name: str) -> Host:
        made = self.each[name] = Host()
        made.hosts = [name]
        made.report = report(host=name)
        made.report.facts["image"] = Host().report.facts["image"]
        made.report.facts["machine"] = {"id": f"id {name}"}
        made.booted(f"boot {name}")
        made.trial = good(self.document)
        return made

    def play(self, playbook: str, *rest: Any, host: str = "", **options: Any) -> Iterator[Event]:
        options.pop("logs").keep(playbook, Path("/nonexistent"))
        yield from self.each[host].play(playbook, *rest, **options)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Put these hosts in the place of playbooks, and their folder in that of /run."""

        def listed(inventories: Any, limit: str | None = None) -> dict[str, Json]:
            return {name: {} for name in inventories[0].split(",") if name}

        patch.setattr(ansible, "play", self.play)
        patch.setattr(ansible, "bench_variables", listed)
        patch.setattr(benches, "end_strays", lambda *_: None)
        patch.setattr(benches, "RUN", self.folder / "run")
        patch.setattr(os, "geteuid", lambda: 0)

    def sweep(self, plan: Plan, names: tuple[str, ...] = NAMES, **options: Any) -> Sweep:
        """Prepare a call of some of the hosts."""
        self.output.seek(0)
        self.output.truncate()
        for one in self.each.values():
            one.calls.clear()
            one.blocks.clear()
        progress = Progress(Console(file=self.output, width=1000), PLATFORMS.trial_s)
        bench = Bench((",".join(names) + ",",), hung_after_s=60)
        results = self.folder / "results"
        return Sweep(plan, progress, bench, results, platforms=PLATFORMS, **options)

    def run(self, plan: Plan, names: tuple[str, ...] = NAMES, **options: Any) -> Sweep:
        made = self.sweep(plan, names, **options)
        made.run()
        return made


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harness_document: Json) -> Hosts:
    made = Hosts(tmp_path, harness_document)

    made.install(monkeypatch)
    monkeypatch.setattr(fleet, "PAUSES_S", (3600.0,))  # no new try during a test
    return made


@pytest.fixture
def plan(plan: Plan) -> Plan:
    """Two cells and six replicates."""
    return small(plan).model_copy(update={"replicates": 6})


def heads(run: Sweep) -> list[Json]:
    return [
        json.loads(path.read_text())["trial"]
        for path in sorted(run.folder.glob("trials/*/result.json"))
    ]


def host_of(run: Sweep) -> dict[int, str]:
    """Return the host of each replicate, after a check that it has all trials on one host."""
    found: dict[int, set[str]] = {}
    trials = heads(run)
    for trial in trials:
        found.setdefault(trial["replicate"], set()).add(trial["host"])
    assert len(trials) == len({trial["id"] for trial in trials})
    assert set(Counter(trial["replicate"] for trial in trials).values()) == {2}
    assert all(len(names) == 1 for names in found.values())
    return {number: min(names) for number, names in found.items()}


def together(hosts: Hosts, names: tuple[str, ...] = NAMES) -> None:
    """Make the first trial on each host wait for those of the others, so that all overlap."""
    barrier = threading.Barrier(len(names))

    def first(one: Host, usual: Callable[..., Any]) -> None:
        def trial(request: TrialRequest, path: Path) -> TrialOutcome | None:
            one.trial = usual
            barrier.wait(20)
            found: TrialOutcome | None = usual(request, path)
            return found

        one.trial = trial

    for name in names:
        first(hosts.each[name], hosts.each[name].trial)


def waits(one: Host, met: Callable[[], bool]) -> None:
    """Let each trial of a host take until a condition is met."""
    usual = one.trial

    def trial(request: TrialRequest, path: Path) -> TrialOutcome | None:
        for _ in range(2000):
            if met():
                break
            time.sleep(0.01)
        return usual(request, path)

    one.trial = trial


def test_hosts_work_in_parallel_and_each_replicate_runs_on_one_host(
    hosts: Hosts, plan: Plan
) -> None:
    together(hosts)
    run = hosts.run(plan)
    assert run.failed == [] and run.began
    assert set(host_of(run).values()) == set(NAMES) and set(host_of(run)) == set(range(1, 7))
    design = decode(Design, json.loads((run.folder / "design.json").read_text()))
    assert [one.host for one in design.hosts] == list(NAMES)
    assert design.placements == () and all(one.placements for one in design.hosts)
    assert {trial.id for trial in design.trials} == {trial["id"] for trial in heads(run)}
    for name in NAMES:
        path = run.folder / "doctor" / f"{name}.json"
        assert decode(HostReport, json.loads(path.read_text())).host == name
        assert hosts.each[name].calls[:3] == ["examine", "clear", "block"]
        assert hosts.each[name].calls[-1] == "restore"
        folders = {v["virtbed_run_dir"] for v in hosts.each[name].variables if "virtbed_keep" in v}
        assert folders == {
            str(hosts.folder / "run/keys/demo" / name)
        }  # not the keys of other hosts' guests
    assert not (run.folder / "doctor.json").exists() and not list(run.folder.glob(".incoming*"))
    assert not (hosts.folder / "run" / "keys").exists()
    with FleetLedger(run.folder / NAME) as ledger:
        assert ledger.bound() == host_of(run) and not ledger.failed()
        assert ledger.counts() == {"done": 12}
    hosts.run(plan)  # nothing is missing any more
    assert all(hosts.each[name].calls == ["examine", "clear", "restore"] for name in NAMES)


def test_hosts_with_equal_cells_share_one_list_of_trials(hosts: Hosts, plan: Plan) -> None:
    isolated(hosts)  # bench02 has other CPUs
    run = hosts.run(plan)
    assert run.failed == [] and run._fleet
    one, other, third = (member.admitted for member in run._fleet._members)
    assert one and other and third and one.design.trials is third.design.trials
    assert other.design.trials is not one.design.trials


def lose(one: Host, name: str, back: Callable[[], bool] = lambda: False) -> None:
    """Make a host unreachable from its second trial on, until `back` returns True."""
    trials = iter(range(100))

    def gone() -> Ended:
        return GOOD if back() else Ended("failed", LOST, (name,))

    def trial() -> Ended:
        if next(trials) != 1:
            return GOOD
        one.answers.update(dict.fromkeys(("examine", "clear", "restore", "free"), gone))
        return gone()

    one.answers["trial"] = trial


def test_an_unreachable_host_is_set_aside_and_others_repeat_its_replicate(
    hosts: Hosts, plan: Plan
) -> None:
    together(hosts)
    lose(hosts.each["bench02"], "bench02")
    run = hosts.run(plan)
    assert run.failed == []
    done = host_of(run)  # every trial exactly once
    assert set(done) == set(range(1, 7)) and set(done.values()) == {"bench01", "bench03"}
    output = hosts.output.getvalue()
    assert f"bench02 is set aside: it became unreachable: {LOST}" in output
    assert "which bench02 had started" in output
    assert "bench02 was set aside, and other hosts" in output
    aside = [path.name for path in (run.folder / "aside").iterdir()]
    assert len(aside) == 1 and not list(run.folder.glob("trials/*/failure.json"))
    assert "[12/12]" in output  # a repeated trial is counted once
    # It is back: the next call clears it, and nothing else is missing.
    hosts.each["bench02"].answers.clear()
    hosts.run(plan)
    assert hosts.each["bench02"].calls == ["examine", "clear", "restore"]


def test_a_host_that_comes_back_is_cleared_and_continues(
    hosts: Hosts, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "PAUSES_S", (0.01,) * 50)
    one = hosts.each["bench02"]
    back = iter([False] * 4 + [True] * 1000)
    lose(one, "bench02", back=lambda: next(back))
    usual = hosts.each["bench03"].trial

    def slow(request: TrialRequest, path: Path) -> TrialOutcome | None:
        time.sleep(0.2)  # so that some replicates are left for the host that comes back
        return usual(request, path)

    hosts.each["bench03"].trial = slow
    run = hosts.run(plan, ("bench02", "bench03"))
    assert run.failed == [] and "bench02" in host_of(run).values()
    assert one.calls.count("clear") >= 2 and one.calls.count("block") >= 2
    assert "bench02 is available, and takes part" in hosts.output.getvalue()
    assert "was set aside, and other hosts" not in hosts.output.getvalue()


def test_hosts_that_cannot_be_examined_are_named_and_the_others_continue(
    hosts: Hosts, plan: Plan
) -> None:
    wrong_key = "Host key verification failed."
    hosts.each["bench01"].answers["examine"] = failing(wrong_key)
    hosts.each["bench03"].taken = False
    busy = "host_lock: bench03 is in use by process 7 on ctl02"
    hosts.each["bench03"].answers["examine"] = failing(busy)
    run = hosts.run(plan)
    assert set(host_of(run).values()) == {"bench02"} and run.failed == []
    output = hosts.output.getvalue()
    assert f"bench01 is set aside: the host could not be examined: {wrong_key}" in output
    assert f"bench03 is set aside: the host could not be examined: {busy}" in output
    assert hosts.each["bench03"].calls == ["examine"]  # another controller has claimed it


def test_without_any_host_nothing_is_started(hosts: Hosts, plan: Plan) -> None:
    for name in NAMES:
        hosts.each[name].answers["examine"] = failing(f"{name} is down")
    run = hosts.sweep(plan)
    with pytest.raises(SweepError, match=r"no host can .*bench01: .*bench01 is down; bench02:"):
        run.run()
    assert not run.folder.exists() and not run.began


def test_hosts_of_a_refused_sweep_are_freed_at_once(hosts: Hosts, plan: Plan) -> None:
    hosts.run(plan)
    barrier = threading.Barrier(len(NAMES))

    def freed() -> Ended:
        barrier.wait(20)
        return GOOD

    for name in NAMES:
        hosts.each[name].answers["free"] = freed
    with pytest.raises(LedgerError, match="was started with plan"):
        hosts.run(plan.model_copy(update={"seed": 7}))
    assert all(hosts.each[name].calls == ["examine", "free"] for name in NAMES)


def same_machine(hosts: Hosts) -> None:
    facts = hosts.each["bench02"].report.facts
    facts["machine"] = dict(hosts.each["bench01"].report.facts["machine"])


def same_board(hosts: Hosts) -> None:
    for number in (1, 2):
        hosts.each[f"bench0{number}"].report.facts["machine"]["product"] = "p"


def same_name(hosts: Hosts) -> None:
    hosts.each["bench02"].report = replace(hosts.each["bench02"].report, host="bench01")


def odd_name(hosts: Hosts) -> None:
    hosts.each["bench02"].report = replace(hosts.each["bench02"].report, host="../x")


def here(hosts: Hosts) -> None:
    one = hosts.each["bench02"]
    one.report.facts["machine"] = machine.identity(Path("/"))
    one.booted(Path("/", machine.BOOT).read_text().strip())
    one.report = replace(one.report, host=os.uname().nodename)


def other_image(hosts: Hosts) -> None:
    facts = hosts.each["bench02"].report.facts
    facts["image"] = {**facts["image"], "digest": "sha256:" + "b" * 64}


def no_docker(hosts: Hosts) -> None:
    one = hosts.each["bench02"]
    rows = tuple(
        replace(row, status="unavailable") if row.platform == "cn" else row
        for row in one.report.platforms
    )
    one.report = replace(one.report, platforms=rows)


def isolated(hosts: Hosts) -> None:
    facts = hosts.each["bench02"].report.facts
    facts["cpu"]["allowed"] = facts["cpu"]["allowed"][:1]


def little_memory(hosts: Hosts) -> None:
    hosts.each["bench02"].report.facts["memory_mib"]["total"] = 100


WRONG: dict[str, tuple[Callable[[Hosts], None], str]] = {
    "one machine": (same_machine, "it is the same machine as bench01, by machine-id and boot id"),
    "one board": (same_board, "it is the same machine as bench01, by the firmware's UUID; name it"),
    "one name": (same_name, "its hostname is bench01, as is that of bench01"),
    "an odd name": (odd_name, "its hostname is '../x', letters, digits"),
    "this machine": (here, "it is this machine, which is the controller of the sweep"),
    "another image": (other_image, "image sha256:bbb.* found, sha256:aaa.* needed, as on bench01"),
    "no docker": (no_docker, "cn is unavailable: cn reason; cn remedy"),
    "little memory": (little_memory, "bench02 has 100 MiB total"),
}


@pytest.mark.parametrize("what", WRONG)
def test_an_error_of_one_host_is_named_and_the_others_continue(
    hosts: Hosts, plan: Plan, what: str
) -> None:
    spoil, why = WRONG[what]
    spoil(hosts)
    run = hosts.run(plan)
    assert run.failed == [] and set(host_of(run).values()) <= {"bench01", "bench03"}
    (line,) = (x for x in hosts.output.getvalue().splitlines() if " is set aside: " in x)
    assert line.startswith("bench02") and re.search(why, line)
    assert hosts.each["bench02"].calls == ["examine", "free"]  # no playbook that changes the host


def test_a_host_that_would_run_other_cells_takes_no_part(hosts: Hosts, plan: Plan) -> None:
    """An example is a host whose vanilla instances may use fewer CPUs than on the other hosts."""
    both = plan.model_copy(update={"platforms": {"bm": ["pinned"], "cn": ["vanilla", "pinned"]}})
    isolated(hosts)
    run = hosts.run(both)
    assert {trial["host"] for trial in heads(run)} <= {"bench01", "bench03"}
    why = "bench02 is set aside: it would not run the cells of bench01: cn vanilla is left out: "
    assert why in hosts.output.getvalue()


def test_a_host_that_could_run_more_cells_does_not_add_them_to_the_sweep(
    hosts: Hosts, plan: Plan
) -> None:
    both = plan.model_copy(update={"platforms": {"bm": ["pinned"], "cn": ["vanilla", "pinned"]}})
    isolated(hosts)
    hosts.each["bench03"].report.facts["cpu"]["allowed"] = [0]
    hosts.run(both, ("bench02", "bench03"))
    run = hosts.run(both.model_copy(update={"replicates": 8}), ("bench01", "bench02"))
    assert "bench01 is set aside: it would not run the cells of bench02" in hosts.output.getvalue()
    assert run.failed == [] and len(heads(run)) == 16
    with pytest.raises(LedgerError, match=r"started with other cells, .*cn-vanilla.*another name"):
        hosts.run(both.model_copy(update={"replicates": 8}), ("bench01",))


def test_the_cells_that_most_hosts_can_run_define_the_sweep(hosts: Hosts, plan: Plan) -> None:
    other_image(hosts)
    hosts.each["bench01"], hosts.each["bench02"] = hosts.each["bench02"], hosts.each["bench01"]
    hosts.each["bench01"].hosts, hosts.each["bench02"].hosts = ["bench01"], ["bench02"]
    run = hosts.run(plan)
    assert {trial["host"] for trial in heads(run)} <= {"bench01", "bench03"}  # their own names
    assert "bench01 (bench02) is set aside: image sha256:b" in hosts.output.getvalue()


def test_a_host_that_cannot_be_restored_at_the_end_is_an_error(hosts: Hosts, plan: Plan) -> None:
    hosts.each["bench02"].answers["restore"] = failing("swappiness is 60")
    run = hosts.sweep(plan)
    with pytest.raises(BenchError, match=r"bench02: .*restored: swappiness is 60; run virtbed"):
        run.run()
    assert len(heads(run)) == 12


def test_a_host_with_a_wrong_clock_is_named(hosts: Hosts, plan: Plan) -> None:
    for name, apart in (("bench01", 0.0), ("bench02", -7200.0)):
        hosts.each[name].report.facts["machine"]["clock_s"] = time.time() + apart
    run = hosts.run(plan)
    assert run.failed == []
    assert "bench02: its clock is 120 min behind this machine's" in hosts.output.getvalue()
    assert "bench01: its clock" not in hosts.output.getvalue()


def test_cloned_hosts_take_part_and_are_named(hosts: Hosts, plan: Plan) -> None:
    for name in ("bench02", "bench03"):
        hosts.each[name].report.facts["machine"] |= {"id": "one", "product": name}
    run = hosts.run(plan)
    assert run.failed == []
    assert {head["host"] for head in heads(run)} == set(NAMES)
    (line,) = (line for line in hosts.output.getvalue().splitlines() if "it is cloned" in line)
    assert line.startswith("bench03: it is cloned: bench02 has its machine-id") or (
        line.startswith("bench02: it is cloned: bench03 has its machine-id")
    )


def test_a_full_disk_of_one_host_does_not_end_the_others(hosts: Hosts, plan: Plan) -> None:
    needed = ROOMS["state"].needed_mib
    hosts.each["bench02"].disks = lambda: (DiskFree("state", "/there", needed - 1),)
    hosts.each["bench03"].answers["provision"] = failing("qemu-img: No space left on device")
    # So that it does not finish before the others start.
    waits(hosts.each["bench01"], lambda: hosts.output.getvalue().count("is set aside") == 2)
    run = hosts.run(plan)
    assert set(host_of(run).values()) == {"bench01"} and run.failed == []
    output = hosts.output.getvalue()
    assert f"bench02 is set aside: {needed - 1} MiB free for /there" in output
    assert "bench03 is set aside: a disk of the bench host is full" in output


def test_a_full_disk_of_this_machine_ends_all_hosts_and_leaves_no_instance(
    hosts: Hosts, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    together(hosts)
    calls = iter(range(10**6))
    monkeypatch.setattr(
        blocks, "look",
        lambda kind, path: DiskFree(kind, str(path), 10**6 if next(calls) < 8 else 0),
    )  # fmt: skip
    run = hosts.sweep(plan)
    with pytest.raises(SweepError, match=r"0 MiB free for .*needed; free some"):
        run.run()
    assert run.began
    for one in hosts.each.values():
        assert one.calls[-1] == "restore" and one.calls.count("block") < 2
        assert one.calls[-2] == "clear"  # also without a known instance


def test_a_signal_ends_all_hosts_and_the_next_call_continues_each_of_them(
    hosts: Hosts, plan: Plan
) -> None:
    together(hosts)
    ended = threading.Event()

    def interrupted() -> Ended:
        done = hosts.folder.glob("results/*/trials/*/result.json")
        if not ended.is_set() and len(list(done)) > 4:
            ended.set()
            os.kill(os.getpid(), signal.SIGTERM)
        while ended.is_set() and not run._interruption.wanted:
            time.sleep(0.01)
        return Ended("canceled") if ended.is_set() else GOOD

    for name in NAMES:
        hosts.each[name].answers["trial"] = interrupted
    run = hosts.sweep(plan)
    with pytest.raises(Interrupted):
        run.run()
    before = {trial["id"]: trial for trial in heads(run)}
    started = {trial["replicate"]: trial["host"] for trial in before.values()}
    assert 4 < len(before) < 12
    assert all(hosts.each[name].calls[-1] == "restore" for name in NAMES)
    for name in NAMES:
        hosts.each[name].answers.clear()
    later = hosts.run(plan)
    after = {trial["id"]: trial for trial in heads(later)}
    assert before.items() <= after.items() and len(after) == 12  # nothing was repeated
    assert started.items() <= host_of(later).items()
    assert not (later.folder / "aside").exists()


def test_an_interrupted_sweep_names_a_host_that_could_not_be_restored(
    hosts: Hosts, plan: Plan
) -> None:
    def interrupted(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        while not run._interruption.wanted:
            time.sleep(0.01)

    hosts.each["bench02"].trial = interrupted
    hosts.each["bench02"].answers["restore"] = failing("swappiness is 60")
    together(hosts)
    run = hosts.sweep(plan)
    with pytest.raises(Interrupted) as ended:
        run.run()
    assert "everything is released" not in str(ended.value)
    assert re.search(r"set aside\. bench02: .*restored: swappiness is 60", str(ended.value))
    assert "bench01" not in str(ended.value)


def test_an_error_of_all_hosts_ends_the_sweep_also_if_one_cannot_be_restored(
    hosts: Hosts, plan: Plan
) -> None:
    def full(request: TrialRequest, path: Path) -> TrialOutcome:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    hosts.each["bench02"].trial = full
    hosts.each["bench02"].answers["restore"] = failing("swappiness is 60")
    together(hosts)
    run = hosts.sweep(plan)
    with pytest.raises(SweepError, match=r"results cannot be written: .*No space left"):
        run.run()
    output = hosts.output.getvalue()
    assert "bench02: the host's settings could not be restored: swappiness is 60" in output
    assert "is set aside" not in output


def test_no_result_is_lost_if_the_controller_is_killed(hosts: Hosts, plan: Plan) -> None:
    usual = good(hosts.document)

    def slow(request: TrialRequest, path: Path) -> TrialOutcome:
        time.sleep(0.03)
        return usual(request, path)

    for one in hosts.each.values():
        one.trial = slow
    if (child := os.fork()) == 0:
        try:
            hosts.run(plan)
        finally:
            os._exit(0)
    results = hosts.folder / "results"
    for _ in range(1000):
        if len(list(results.glob("*/trials/*/result.json"))) > 4:
            break
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    before = {path: path.read_bytes() for path in results.glob("*/trials/*/result.json")}
    assert 4 < len(before) < 12
    run = hosts.run(plan)
    assert run.failed == [] and len(host_of(run)) == 6
    assert {path: path.read_bytes() for path in before} == before
    assert not (run.folder / "aside").exists()


def test_an_incomplete_replicate_of_an_absent_host_is_repeated_by_others(
    hosts: Hosts, plan: Plan
) -> None:
    bad = failed("no")

    def one_fails(request: TrialRequest, path: Path) -> TrialOutcome:
        return (bad if request.id.startswith("cn") and request.id.endswith("r02") else fine)(
            request, path
        )

    fine = hosts.each["bench01"].trial
    for name in NAMES:
        hosts.each[name].trial = one_fails  # type: ignore[assignment]
    first = hosts.run(plan)
    assert first.failed == ["cn-pinned-c01-image_classification-r02"]
    (whose,) = (trial["host"] for trial in heads(first) if trial["replicate"] == 2)
    others = tuple(name for name in NAMES if name != whose)
    for name in NAMES:
        hosts.each[name].trial = fine
    kept = {trial["id"] for trial in heads(first) if trial["replicate"] != 2}
    same = {p.name: p.stat().st_mtime_ns for p in first.folder.glob("trials/*") if p.name in kept}
    (first.folder / f".incoming-{whose}").mkdir()  # as a killed sweep leaves it
    later = hosts.run(plan, others)
    assert not list(later.folder.glob(".incoming*"))
    assert later.failed == [] and host_of(later)[2] in others
    assert same == {p.name: p.stat().st_mtime_ns for p in later.folder.glob("trials/*")
                    if p.name in kept}  # fmt: skip
    assert f"repeats replicate 2, which {whose} had started" in hosts.output.getvalue()
    design = decode(Design, json.loads((later.folder / "design.json").read_text()))
    assert [one.host for one in design.hosts] == list(NAMES)  # with the absent one


def test_a_trial_that_fails_is_repeated_by_its_own_host(hosts: Hosts, plan: Plan) -> None:
    for name in NAMES:
        hosts.each[name].trial = failed("a wrong answer")
    first = hosts.run(plan)
    assert len(first.failed) == 12
    with FleetLedger(first.folder / NAME) as ledger:
        bound = ledger.bound()
    for name in NAMES:
        hosts.each[name].trial = good(hosts.document)
    later = hosts.run(plan)
    assert later.failed == [] and host_of(later) == bound
    assert {trial["attempt"] for trial in heads(later)} == {2}


def test_a_lost_ledger_is_rebuilt_with_the_results_of_an_absent_host(
    hosts: Hosts, plan: Plan
) -> None:
    together(hosts)
    first = hosts.run(plan)
    where = host_of(first)
    for part in first.folder.glob("ledger.sqlite*"):
        part.unlink()
    torn = first.folder / "trials" / min(p.name for p in first.folder.glob("trials/cn*"))
    (torn / "result.json").write_text("{")
    whose = where[int(torn.name[-2:])]
    names = tuple(n for n in NAMES if n == whose or n == "bench01")
    later = hosts.run(plan, names)
    assert host_of(later) == where and len(heads(later)) == 12
    assert sum(len(one.blocks) for one in hosts.each.values()) == 1


@pytest.mark.parametrize("journal", ["kept", "lost"])
def test_a_host_that_changed_between_calls_takes_no_part(
    hosts: Hosts, plan: Plan, journal: str
) -> None:
    folder = hosts.run(plan).folder
    for part in folder.glob("ledger.sqlite*") if journal == "lost" else ():
        part.unlink()
    hosts.each["bench02"].report.facts["kernel"] = "6.2.0"
    more = plan.model_copy(update={"replicates": 8})
    run = hosts.run(more)
    assert {host_of(run)[number] for number in (7, 8)} <= {"bench01", "bench03"}
    assert "was started with kernel of bench02 6.1.0, now it is 6.2.0" in hosts.output.getvalue()


def test_a_sweep_on_several_hosts_may_continue_on_one_of_them(hosts: Hosts, plan: Plan) -> None:
    hosts.each["bench01"].trial = failed("no")
    hosts.each["bench02"].trial = failed("no")
    hosts.run(plan, ("bench01", "bench02"))
    for name in NAMES:
        hosts.each[name].trial = good(hosts.document)
    run = hosts.run(plan, ("bench02",))
    assert run.failed == [] and set(host_of(run).values()) == {"bench02"}


def alone(hosts: Hosts, plan: Plan) -> Path:
    """Run two replicates of a plan on bench01, of which the second lacks a trial."""

    def one_fails(request: TrialRequest, path: Path) -> TrialOutcome:
        bad = request.id.startswith("cn") and request.id.endswith("r02")
        return (failed("no") if bad else good(hosts.document))(request, path)

    one = hosts.each[""] = hosts.each["bench01"]  # one host's playbooks name no host
    usual, one.trial = one.trial, one_fails
    run = hosts.run(plan.model_copy(update={"replicates": 2}), ("bench01",))
    assert len(run.failed) == 1
    assert (run.folder / "doctor.json").exists() and not (run.folder / "doctor").exists()
    one.trial = usual
    return run.folder


def results(folder: Path) -> dict[str, bytes]:
    return {p.parent.name: p.read_bytes() for p in folder.glob("trials/*/result.json")}


def is_widened(run: Sweep, before: Mapping[str, bytes]) -> None:
    """Check that a sweep of one host is complete as a sweep on several, with its old results."""
    assert run.failed == [] and set(host_of(run)) == set(range(1, 7))
    assert host_of(run)[1] == host_of(run)[2] == "bench01"
    assert before.items() <= results(run.folder).items()
    assert not (run.folder / "doctor.json").exists() and not (run.folder / "aside").exists()
    design = decode(Design, json.loads((run.folder / "design.json").read_text()))
    assert "bench01" in {one.host for one in design.hosts} and design.placements == ()
    assert (run.folder / "doctor" / "bench01.json").exists()
    with FleetLedger(run.folder / NAME) as ledger:
        assert ledger.bound() == host_of(run) and ledger.counts() == {"done": 12}
        assert ledger.hosts() == {one.host for one in design.hosts}


@pytest.mark.parametrize("journal", ["kept", "lost"])
def test_hosts_can_join_a_sweep_that_was_started_on_one(
    hosts: Hosts, plan: Plan, journal: str
) -> None:
    folder = alone(hosts, plan)
    before = results(folder)
    for part in folder.glob("ledger.sqlite*") if journal == "lost" else ():
        part.unlink()
    together(hosts)
    run = hosts.run(plan)
    is_widened(run, before)
    assert set(host_of(run).values()) == {*NAMES}
    hosts.run(plan, ("bench01",))  # nothing is left to do, also on the first host alone
    assert hosts.each["bench01"].calls == ["examine", "clear", "restore"]


def test_others_repeat_the_unfinished_replicate_of_an_absent_first_host(
    hosts: Hosts, plan: Plan
) -> None:
    folder = alone(hosts, plan)
    done = {name: text for name, text in results(folder).items() if name.endswith("r01")}
    run = hosts.run(plan, NAMES[1:])
    where = host_of(run)
    assert where[1] == "bench01" and {where[n] for n in range(2, 7)} <= {"bench02", "bench03"}
    assert done.items() <= results(folder).items() and len(list((folder / "aside").iterdir())) == 2
    design = decode(Design, json.loads((folder / "design.json").read_text()))
    assert [one.host for one in design.hosts if one.placements] == list(NAMES)


@pytest.mark.parametrize(
    ("at", "following"),
    [("design.json", 1), ("doctor.json", 1), ("doctor.json", 3), ("ledger", 1), ("ledger", 3)],
)
def test_a_kill_while_hosts_join_loses_nothing(
    hosts: Hosts, plan: Plan, at: str, following: int
) -> None:
    """The next call continues, whether it names several hosts again or the first one alone."""
    folder = alone(hosts, plan)
    before = results(folder)
    write_text, rename = records.write_text, Path.replace

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    def write(path: Path, text: Any) -> None:
        (killed if path.name == at else write_text)(path, text)

    def replace(path: Path, target: Path) -> Path | None:
        return (killed if path.name == at else rename)(path, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "write_text", write)
        patch.setattr(Path, "replace", replace)
        if at == "ledger":
            patch.setattr(FleetLedger, "widen", killed)
        with pytest.raises(KeyboardInterrupt):
            hosts.run(plan)
    hosts.run(plan.model_copy(update={"replicates": 2}), NAMES[:following])
    is_widened(hosts.run(plan), before)


def test_a_refused_sweep_on_several_hosts_leaves_that_of_one_as_it_is(
    hosts: Hosts, plan: Plan
) -> None:
    folder = alone(hosts, plan)
    before = {path: path.read_bytes() for path in folder.glob("*.json")}
    for other, why in (
        (plan.model_copy(update={"seed": 7}), "was started with plan"),
        (plan.model_copy(update={"replicates": 1}), "fewer replicates than before"),
    ):
        with pytest.raises(LedgerError, match=why):
            hosts.run(other)
    elsewhere = Holder("ctl02", 7, "b", "1")
    with Ledger(folder / NAME) as ledger, ledger.left(elsewhere):
        ledger.take(elsewhere, time.time() + 600)
        with pytest.raises(LeaseError, match="is being carried out by process 7 on ctl02"):
            hosts.run(plan)
    assert {path: path.read_bytes() for path in folder.glob("*.json")} == before
    for path in (folder / "doctor.json", *folder.glob("ledger.sqlite*")):
        path.write_text("{")
    with pytest.raises(LedgerError, match=r"ledger is lost, and doctor\.json cannot be read"):
        hosts.run(plan)
    assert hosts.run(plan, ("bench01",)).failed == []


def test_a_kept_instance_ends_the_sweep_on_all_hosts(hosts: Hosts, plan: Plan) -> None:
    hosts.each["bench02"].trial = failed("a pin was changed")
    together(hosts)
    with pytest.raises(Kept, match="log in on bench02"):
        hosts.run(plan, keep=True)
    assert hosts.each["bench02"].calls[-2:] == ["block", "restore"]  # and no clear
    (kept,) = (hosts.folder / "run/keys/demo").iterdir()
    assert kept.name == "bench02"
    assert all(one.calls[-1] == "restore" for one in hosts.each.values())


def test_the_stopping_rule_uses_the_results_of_all_hosts(
    hosts: Hosts, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs: list[Mapping[str, Any]] = []

    def unneeded(design: Design, measured: Mapping[str, Any], *_: object) -> frozenset[str]:
        inputs.append(measured)
        enough = len(measured) >= 6
        return frozenset(t.id for t in design.trials if enough and t.id not in measured)

    monkeypatch.setattr("virtbed_analysis.unneeded_trials", unneeded, raising=False)
    precise = plan.model_copy(update={"precision": 0.01, "replicates": 30})
    run = hosts.run(precise)
    done = {trial["replicate"] for trial in heads(run)}
    assert 3 <= len(done) <= 5 and run.failed == []  # running replicates complete
    assert max(map(len, inputs)) >= 6
    hosts.run(precise)
    assert not any(one.blocks for one in hosts.each.values())


def test_a_host_that_waits_for_others_keeps_its_claim(
    hosts: Hosts, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bench, "limit_s", property(lambda _: 0.05))
    idle = hosts.each["bench01"]
    waits(hosts.each["bench02"], lambda: idle.calls.count("renew") >= 3)
    together(hosts, NAMES[:2])
    run = hosts.run(plan.model_copy(update={"replicates": 2}), NAMES[:2])
    assert run.failed == [] and set(host_of(run).values()) == {"bench01", "bench02"}
    assert idle.calls.count("renew") >= 3 and idle.calls[-1] == "restore"
    assert "renew" not in hosts.each["bench02"].calls
    renewals = [values for name, values in zip(idle.calls, idle.variables, strict=True)
                if name == "renew"]  # fmt: skip
    claims = {(values["virtbed_claim"], values["virtbed_claim_s"]) for values in renewals}
    assert claims == {(idle.variables[0]["virtbed_claim"], 60)}


def test_a_waiting_host_that_another_controller_took_is_set_aside(
    hosts: Hosts, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = failing("host_lock: bench01 is in use by process 7 on ctl02")
    hosts.each["bench01"].answers.update({"renew": taken, "restore": taken})
    waits(hosts.each["bench02"], lambda: "is set aside" in hosts.output.getvalue())
    together(hosts, NAMES[:2])
    run = hosts.run(plan.model_copy(update={"replicates": 2}), NAMES[:2])
    assert run.failed == []
    why = "bench01 is set aside: the claim on the host could not be renewed: host_lock: bench01 is"
    assert why in hosts.output.getvalue()


def test_a_sweep_without_reachable_hosts_ends_and_names_incomplete_replicates(
    hosts: Hosts, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "PAUSES_S", (0.01,))
    for name in NAMES:
        lose(hosts.each[name], name)
    run = hosts.sweep(plan)
    with pytest.raises(BenchError, match=r"no host is left, and replicates \d.*bench01: the host"):
        run.run()
    assert run.began
    for name in NAMES:
        hosts.each[name].answers.clear()
    assert host_of(hosts.run(plan))


def test_a_ledger_of_one_host_is_read_as_before(tmp_path: Path) -> None:
    with Ledger(tmp_path / NAME) as ledger:
        ledger.begin({"plan": "1", "host": "bench"}, [("a", 1, "bm")])
        ledger.close("a", "done", 1.0)
    with FleetLedger(tmp_path / NAME) as several:
        assert several.done() == {"a"} and several.bound() == {} and several.hosts() == set()
