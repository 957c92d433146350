"""ansible-playbook itself is moved, by a real one: what it starts afterwards inherits its CPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from virtbed.image import REPOSITORY

LOOK = "import os; print(sorted(os.sched_getaffinity(0)))"


@pytest.mark.parametrize("bench", [os.uname().nodename, "elsewhere"])
def test_what_ansible_starts_is_kept_off_the_measured_cpus(tmp_path: Path, bench: str) -> None:
    allowed = sorted(os.sched_getaffinity(0))
    keep = {"bench": bench, "cpus": str(allowed[0]), "instance": "bm-pinned-c01-r01"}
    look = {"argv": ["/usr/bin/python3", "-c", LOOK]}
    tell = {"content": "{{ seen.stdout }}", "dest": str(tmp_path / "seen"), "mode": "0644"}
    tasks = [
        {"name": "Move", "block_started": keep},
        {"name": "Look", "ansible.builtin.command": look, "register": "seen"},
        {"name": "Tell", "ansible.builtin.copy": tell},
    ]
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    plugins = {"ANSIBLE_ACTION_PLUGINS": str(REPOSITORY / "playbooks/action_plugins")}
    tool = Path(sys.executable).with_name("ansible-playbook")
    subprocess.run(
        [tool, tmp_path / "play.yml"],
        cwd=REPOSITORY,
        env=os.environ | plugins,
        check=True,
        capture_output=True,
    )
    here = bench == os.uname().nodename
    assert json.loads((tmp_path / "seen").read_text()) == (allowed[:1] if here else allowed)
