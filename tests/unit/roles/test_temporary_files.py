"""Ansible's temporary files of killed playbooks: removed, unless their process lives."""

from __future__ import annotations

import os
import re
import subprocess
from configparser import ConfigParser
from pathlib import Path

import yaml

from virtbed.checkout import REPOSITORY

GONE = 2**22 + 1  # beyond the largest process number


def test_files_of_ended_processes_are_removed(tmp_path: Path) -> None:
    tasks = yaml.safe_load((REPOSITORY / "playbooks/tasks/release_instances.yml").read_text())
    (script,) = (task["ansible.builtin.raw"] for task in tasks if "ansible.builtin.raw" in task)
    script = re.sub(r"\{\{.*?\}\}", str(tmp_path), script)
    here = os.getpid()
    theirs = {f"ansible-tmp-17.5-{here}-42", f"ansible-local-{here}ab_d123x", "ansible-cp", "x"}
    for name in {f"ansible-tmp-17.5-{GONE}-42", f"ansible-local-{GONE}ab_d123x"} | theirs:
        (tmp_path / name).mkdir()
    for _ in range(2):  # the second time there is nothing to do
        subprocess.run(["sh", "-euc", script], check=True)
        assert {path.name for path in tmp_path.iterdir()} == theirs
    for path in tmp_path.iterdir():
        path.rmdir()
    subprocess.run(["sh", "-euc", script], check=True)


def test_ansibles_temporary_files_are_in_virtbeds_own_folder() -> None:
    """Elsewhere they would be mixed with those of other projects."""
    settings = ConfigParser()
    settings.read(REPOSITORY / "ansible.cfg")
    folders = {settings["defaults"][name] for name in ("remote_tmp", "local_tmp")}
    assert folders == {"~/.ansible/virtbed"}
