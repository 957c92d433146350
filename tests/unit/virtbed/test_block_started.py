"""The action plugins block_started and host_lock, in a real ansible-playbook."""

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


def played(folder: Path, *tasks: object, **environment: str) -> subprocess.CompletedProcess[str]:
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}
    (folder / "play.yml").write_text(json.dumps([play]))
    plugins = {"ANSIBLE_ACTION_PLUGINS": str(REPOSITORY / "playbooks/action_plugins")}
    tool = Path(sys.executable).with_name("ansible-playbook")
    return subprocess.run(
        [tool, folder / "play.yml"], cwd=REPOSITORY, env=os.environ | plugins | environment,
        text=True, capture_output=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("bench", [os.uname().nodename, "elsewhere"])
def test_ansibles_processes_leave_the_measured_cpus(tmp_path: Path, plan: Plan, bench: str) -> None:
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
    done = played(tmp_path, *tasks)
    assert done.returncode == 0, done.stdout
    local = bench == os.uname().nodename
    disks = [decode(DiskFree, disk) for disk in json.loads((tmp_path / "disks").read_text())]
    assert [(disk.kind, disk.path) for disk in disks] == [tuple(room) for room in rooms]
    assert (tmp_path / "run" / host_lock.NAME).read_text().startswith(str(claim))
    assert json.loads((tmp_path / "seen").read_text()) == (allowed[:1] if local else allowed)


def test_a_document_that_violates_the_contract_starts_no_block(tmp_path: Path, plan: Plan) -> None:
    instance = encode(design(small(plan), report(), PLATFORMS).trials[0].instance)
    instance["cores"] = 0
    arguments = {"bench": "elsewhere", "instance": instance, "trials": []}
    done = played(tmp_path, {"name": "Move", "block_started": arguments})
    assert done.returncode != 0
    assert "virtbed_instance.cores: 0 found, minimum 1 needed" in done.stdout


def test_real_playbooks_claim_a_host_refuse_it_to_others_and_free_it(tmp_path: Path) -> None:
    mine = str(host_lock.here("virtbed sweep demo", tmp_path / "a", "2026-01-01T00:00:00Z"))
    other = str(host_lock.here("virtbed sweep more", tmp_path / "b", "2026-01-01T00:00:00Z"))

    def lock(state: str, claim: str) -> dict[str, object]:
        arguments = {"state": state, "claim": "{{ claim }}", "seconds": 600}
        arguments["folder"] = str(tmp_path / "run")
        return {"name": state, "host_lock": arguments, "vars": {"claim": claim}}

    good = [lock("taken", mine), lock("free", mine), lock("released", other)]
    assert played(tmp_path, *good).returncode == 0
    done = played(tmp_path, lock("taken", other))
    assert done.returncode != 0 and "(virtbed sweep demo) since" in done.stdout
    assert played(tmp_path, lock("free", "")).returncode != 0
    assert played(tmp_path, lock("released", mine), lock("taken", other)).returncode == 0


def test_a_playbook_holds_its_controller_and_the_host_until_it_ends(tmp_path: Path) -> None:
    run, note = tmp_path / "controller", tmp_path / "run" / host_lock.NAME
    # The folder of the controller's lock is that of this user; a test needs one of its own.
    patch = (
        f"from pathlib import Path\nfrom virtbed import scratch\nscratch.RUN = Path({str(run)!r})\n"
    )
    (tmp_path / "sitecustomize.py").write_text(patch)
    python = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    alone = "from virtbed import bench; bench.LOCK_WAIT_S = 0; bench.alone().__enter__()"
    tried = {"argv": [sys.executable, "-c", alone]}
    held = {"state": "taken", "what": "set-up", "seconds": 600, "folder": str(note.parent)}
    free = {"state": "released", "claim": "{{ held.claim }}", "folder": str(note.parent)}
    tasks = [
        {"name": "Hold", "host_lock": held, "register": "held"},
        {"name": "Again", "host_lock": held},
        {"name": "See", "ansible.builtin.command": {"argv": ["grep", "set-up", str(note)]}},
        {"name": "Try", "ansible.builtin.command": tried, "register": "tried",
         "failed_when": "'(set-up) since' not in tried.stderr"},
        {"name": "Free", "host_lock": free},
        {"name": "Forget", "ansible.builtin.file": {"path": str(note.parent), "state": "absent"}},
        {"name": "Free twice", "host_lock": free},
    ]  # fmt: skip
    done = played(tmp_path, *tasks, PYTHONPATH=python)
    assert done.returncode == 0, done.stdout
    assert not note.parent.exists()  # which teardown has removed
    subprocess.run(
        [sys.executable, "-c", alone], env=os.environ | {"PYTHONPATH": python}, check=True
    )
