"""Tasks of bare metal by instance: only instances sized by hotplug have hotplug's tasks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from virtbed.checkout import REPOSITORY

LEAVE, BACK = (
    "Take all but the instance's CPUs offline",
    "Bring every CPU online, and restore cpusets and interrupts",
)


def run(folder: Path, playbook: list[Any], *options: str) -> str:
    (folder / "play.yml").write_text(json.dumps(playbook))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), folder / "play.yml", *options],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(("limit", "imported"), [("none", True), ("set", False), ("quota", False)])
def test_hotplug_is_imported_only_if_no_enclosure_limits_cpus(
    tmp_path: Path, limit: str, imported: bool
) -> None:
    """Imports the parts of a block as the controller does, each with its instance."""
    instance = {"id": "a", "own_kernel": False, "enclosure_limit": limit}
    parts = [REPOSITORY / f"playbooks/{name}.yml" for name in ("provision", "release")]
    other = {**instance, "enclosure_limit": "set" if imported else "none"}  # the block before it
    turns = [
        {"import_playbook": str(part), "vars": {"virtbed_instance": of}}
        for of in (other, instance)
        for part in parts
    ]
    listed = run(tmp_path, turns, "--list-tasks")
    turn = "".join(listed.partition("play #5 ")[1:])
    assert (LEAVE in turn, BACK in turn) == (imported, imported)
    assert listed.count(LEAVE) == listed.count(BACK) == 1


@pytest.mark.parametrize("known", [{}, {"virtbed_instance": {"id": ".*"}}])
def test_a_release_of_every_instance_brings_the_cpus_online(
    tmp_path: Path, known: dict[str, Any]
) -> None:
    """Clearing and restoring a host do this. There is no snapshot here, so no CPU changes."""
    task = {
        "ansible.builtin.include_role": {"name": "{{ name }}", "tasks_from": "release"},
        "loop": ["machine_metal"],
        "loop_control": {"loop_var": "name"},
    }
    play = {
        "hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [task],
        "vars": {**known, "virtbed_state_dir": str(tmp_path)},
    }  # fmt: skip
    printed = run(tmp_path, [play])
    assert f"TASK [machine_metal : {BACK}]" in printed
    assert "ok=2 " in printed and "skipped=0" in printed
