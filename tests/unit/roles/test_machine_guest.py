"""The keys and disks of a guest, made by the role's own tasks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from tests.unit.contract.kernel.test_shape import KERNEL, requested

from virtbed.checkout import REPOSITORY
from virtbed_contract.codec import encode

SHM = Path("/dev/shm")
"""A tmpfs, as /run is on most hosts, with other attributes of files than a disk's."""


def prepared(run: Path, state: Path, names: str, count: int, path: str = "") -> str:
    """Run the tasks whose names match, and return the guest's public keys."""
    tasks = yaml.safe_load((REPOSITORY / "roles/machine_guest/tasks/prepare.yml").read_text())
    made = [task for task in tasks if re.match(names, task["name"])]
    assert len(made) == count
    shared = yaml.safe_load((REPOSITORY / "roles/machine_guest/vars/main.yml").read_text())
    reported = "{{ __machine_guest_user_key.stdout }} {{ __machine_guest_host_key.stdout }}"
    play: list[dict[str, Any]] = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "vars": {
                "virtbed_run_dir": str(run),
                "__machine_guest_keygen": shared["__machine_guest_keygen"],
                "machine_guest_dir": str(state),
                "machine_guest_image": "/image",
                **{name: shared[name] for name in ("machine_guest_overlay", "machine_guest_seed")},
            },
            "tasks": [
                *made,
                {"ansible.builtin.copy": {"content": reported, "dest": str(state / "keys")}},
            ],
        }
    ]
    (state / "play.yml").write_text(yaml.safe_dump(play))
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", "localhost,", "-c", "local",
         "-e", f"ansible_python_interpreter={sys.executable}", state / "play.yml"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
        env=os.environ | {"ANSIBLE_NOCOLOR": "1", "PATH": f"{path}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return (state / "keys").read_text()


def test_keys_are_made_once_on_any_file_system(tmp_path: Path) -> None:
    (tmp_path / "seed/etc/ssh").mkdir(parents=True)
    with TemporaryDirectory(dir=SHM) as run:
        first = prepared(Path(run), tmp_path, "Make the .* key", 2)
        assert first.count("ssh-ed25519 ") == 2
        assert (Path(run) / "id_ed25519").stat().st_mode & 0o777 == 0o600
        assert prepared(Path(run), tmp_path, "Make the .* key", 2) == first


def test_only_root_can_read_a_guests_disks_and_keys(tmp_path: Path) -> None:
    """Other users of the host can guess their path."""
    run, state, programs = (tmp_path / name for name in ("run", "instance", "bin"))
    for folder in (run, state, programs):
        folder.mkdir()
    disk_image = programs / "qemu-img"
    disk_image.write_text('#!/bin/sh\nfor last; do :; done\necho disk > "$last"\n')
    disk_image.chmod(0o755)
    steps = "Make (the (instance's dir|.* key)|a fresh)|Authorize|Pack"
    before = os.umask(0o022)
    try:
        prepared(run, state, steps, 6, str(programs))
    finally:
        os.umask(before)
    modes = {str(path.relative_to(state)): path.stat().st_mode & 0o777 for path in state.rglob("*")}
    assert modes["overlay.qcow2"] == modes["seed.tar"] == 0o600
    assert modes["seed"] == 0o700  # so that other users cannot enter it
    assert modes["seed/etc/ssh/ssh_host_ed25519_key"] == 0o600
    assert state.stat().st_mode & 0o777 == 0o711


VERIFY = """\
- ansible.builtin.set_fact:
    machine_made_up_reading: {reading: {}}
    machine_guest_shape: {reading: "{{ said_by_guest }}"}
    machine_guest_host_shape: {reading: {}}
    machine_guest_clock: {}
- ansible.builtin.import_role: {name: machine_guest, tasks_from: attest}
"""


@pytest.mark.parametrize("release", ["6.1.0-1-amd64", "6.1.0-2-amd64"])
def test_a_guest_with_another_kernel_fails_the_attestation_of_its_trial(
    tmp_path: Path, release: str
) -> None:
    """trial_attest imports the machine's verify, which imports the attestation of the guest."""
    for name, tasks in (("machine_made_up", VERIFY), ("enclosure_made_up", "[]")):
        for file, text in (
            ("tasks/verify.yml", tasks),
            ("meta/main.yml", "dependencies: [{role: machine_guest}]\n"),
        ):
            path = tmp_path / "roles" / name / file
            path.parent.mkdir(parents=True)
            path.write_text(text)
    instance = requested(kernel=KERNEL, machine="made_up", enclosure="made_up")
    reading = {"kernel": {"release": release, "version": KERNEL.version}}
    known = {"virtbed_instance": encode(instance), "said_by_guest": reading,
             "enclosure_made_up_reading": {}}  # fmt: skip
    task = {"ansible.builtin.import_role": {"name": "trial_attest"}}
    play = {"hosts": "localhost", "gather_facts": False, "tasks": [task]}
    (tmp_path / "known.json").write_text(json.dumps(known))
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", "localhost,", "-c", "local",
         "-e", f"@{tmp_path / 'known.json'}", tmp_path / "play.yml"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
        env=os.environ | {"ANSIBLE_NOCOLOR": "1",
                          "ANSIBLE_ROLES_PATH": f"{tmp_path / 'roles'}:{REPOSITORY / 'roles'}",
                          "ANSIBLE_FILTER_PLUGINS": str(REPOSITORY / "playbooks/filter_plugins")},
    )  # fmt: skip
    alike = release == KERNEL.release
    assert (done.returncode == 0) == alike, done.stdout + done.stderr
    needed = "the host's, 6.1.0-1-amd64 #1 SMP Debian, is needed (guest_kernel host)"
    assert (f"machine_guest: the guest's kernel is {release}" in done.stdout) != alike, done.stdout
    assert (needed in " ".join(done.stdout.split())) != alike
