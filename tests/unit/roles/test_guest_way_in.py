"""How a guest on a remote bench host is reached: as the inventory says that the host is reached."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import REPOSITORY

FAKE = '#!/bin/sh\nfor word in "$@"; do echo "$word"; done > "$TOLD"\n'


def arguments(folder: Path, host: dict[str, Any]) -> list[str]:
    """The arguments of ssh to a guest of a host with these variables, as Ansible parts them."""
    keep = {"name": "Keep", "ansible.builtin.set_fact": {"kept": "{{ __machine_guest_ssh_args }}"}}
    tell = {
        "name": "Tell",
        "ansible.builtin.copy": {
            "content": "{{ kept }}",
            "dest": str(folder / "told"),
            "mode": "0644",
        },
        "delegate_to": "localhost",
        "connection": "local",
    }
    files = [str(REPOSITORY / "roles/machine_guest/vars/main.yml")]
    play = {"hosts": "bench", "gather_facts": False, "vars_files": files, "tasks": [keep, tell]}
    (folder / "play.yml").write_text(json.dumps([play]))
    group = {"hosts": {"bench01": host}, "vars": {"virtbed_run_dir": "/run/virtbed/demo"}}
    (folder / "hosts.yml").write_text(json.dumps({"bench": group}))
    ansible = Path(sys.executable).with_name("ansible-playbook")
    done = subprocess.run(
        [ansible, "-i", folder / "hosts.yml", folder / "play.yml"],
        cwd=REPOSITORY, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return shlex.split((folder / "told").read_text())


def way_in(folder: Path, host: dict[str, Any]) -> list[str]:
    """The arguments that ssh gets on the way in, from a shell, as ssh starts its ProxyCommand."""
    (command,) = (a for a in arguments(folder, host) if a.startswith("ProxyCommand="))
    said = command.partition("=")[2]
    for sign, value in (("%h", "127.0.0.1"), ("%p", "22022"), ("%%", "%")):
        said = said.replace(sign, value)
    (folder / "ssh").write_text(FAKE)
    (folder / "ssh").chmod(0o755)
    told = folder / "words"
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "TOLD": str(told)}
    subprocess.run(["sh", "-c", f"exec {said}"], check=True, env=environment)
    return told.read_text().splitlines()


def test_port_key_user_and_options_of_the_host_are_kept(tmp_path: Path) -> None:
    host = {
        "ansible_host": "192.0.2.7",
        "ansible_port": 2222,
        "ansible_user": "operator",
        "ansible_become": True,
        "ansible_ssh_private_key_file": "/keys/my key",
        "ansible_ssh_common_args": "-F '/lab/a folder/ssh_config'",
    }
    words = way_in(tmp_path, host)
    assert words[:2] == ["-W", "127.0.0.1:22022"]
    assert words[2:4] == ["-F", "/lab/a folder/ssh_config"]
    assert words[words.index("-i") + 1] == "/keys/my key"
    assert words[words.index("-p") + 1] == "2222"
    assert words[words.index("-l") + 1] == "operator"
    assert words[-1] == "192.0.2.7"


@pytest.mark.parametrize("host", [{}, {"ansible_host": "bench01.example.org"}])
def test_what_the_inventory_leaves_open_stays_ssh_s_own_choice(
    tmp_path: Path, host: dict[str, Any]
) -> None:
    assert way_in(tmp_path, host) == [
        "-W", "127.0.0.1:22022", "-o", "BatchMode=yes", host.get("ansible_host", "bench01"),
    ]  # fmt: skip


def test_a_guest_of_this_machine_needs_no_way_in(tmp_path: Path) -> None:
    found = arguments(tmp_path, {"ansible_connection": "local"})
    assert not any("Proxy" in word for word in found)
