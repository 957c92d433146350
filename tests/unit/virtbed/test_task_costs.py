"""The interval at which Ansible polls for a task's end, in a playbook run as by a sweep."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import pytest
from ansible import constants

from virtbed.checkout import REPOSITORY

PLUGIN = REPOSITORY / "playbooks" / "callback_plugins" / "task_costs.py"


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The plugin, with the interval of ansible.cfg; afterwards Ansible's own is restored."""
    monkeypatch.setattr(constants, "DEFAULT_INTERNAL_POLL_INTERVAL", 0.02)
    spec = importlib.util.spec_from_file_location("task_costs", PLUGIN)
    assert spec and spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    yield loaded


def test_only_the_task_of_a_trial_has_the_configured_interval(
    plugin: ModuleType,
) -> None:
    callback = plugin.CallbackModule()
    found = []
    for action in ("ansible.builtin.raw", plugin.MEASURES, "trial_outcome"):
        callback.v2_playbook_on_task_start(SimpleNamespace(action=action), is_conditional=False)
        found.append(constants.DEFAULT_INTERNAL_POLL_INTERVAL)
    assert found == [plugin.OFTEN_S, 0.02, plugin.OFTEN_S]


def test_the_action_that_measures_exists(plugin: ModuleType) -> None:
    """Under another name it would be polled as often as all other tasks."""
    action = REPOSITORY / "roles" / "trial_run" / "action_plugins" / f"{plugin.MEASURES}.py"
    assert action.is_file()
    tasks = (REPOSITORY / "roles" / "trial_run" / "tasks" / "main.yml").read_text()
    assert f"\n      {plugin.MEASURES}:\n" in tasks
