"""The check that the state directory, which teardown removes, holds only virtbed's files."""

from __future__ import annotations

import json
import re
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


def entries_of_roles() -> set[str]:
    """Return the names directly below the state directory that the roles write or read."""
    name = re.compile(r"""virtbed_state_dir(?: }}| ~ ')/([^/"'{} ]+)""")
    files = (path for path in (REPOSITORY / "roles").rglob("*") if path.suffix in {".yml", ".j2"})
    return {found for path in files for found in name.findall(path.read_text())}


def test_a_state_directory_that_does_not_exist_yet_is_accepted(tmp_path: Path) -> None:
    done = check(tmp_path, str(tmp_path / "state"))
    assert done.returncode == 0, done.stdout


def test_everything_that_roles_and_killed_writers_leave_is_accepted(tmp_path: Path) -> None:
    entries = entries_of_roles()
    assert {"images", "instances", "kernels", "host.json", "tuning.json"} <= entries
    entries |= {".tuning.json.4711", ".ansible_tmp8hx_3k2ohost.json"}
    state = tmp_path / "state"
    state.mkdir()
    for entry in entries:
        (state / entry).touch() if ".json" in entry else (state / entry).mkdir()
    done = check(tmp_path, str(state))
    assert done.returncode == 0, done.stdout


def test_teardown_that_keeps_the_image_removes_every_other_folder() -> None:
    folders = {entry for entry in entries_of_roles() if ".json" not in entry}
    teardown = (REPOSITORY / "playbooks/teardown.yml").read_text()
    removed = re.findall(r'"{{ virtbed_state_dir }}/([a-z]+)"', teardown)
    assert set(removed) == folders - {"images"}


@pytest.mark.parametrize("entry", [".git", "thesis.odt", "imagesfolder", ".ansible_tmp"])
def test_a_state_directory_with_other_files_is_refused(tmp_path: Path, entry: str) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / entry).touch()
    done = check(tmp_path, str(state))
    printed = " ".join(done.stdout.split())
    assert done.returncode == 2
    assert f"with {entry} in it" in printed and "set virtbed_state_dir in the inventory" in printed


@pytest.mark.parametrize("name", ["/", "/srv-none", "/var/lib/../virtbed-none", "relative/virtbed"])
def test_a_path_that_is_relative_or_too_short_is_refused(tmp_path: Path, name: str) -> None:
    done = check(tmp_path, name)
    printed = " ".join(done.stdout.split())
    assert done.returncode == 2 and "an absolute path of two or more names needed" in printed
