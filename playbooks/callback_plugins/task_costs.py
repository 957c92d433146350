"""Less of what each task costs: plugins are loaded once, and a task's end is looked for in time."""

from __future__ import annotations

from typing import Any

from ansible import constants
from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import filter_loader, lookup_loader, test_loader

DOCUMENTATION = """
name: task_costs
type: aggregate
short_description: Lower the time per task, and the CPU share while a trial measures
description:
  - ansible-playbook forks a worker per task. What is loaded before, no worker loads again.
  - It wakes up at each C(internal_poll_interval) while a task runs. Often enough for the forty
    tasks of a trial, that would take some per cent of a CPU from what is measured.
"""

# Seconds. On average a trial's end is noticed half of this late.
WHILE_MEASURING_S = 0.02
# The second one waits for `virtbed sweep`, whose own playbooks run the first.
MEASURING = frozenset({"trial_run", "virtbed_sweep"})


class CallbackModule(CallbackBase):  # type: ignore[misc]  # ansible-core ships no type information
    """Load plugins at the start of a playbook, and set the interval at the start of each task."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "task_costs"

    def __init__(self) -> None:
        super().__init__()
        self._otherwise_s = constants.DEFAULT_INTERNAL_POLL_INTERVAL

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Load every filter and test, which imports the contract, too, and the lookup `vars`."""
        for loader in filter_loader, test_loader:
            list(loader.all())
        lookup_loader.get("vars", class_only=True)

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Set the interval before the task is given to a worker."""
        constants.DEFAULT_INTERNAL_POLL_INTERVAL = (
            WHILE_MEASURING_S if task.action in MEASURING else self._otherwise_s
        )
