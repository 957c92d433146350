"""A trial next to neighbours, run by the real playbooks with fake machine and enclosure roles.

The application is a short program that prints what the real one would.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from virtbed import ansible, scratch
from virtbed.ansible import Deadline, play
from virtbed.checkout import REPOSITORY
from virtbed.events import Ended, TaskFailed, TrialEnded
from virtbed.logs import Logs
from virtbed_contract.codec import encode
from virtbed_contract.documents import Instance, Neighbour, TrialRequest
from virtbed_contract.events import TrialOutcome
from virtbed_contract.kernel.processes import with_environment
from virtbed_contract.neighbours import instances

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="root runs the application as another user")
CPUS = sorted(os.sched_getaffinity(0))
ID = f"unit{os.getpid()}-pinned-c01-r01"
# The enclosure's argv prefix: it takes the instance's mark from the command, and runs CODE.
START = """
for word; do case "$word" in VIRTBED_INSTANCE=*) mark=$word ;; esac; done
exec taskset -c "$0" setpriv --reuid=65532 --regid=65532 --clear-groups \
  env -i PATH=/usr/bin:/bin "$mark" /usr/bin/python3 -c "$CODE" "$@"
"""
CODE = """
import json, os, socket, sys, time
own = os.environ["VIRTBED_INSTANCE"]
if "--endless" in sys.argv:
    if "never" in sys.argv:
        sys.exit("no model found")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as waiting:
        waiting.bind(chr(0) + own)
        waiting.settimeout(0.1)
        for requests in range(1, 600):
            print(json.dumps({"requests": requests}), flush=True)
            try:
                sys.exit(waiting.recv(99).decode())
            except socket.timeout:
                pass
if "dies" in sys.argv:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as telling:
        telling.sendto(b"out of memory", chr(0) + own + "-n1")
time.sleep(1)
cpus = sorted(os.sched_getaffinity(0))
inside = {"cpus_allowed_list": str(cpus[0]), "affinity": cpus, "isa": [],
          "cgroup": {"quota_cpus": None},
          "threads": {"usable_cores": 1, "intra_op": 0, "inter_op": 0}}
moved = {"ran_on": cpus, "migrations": 0, "transparent_hugepage": "madvise"}
print(json.dumps({"environment": inside, "confounders": moved,
                  "settings": {"thread_policy": "default"}}))
"""


def instance(*neighbours: str) -> Instance:
    cpu = CPUS[-1]
    placed = (Neighbour(cpus, "0", "machine", True) for cpus in neighbours)
    return Instance(
        id=ID, platform="fake", machine="fake", enclosure="fake", own_kernel=False,
        private_kernel=False, mode="pinned", enclosure_limit="set", cores=1, memory_mib=1024,
        accelerator="none", cpus=str(cpu), cpu_ids=(cpu,), mems="0", housekeeping=str(CPUS[0]),
        allowed=",".join(map(str, CPUS)), inner_cpus=str(cpu), inner_mems="0",
        inner_allowed=",".join(map(str, CPUS)), seen_cpus=str(cpu), quota_cpus=None,
        seen_quota_cpus=None, image_digest="sha256:" + "a" * 64, image_name="a" * 16,
        neighbours=tuple(placed),
    )  # fmt: skip


def roles(folder: Path) -> None:
    """Write a machine role that is the host, and an enclosure role that logs its entry points."""
    note = "echo {} {{{{ virtbed_instance.id }}}} >> " + str(folder / "done")
    shell = "ansible.builtin.shell"
    written: dict[str, Any] = {
        "machine_fake/tasks/verify.yml": [
            {"name": "Read", "machine_reading": {"cpus": "{{ virtbed_instance.cpus }}"},
             "register": "machine_fake_reading"},
        ],
        "machine_fake/tasks/release.yml": [{"name": "Keep", "ansible.builtin.meta": "noop"}],
        "enclosure_fake/vars/main.yml": {
            "enclosure_fake_argv": ["env", f"CODE={CODE}", "sh", "-c", START,
                                    "{{ virtbed_instance.inner_cpus }}"],
        },
        "enclosure_fake/tasks/main.yml": [
            {"name": "Make", shell: note.format("made") + "; echo {{ virtbed_instance.id }}",
             "register": "enclosure_fake_started"},
        ],
        "enclosure_fake/tasks/verify.yml": [
            {"name": "Read", "process_reading": {"argv": []},
             "register": "enclosure_fake_reading"},
            {"name": "Assert that it is the measured one's", "ansible.builtin.assert": {
                "that": "enclosure_fake_started.stdout == virtbed_instance.id"}},
        ],
        "enclosure_fake/tasks/release.yml": [{"name": "Remove", shell: note.format("gone")}],
    }  # fmt: skip
    for name, content in written.items():
        path = folder / "roles" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))


PROVISION = [
    {
        "hosts": "bench",
        "tasks": [
            {"name": "Neighbours", "ansible.builtin.import_role": {
                "name": "trial_neighbours",
                "tasks_from": "{{ 'enclosures' if virtbed_neighbours else 'without' }}"},
             "vars": {"trial_neighbours_entry": "main"}},
            {"name": "Enclosure", "ansible.builtin.import_role": {
                "name": "enclosure_{{ virtbed_instance.enclosure }}"}},
        ],
    }
]  # fmt: skip


@dataclass
class Played:
    """Events of a block, and the log of the enclosure role."""

    ended: Ended
    outcome: TrialOutcome
    failed: list[TaskFailed]
    done: list[str]


@pytest.fixture
def block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a block of one trial next to neighbours, with some arguments of the application."""
    roles(tmp_path)
    (tmp_path / "provision.yml").write_text(json.dumps(PROVISION))
    hosts = {"localhost": {"ansible_connection": "local"}}
    (tmp_path / "hosts.yml").write_text(json.dumps({"bench": {"hosts": hosts}}))
    monkeypatch.setenv("ANSIBLE_ROLES_PATH", f"{tmp_path / 'roles'}:{REPOSITORY / 'roles'}")
    monkeypatch.setattr(ansible, "_MARK", f"VIRTBED_TEST_{os.getpid()}")
    monkeypatch.setattr(scratch, "RUN", tmp_path / "run")

    def carry_out(measured: Instance, *words: str) -> Played:
        trial = TrialRequest("t1", ("null", *words), "default", (), 20)
        turn = {
            "virtbed_instance": encode(measured),
            "virtbed_neighbours": [encode(one) for one in instances(measured)],
            "virtbed_trials": [encode(trial)],
        }
        variables = {
            "virtbed_incoming_dir": str(tmp_path), "virtbed_state_dir": str(tmp_path / "state"),
            "__trial_neighbours_dir": str(tmp_path / "neighbours"),
        }  # fmt: skip
        *events, ended = play(
            "block", variables, [str(tmp_path / "hosts.yml")], deadline=Deadline(60),
            logs=Logs(tmp_path / "logs"), turns=[turn],
            parts=(str(tmp_path / "provision"), "trials", "release"),
        )  # fmt: skip
        assert isinstance(ended, Ended)
        log = "\n".join(path.read_text() for path in (tmp_path / "logs").iterdir())
        outcomes = [event.outcome for event in events if isinstance(event, TrialEnded)]
        assert len(outcomes) == 1, log
        failed = [event for event in events if isinstance(event, TaskFailed)]
        done = (tmp_path / "done").read_text().splitlines()
        assert not marked(), log
        assert not (tmp_path / "neighbours").exists()
        return Played(ended, outcomes[0], failed, done)

    return carry_out


