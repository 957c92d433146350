"""ansible-playbook itself is moved, by a real one: what it starts afterwards inherits its CPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from virtbed.checkout import REPOSITORY
from virtbed.design import design
from virtbed.plan import Plan
from virtbed_contract.codec import encode

from .conftest import PLATFORMS, report, small

LOOK = "import os; print(sorted(os.sched_getaffinity(0)))"


def played(folder: Path, *tasks: object) -> subprocess.CompletedProcess[str]:
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}
    (folder / "play.yml").write_text(json.dumps([play]))
    plugins = {"ANSIBLE_ACTION_PLUGINS": str(REPOSITORY / "playbooks/action_plugins")}
    tool = Path(sys.executable).with_name("ansible-playbook")
    return subprocess.run(
        [tool, folder / "play.yml"], cwd=REPOSITORY, env=os.environ | plugins, text=True,
        capture_output=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("bench", [os.uname().nodename, "elsewhere"])
def test_what_ansible_starts_is_kept_off_the_measured_cpus(
    tmp_path: Path, plan: Plan, bench: str
) -> None:
    allowed = sorted(os.sched_getaffinity(0))
    instance = encode(design(small(plan), report(2, host=bench), PLATFORMS).trials[0].instance)
    instance["housekeeping"] = str(allowed[0])
    keep = {"bench": bench, "instance": instance, "trials": []}
    look = {"argv": ["/usr/bin/python3", "-c", LOOK]}
    tell = {"content": "{{ seen.stdout }}", "dest": str(tmp_path / "seen"), "mode": "0644"}
    tasks = [
        {"name": "Move", "block_started": keep},
        {"name": "Look", "ansible.builtin.command": look, "register": "seen"},
        {"name": "Tell", "ansible.builtin.copy": tell},
    ]
    said = played(tmp_path, *tasks)
    assert said.returncode == 0, said.stdout
    here = bench == os.uname().nodename
    assert json.loads((tmp_path / "seen").read_text()) == (allowed[:1] if here else allowed)


def test_a_document_that_is_not_as_the_contract_says_starts_no_block(
    tmp_path: Path, plan: Plan
) -> None:
    instance = encode(design(small(plan), report(), PLATFORMS).trials[0].instance)
    instance["cores"] = 0
    asked = {"bench": "elsewhere", "instance": instance, "trials": []}
    said = played(tmp_path, {"name": "Move", "block_started": asked})
    assert said.returncode != 0
    assert "virtbed_instance.cores: 0 found, minimum 1 needed" in said.stdout
