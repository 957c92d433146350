"""The keys of a guest, made by the role's own tasks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from virtbed.checkout import REPOSITORY

SHM = Path("/dev/shm")
"""A tmpfs, as /run is on most hosts, with other attributes of files than a disk's."""


def keys(run: Path, state: Path) -> str:
    """Make them, and return what is said of the public ones."""
    tasks = yaml.safe_load((REPOSITORY / "roles/machine_guest/tasks/prepare.yml").read_text())
    made = [task for task in tasks if re.match("Make the .* key", task["name"])]
    assert len(made) == 2
    shared = yaml.safe_load((REPOSITORY / "roles/machine_guest/vars/main.yml").read_text())
    told = "{{ __machine_guest_user_key.stdout }} {{ __machine_guest_host_key.stdout }}"
    play: list[dict[str, Any]] = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "vars": {
                "virtbed_run_dir": str(run),
                "__machine_guest_keygen": shared["__machine_guest_keygen"],
                "machine_guest_dir": str(state),
            },
            "tasks": [
                *made,
                {"ansible.builtin.copy": {"content": told, "dest": str(state / "told")}},
            ],
        }
    ]
    (state / "play.yml").write_text(yaml.safe_dump(play))
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", "localhost,", "-c", "local",
         "-e", f"ansible_python_interpreter={sys.executable}", state / "play.yml"],
        cwd=REPOSITORY, env=os.environ | {"ANSIBLE_NOCOLOR": "1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return (state / "told").read_text()


def test_keys_are_made_once_on_whatever_file_system(tmp_path: Path) -> None:
    (tmp_path / "seed/etc/ssh").mkdir(parents=True)
    with TemporaryDirectory(dir=SHM) as run:
        first = keys(Path(run), tmp_path)
        assert first.count("ssh-ed25519 ") == 2
        assert (Path(run) / "id_ed25519").stat().st_mode & 0o777 == 0o600
        assert keys(Path(run), tmp_path) == first
