"""ansible-playbook itself is moved, by a real one: what it starts afterwards inherits its CPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from virtbed import host_lock
from virtbed.checkout import REPOSITORY
from virtbed.design import design
from virtbed.plan import Plan
from virtbed_contract.codec import decode, encode
from virtbed_contract.limits import DiskFree

from .conftest import PLATFORMS, report, small

LOOK = "import os; print(sorted(os.sched_getaffinity(0)))"


def played(folder: Path, *tasks: object) -> subprocess.CompletedProcess[str]:
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}
    (folder / "play.yml").write_text(json.dumps([play]))
    plugins = {"ANSIBLE_ACTION_PLUGINS": str(REPOSITORY / "playbooks/action_plugins")}
    tool = Path(sys.executable).with_name("ansible-playbook")
    return subprocess.run(
        [tool, folder / "play.yml"], cwd=REPOSITORY, env=os.environ | plugins, text=True,
        capture_output=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("bench", [os.uname().nodename, "elsewhere"])
def test_what_ansible_starts_is_kept_off_the_measured_cpus(
    tmp_path: Path, plan: Plan, bench: str
) -> None:
    allowed = sorted(os.sched_getaffinity(0))
    instance = encode(design(small(plan), report(2, host=bench), PLATFORMS).trials[0].instance)
    instance["housekeeping"] = str(allowed[0])
    keep = {"bench": bench, "instance": instance, "trials": []}
    rooms = [["state", "/"], ["tmp", str(tmp_path)]]
    claim = host_lock.here("virtbed sweep demo", tmp_path, "2026-01-01T00:00:00Z")
    keep |= {"claim": str(claim), "claim_s": 60, "disks": rooms, "folder": str(tmp_path / "run")}
    reported = {"content": "{{ started.disks | to_json }}", "dest": str(tmp_path / "disks")}
    look = {"argv": ["/usr/bin/python3", "-c", LOOK]}
    tell = {"content": "{{ seen.stdout }}", "dest": str(tmp_path / "seen"), "mode": "0644"}
    tasks = [
        {"name": "Move", "block_started": keep, "register": "started"},
        {"name": "Say what is free", "ansible.builtin.copy": {**reported, "mode": "0644"}},
        {"name": "Look", "ansible.builtin.command": look, "register": "seen"},
        {"name": "Tell", "ansible.builtin.copy": tell},
    ]
    said = played(tmp_path, *tasks)
    assert said.returncode == 0, said.stdout
    here = bench == os.uname().nodename
    disks = [decode(DiskFree, disk) for disk in json.loads((tmp_path / "disks").read_text())]
    assert [(disk.kind, disk.path) for disk in disks] == [tuple(room) for room in rooms]
    assert (tmp_path / "run" / host_lock.NAME).read_text().startswith(str(claim))
    assert json.loads((tmp_path / "seen").read_text()) == (allowed[:1] if here else allowed)


def test_a_document_that_is_not_as_the_contract_says_starts_no_block(
    tmp_path: Path, plan: Plan
) -> None:
    instance = encode(design(small(plan), report(), PLATFORMS).trials[0].instance)
    instance["cores"] = 0
    asked = {"bench": "elsewhere", "instance": instance, "trials": []}
    said = played(tmp_path, {"name": "Move", "block_started": asked})
    assert said.returncode != 0
    assert "virtbed_instance.cores: 0 found, minimum 1 needed" in said.stdout


def test_a_host_is_taken_and_refused_to_others_and_freed_by_real_playbooks(tmp_path: Path) -> None:
    mine = str(host_lock.here("virtbed sweep demo", tmp_path / "a", "2026-01-01T00:00:00Z"))
    other = str(host_lock.here("virtbed sweep more", tmp_path / "b", "2026-01-01T00:00:00Z"))

    def lock(state: str, claim: str) -> dict[str, object]:
        asked = {"state": state, "claim": "{{ claim }}", "seconds": 60}
        asked["folder"] = str(tmp_path / "run")
        return {"name": state, "host_lock": asked, "vars": {"claim": claim}}

    good = [lock("taken", mine), lock("free", mine), lock("released", other)]
    assert played(tmp_path, *good).returncode == 0
    said = played(tmp_path, lock("taken", other))
    assert said.returncode != 0 and "(virtbed sweep demo) since" in said.stdout
    assert played(tmp_path, lock("free", "")).returncode != 0
    assert played(tmp_path, lock("released", mine), lock("taken", other)).returncode == 0
