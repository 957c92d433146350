"""Processes that must survive their playbook do not have the mark of its processes."""

from __future__ import annotations

import grp
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from virtbed import ansible
from virtbed.checkout import REPOSITORY
from virtbed_contract.privileges import OUTLIVES, USER

NOBODY = 65534


def read(path: str) -> Any:
    return yaml.safe_load((REPOSITORY / "roles" / path).read_text())


def play(folder: Path, variables: dict[str, Any], tasks: list[dict[str, Any]]) -> None:
    content = [
        {"hosts": "localhost", "gather_facts": False, "vars": variables, "tasks": tasks},
    ]
    (folder / "play.yml").write_text(yaml.safe_dump(content))
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", "localhost,", "-c", "local",
         "-e", f"ansible_python_interpreter={sys.executable}", folder / "play.yml"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
        env=os.environ | {
            "ANSIBLE_NOCOLOR": "1", ansible._MARK: "0",  # a sweep here would end those with 1
            "TMPDIR": str(folder),
            "ANSIBLE_FILTER_PLUGINS": str(REPOSITORY / "playbooks/filter_plugins"),
            "ANSIBLE_LOOKUP_PLUGINS": str(REPOSITORY / "playbooks/lookup_plugins"),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def environment(pid: int) -> set[bytes]:
    return set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))


def is_of_a_playbook(variables: set[bytes]) -> bool:
    """Return whether the variables include a playbook's mark or temporary folder."""
    names = (f"{ansible._MARK}=".encode(), b"TMPDIR=")
    return any(variable.startswith(names) for variable in variables)


@pytest.mark.skipif(os.geteuid() != 0, reason="root starts it, and gives it to another user")
def test_a_microvm_has_no_mark_of_its_playbook_and_a_user_of_its_own(
    tmp_path: Path,
) -> None:
    """A daemon that runs as the user nobody could otherwise read its keys and trace QEMU."""
    tasks = [
        task for task in read("machine_microvm/tasks/main.yml")
        if task["name"].startswith(("Make the dir", "Give QEMU", "Start QEMU"))
    ]  # fmt: skip
    assert len(tasks) == 3
    (tmp_path / "overlay").touch()
    (tmp_path / "seed").touch()
    group = os.getgid()
    variables = read("machine_microvm/vars/main.yml") | {
        "machine_guest_dir": str(tmp_path),
        "machine_guest_overlay": str(tmp_path / "overlay"),
        "machine_guest_seed": str(tmp_path / "seed"),
        "__machine_microvm_group": grp.getgrgid(group).gr_name,
        "__machine_microvm_emulator_cpus": ",".join(map(str, os.sched_getaffinity(0))),
        "__machine_microvm_qemu": "sleep",
        "__machine_microvm_arguments": ["60"],
    }
    play(tmp_path, variables, tasks)
    pid = int((tmp_path / "qemu.pid").read_text())
    try:
        deadline = time.monotonic() + 20  # it takes several exec calls to become that program
        while Path(f"/proc/{pid}/comm").read_text() != "sleep\n" and time.monotonic() < deadline:
            time.sleep(0.05)
        status = Path(f"/proc/{pid}/status").read_text()
        assert Path(f"/proc/{pid}/comm").read_text() == "sleep\n"
        fields = dict(line.split(":", 1) for line in status.splitlines())
        users = {*map(int, fields["Uid"].split())}
        assert len(users) == 1 and not users & {0, USER, NOBODY}
        assert {*map(int, fields["Gid"].split())} == {group} and not fields["Groups"].split()
        assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
        assert fields["NoNewPrivs"].strip() == "1"
        assert not is_of_a_playbook(environment(pid))
        for name in ("overlay", "seed"):
            entry = (tmp_path / name).stat()
            assert (entry.st_uid, entry.st_mode & 0o777) == (*users, 0o600)
    finally:
        os.kill(pid, 9)


def test_the_prefix_for_surviving_processes_removes_the_mark() -> None:
    ran = subprocess.run(
        [*OUTLIVES, "env", "-0"], capture_output=True, check=True,
        env=os.environ | {ansible._MARK: "0", "TMPDIR": "/x"},
    )  # fmt: skip
    assert not is_of_a_playbook({*ran.stdout.split(b"\0")})


@pytest.mark.parametrize("engine", ["podman", "gvisor"])
def test_a_container_started_by_the_playbook_survives_it(tmp_path: Path, engine: str) -> None:
    """Docker's containers need no prefix: the daemon starts them."""
    variables = read(f"enclosure_{engine}/vars/main.yml") | {
        "virtbed_instance": {
            "id": "x", "image_name": "x", "memory_mib": 1, "seen_cpus": "0", "cores": 1,
            "inner_cpus": "0", "inner_allowed": "0", "inner_mems": "0",
            "enclosure_limit": "none",
        },
        f"__enclosure_{engine}_listed": "systrap",
        "enclosure_gvisor_platform": "systrap",
        "__enclosure_gvisor_runsc": ["runsc"],
    }  # fmt: skip
    argv = "{{ " + f"__enclosure_{engine}_run" + " | to_json }}"
    copied = {"ansible.builtin.copy": {"content": argv, "dest": str(tmp_path / "run")}}
    play(tmp_path, variables, [copied])
    words = yaml.safe_load((tmp_path / "run").read_text())
    assert tuple(words[: len(OUTLIVES)]) == OUTLIVES
    assert {"podman", "runsc"} & {*words}
