"""An instance's clock: when it was asked for, what it said, when the answer arrived."""

from __future__ import annotations

from time import monotonic_ns
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Return ``clock``: the controller's time before and after, the instance's in between, in ns.

    /proc/uptime is in hundredths of a second, and costs less than starting an interpreter.
    """

    _VALID_ARGS = frozenset()

    def run(self, tmp: str | None = None, task_vars: Any = None) -> dict[str, Any]:
        """Ask once."""
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
