"""`ansible-playbook sweep.yml` honours ansible-playbook's options, and measures no other host."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from virtbed.checkout import REPOSITORY

from .conftest import NOTHING, run, traces

HERE = {"localhost": {"ansible_connection": "local"}}
SET = {"virtbed_state_dir": "/var/lib/virtbed"}


def write(path: Path, groups: dict[str, Any]) -> str:
    path.write_text(json.dumps({name: {"hosts": hosts} for name, hosts in groups.items()}))
    return str(path)


@pytest.mark.parametrize(
    ("groups", "options", "message"),
    [
        ({"bench": {"nosuch.invalid": {"virtbed_state_dir": "/nosuch"}}}, [], r"nosuch\.invalid"),
        ({"bench": {"a": {}, **HERE}}, ["--limit", "nosuch"], "no hosts to target"),
        ({"bench": HERE, "other": {"c": {}}}, ["--limit", "c"], "no hosts .*found"),
        ({"other": HERE}, [], "no hosts found in the group bench"),
        ({"bench": HERE}, [], "no virtbed_state_dir found for localhost, a path needed"),
        (
            {"bench": dict.fromkeys(("one", "two"), SET | HERE["localhost"])},
            [],
            r"no host can carry .* out\. one .*: it is this machine.*two .*: it is this",
        ),
    ],
)
def test_an_inventory_without_a_measurable_host_fails_before_any_trial(
    write_plan: Any, tmp_path: Path, groups: dict[str, Any], options: list[str], message: str
) -> None:
    plan, folder = write_plan("habits")
    inventory = write(tmp_path / "hosts.json", groups)
    own = ["-i", inventory, "-e", f"plan={plan}", *options]
    done = run("ansible-playbook", *own, "sweep.yml", ok=False)
    assert done.returncode != 0
    assert re.search(message, " ".join((done.stdout + done.stderr).split()))
    assert not folder.exists()
    assert traces() == NOTHING


def test_an_inventory_that_does_not_exist_fails(write_plan: Any) -> None:
    plan, folder = write_plan("nowhere")
    done = run("ansible-playbook", "-i", "/nosuch", "-e", f"plan={plan}", "sweep.yml", ok=False)
    assert done.returncode != 0
    assert "no inventory /nosuch found" in done.stdout
    assert not folder.exists()


def test_check_shows_the_plan_and_runs_nothing(write_plan: Any) -> None:
    plan, folder = write_plan("checked")
    done = run("ansible-playbook", "--check", "-e", f"plan={plan}", "sweep.yml")
    assert "test-checked: 1 trial," in done.stdout and "image_classification" in done.stdout
    assert "changed=0" in done.stdout
    assert not folder.exists()


def test_limit_restricts_the_sweep_to_one_host_of_several(write_plan: Any, tmp_path: Path) -> None:
    plan, folder = write_plan("limited", platforms={"bm": ["pinned"], "cn": ["pinned"]})
    variables = REPOSITORY / "inventory" / "local"
    inventory = write(tmp_path / "hosts.json", {"bench": {"nosuch.invalid": {}}})
    own = ["-i", inventory, "-i", str(variables), "--limit", "localhost", "-e", f"plan={plan}"]
    run("ansible-playbook", *own, "sweep.yml")
    assert len(list(folder.glob("trials/*/result.json"))) == 2
    assert traces() == NOTHING