def marked() -> list[int]:
    return with_environment(lambda variable: variable.startswith(f"VIRTBED_INSTANCE={ID}".encode()))


@ROOT
def test_neighbours_run_during_the_trial_and_leave_nothing(block: Any) -> None:
    first = str(CPUS[0])
    played = block(instance(first, first))
    assert (played.ended.ok, played.failed) == (True, []), played
    assert played.outcome.failure is None
    before, after = played.outcome.evidence.before, played.outcome.evidence.after
    assert before is not None and after is not None
    for number, (was, now) in enumerate(zip(before.neighbours, after.neighbours, strict=True), 1):
        assert was["instance"] == now["instance"] == f"{ID}-n{number}"
        assert was["processes"][0]["pid"] == now["processes"][0]["pid"]
        assert was["processes"][0]["cpus_allowed_list"] == first
        assert now["requests"] > was["requests"] >= 1
    each = (ID, f"{ID}-n1", f"{ID}-n2")
    assert sorted(played.done) == sorted(
        f"{what} {one}" for what in ("made", "gone") for one in each
    )
    # The measured instance comes last, so that registered variables are its own.
    assert played.done[:3] == [f"made {ID}-n1", f"made {ID}-n2", f"made {ID}"]


@ROOT
@pytest.mark.parametrize(
    ("word", "message", "read"),
    [
        ("dies", "-n1 ended before the trial did, with exit status 1: out of memory", 1),
        ("never", "-n1 ended before it answered a request, with exit status 1: no model found", 0),
    ],
)
def test_a_neighbour_that_ends_fails_the_trial_and_is_released(
    block: Any, word: str, message: str, read: int
) -> None:
    played = block(instance(str(CPUS[0])), word)
    assert played.ended.ok  # the block continues, because its other trials may succeed
    assert played.outcome.failure is not None
    assert message in " ".join(played.outcome.failure.message.split())
    assert len(played.outcome.evidence.before.neighbours) == read
    assert set(played.done) == {f"{w} {i}" for w in ("made", "gone") for i in (ID, f"{ID}-n1")}


def test_blocks_without_neighbours_have_no_task_for_them(tmp_path: Path) -> None:
    """Imports the parts of a block as the controller does, each with its instance."""
    own = {"id": "a", "own_kernel": False, "enclosure_limit": "set"}
    turns = [
        {"import_playbook": str(REPOSITORY / f"playbooks/{part}.yml"),
         "vars": {"virtbed_instance": own, "virtbed_neighbours": neighbours}}
        for neighbours in ([own], [], [own])
        for part in ("provision", "release")
    ]  # fmt: skip
    (tmp_path / "play.yml").write_text(json.dumps(turns))
    listed = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), tmp_path / "play.yml", "--list-tasks"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert listed.count("Provision or release the enclosure of each neighbour") == 2 * 2
