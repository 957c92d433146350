"""Which CPUs of a machine are online, without starting an interpreter on it."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from virtbed_contract.kernel import topology


class ActionModule(ActionBase):
    """Return ``reading``: ``cpus_online``, a kernel list."""

    _VALID_ARGS = frozenset()

    def run(self, tmp: str | None = None, task_vars: Any = None) -> dict[str, Any]:
        """Read once."""
        super().run(tmp, task_vars)
        path = f"/{topology.CPUS}/online"
        answer = self._low_level_execute_command(f"cat {path}", sudoable=False)
        if answer["rc"] != 0:
            raise AnsibleActionFail(f"machine_reading: {path} cannot be read: {answer['stderr']}")
        return {"changed": False, "reading": {"cpus_online": answer["stdout"].strip()}}
