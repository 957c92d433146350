"""Reading of a machine's kernel and CPU topology, without a Python interpreter on it."""

from __future__ import annotations

import shlex
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from virtbed_contract.kernel import shape


class ActionModule(ActionBase):
    """Return ``reading``: ``kernel`` and ``shape``, see `virtbed_contract.kernel.shape`.

    Arguments:

        cpus: The CPUs, in the order in which the guest numbers them.
    """

    _VALID_ARGS = frozenset({"cpus"})

    def run(self, tmp: str | None = None, task_vars: Any = None) -> dict[str, Any]:
        """Read kernel and topology once."""
        super().run(tmp, task_vars)
        command = shlex.join(["sh", "-c", shape.SCRIPT])
        answer = self._low_level_execute_command(command, sudoable=False)
        if answer["rc"] != 0:
            raise AnsibleActionFail(f"shape_reading: {answer['stderr'] or answer['stdout']}")
        cpus = [int(cpu) for cpu in self._task.args["cpus"]]
        return {"changed": False, "reading": shape.parse(answer["stdout"], cpus)}
