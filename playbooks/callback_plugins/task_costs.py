"""Callback plugin that makes tasks faster: load plugins once, and poll often for a task's end."""

from __future__ import annotations

from typing import Any

from ansible import constants
from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import filter_loader, lookup_loader, test_loader

DOCUMENTATION = """
name: task_costs
type: aggregate
short_description: Lower the time per task, and leave a trial that measures alone
description:
  - ansible-playbook forks a worker per task. Plugins that it loads before the fork need not be
    loaded by each worker.
  - It wakes up at each C(internal_poll_interval) while a task runs. The long interval in
    ansible.cfg is for the measurement, and would delay each of a trial's forty other tasks.
"""

OFTEN_S = 0.001
MEASURES = "trial_run"


class CallbackModule(CallbackBase):  # type: ignore[misc]  # ansible-core ships no type information
    """Load plugins at the start of a playbook, and set the interval at the start of each task."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "task_costs"

    def __init__(self) -> None:
        super().__init__()
        self._seldom_s = constants.DEFAULT_INTERNAL_POLL_INTERVAL

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Load every filter and test, which also imports the contract, and the lookup `vars`."""
        for loader in filter_loader, test_loader:
            list(loader.all())
        lookup_loader.get("vars", class_only=True)

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Set the interval before the task is given to a worker."""
        constants.DEFAULT_INTERNAL_POLL_INTERVAL = (
            self._seldom_s if task.action == MEASURES else OFTEN_S
        )
