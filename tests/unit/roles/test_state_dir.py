"""Teardown removes only what is virtbed's: another directory is refused before anything is done."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import REPOSITORY


def check(folder: Path, state_dir: str) -> subprocess.CompletedProcess[str]:
    tasks = str(REPOSITORY / "playbooks/tasks/check_state_dir.yml")
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars": {"virtbed_state_dir": state_dir, "ansible_python_interpreter": sys.executable},
        "tasks": [{"name": "Check", "ansible.builtin.include_tasks": tasks}],
    }
    (folder / "play.yml").write_text(json.dumps([play]))
    ansible = Path(sys.executable).with_name("ansible-playbook")
    return subprocess.run(
        [ansible, "-i", "localhost,", folder / "play.yml"],
        cwd=REPOSITORY, check=False, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    "entry", [None, "images/", "instances/", "host.json", "machine_guest.json"]
)
def test_a_directory_of_its_own_is_taken(tmp_path: Path, entry: str | None) -> None:
    state = tmp_path / "state"
    if entry:
        state.mkdir()
        (state / entry).mkdir() if entry.endswith("/") else (state / entry).touch()
    done = check(tmp_path, str(state))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("entry", [".git", "thesis.odt", "imagesfolder"])
def test_a_directory_that_has_anything_else_is_refused(tmp_path: Path, entry: str) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / entry).touch()
    done = check(tmp_path, str(state))
    printed = " ".join(done.stdout.split())
    assert done.returncode == 2
    assert f"with {entry} in it" in printed and "set virtbed_state_dir in the inventory" in printed


@pytest.mark.parametrize("name", ["/", "/srv-none", "/var/lib/../virtbed-none", "relative/virtbed"])
def test_a_name_that_could_mean_a_whole_host_is_refused(tmp_path: Path, name: str) -> None:
    done = check(tmp_path, name)
    printed = " ".join(done.stdout.split())
    assert done.returncode == 2 and "an absolute path of two or more names needed" in printed
