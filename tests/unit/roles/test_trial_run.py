"""The action trial_run fetches a result as the login user, though the module ran as root."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from .conftest import REPOSITORY

CONTENT = b"{}"


def plugin() -> ModuleType:
    path = REPOSITORY / "roles/trial_run/action_plugins/trial_run.py"
    spec = importlib.util.spec_from_file_location("trial_run_action", path)
    assert spec and spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


class Remote:
    """A host where a file made as root is unreadable until its owner is changed."""

    def __init__(self, become: object) -> None:
        self.become = become
        self.readable = become is None
        self.commands: list[str] = []

    def run(self, command: str) -> dict[str, Any]:
        self.commands.append(command)
        self.readable = True
        return {"rc": 0}

    def fetch_file(self, _: str, local: str) -> None:
        if not self.readable:
            raise PermissionError
        Path(local).write_bytes(CONTENT)


@pytest.mark.parametrize(
    ("become", "commands"),
    [(None, []), (object(), ["chown '--reference=/tmp/a b' '/tmp/a b/result.json'"])],
)
def test_a_result_made_as_root_gets_the_login_users_ownership(
    tmp_path: Path, become: object, commands: list[str]
) -> None:
    remote = Remote(become)
    action: Any = object.__new__(plugin().ActionModule)
    action._connection = remote
    action._low_level_execute_command = remote.run
    digest = hashlib.sha256(CONTENT).hexdigest()
    result = {"path": "/tmp/a b/result.json", "size": len(CONTENT), "sha256": digest}
    fetched = action._fetched(result, tmp_path / "result.json")
    assert Path(fetched["path"]).read_bytes() == CONTENT
    assert remote.commands == commands


def test_a_hanging_engine_does_not_hide_why_a_trial_failed() -> None:
    """Without a time limit, the playbook would be killed during the query, and fail for that."""
    (run,) = yaml.safe_load((REPOSITORY / "roles/trial_run/tasks/main.yml").read_text())
    (query,) = (task for task in run["rescue"] if "List the engine's" in task["name"])
    assert query["ansible.builtin.raw"].startswith("timeout ")
    assert query["failed_when"] is False
