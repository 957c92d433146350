"""Reading of an instance's clock, between two readings of the controller's."""

from __future__ import annotations

from time import monotonic_ns
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Return ``clock``: an instance's uptime, and the controller's clock before and after, in ns.

    ``asked_ns`` and ``answered_ns`` are the controller's monotonic clock, ``instance_ns`` the
    uptime. /proc/uptime has hundredths of a second, and is faster than starting an interpreter.
    """

    _VALID_ARGS = frozenset()

    def run(self, tmp: str | None = None, task_vars: Any = None) -> dict[str, Any]:
        """Read the clocks once."""
        super().run(tmp, task_vars)
        asked_ns = monotonic_ns()
        answer = self._low_level_execute_command("cat /proc/uptime", sudoable=False)
        answered_ns = monotonic_ns()
        if answer["rc"] != 0:
            raise AnsibleActionFail(
                f"clock_reading: /proc/uptime cannot be read: {answer['stderr']}"
            )
        return {
            "changed": False,
            "clock": {
                "asked_ns": asked_ns,
                "instance_ns": round(float(answer["stdout"].split()[0]) * 1e9),
                "answered_ns": answered_ns,
            },
        }
