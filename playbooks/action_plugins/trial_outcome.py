"""Knows how a trial's outcome reaches the controller: as this task's result, and on no disk."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Return the arguments as ``outcome``; runs on the controller, whatever the host."""

    _requires_connection = False
    _VALID_ARGS = frozenset({"id", "started_at", "process", "evidence", "failure"})

    def run(self, tmp: str | None = None, task_vars: Any = None) -> dict[str, Any]:
        """Hand the task's arguments on."""
        super().run(tmp, task_vars)
        return {"changed": False, "outcome": {"failure": None, **self._task.args}}
