"""Action plugin: read a machine's online CPUs, kernel settings and counters.

It needs no Python interpreter on the machine.
"""

from __future__ import annotations

import shlex
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from virtbed_contract.kernel import moments, topology
from virtbed_contract.kernel.cpus import parse_cpu_list


class ActionModule(ActionBase):
    """Return ``reading`` (``cpus_online``, a kernel list) and ``bench`` (see `moments.machine`).

    sh prints the files on the managed host, and this plugin parses them. Arguments:

        cpus: The CPUs whose interrupts are counted, a kernel list.
    """

    _VALID_ARGS = frozenset({"cpus"})

    def run(self, tmp: str | None = None, task_vars: Any = None) -> dict[str, Any]:
        """Read by one command on the host."""
        super().run(tmp, task_vars)
        cpus = parse_cpu_list(self._task.args["cpus"])
        command = shlex.join(["sh", "-c", moments.SCRIPT, "sh", ""])
        answer = self._low_level_execute_command(command)
        kernel = moments.machine(answer["stdout"], cpus)
        if answer["rc"] != 0 or not kernel["online"]:
            raise AnsibleActionFail(
                f"machine_reading: /{topology.CPUS}/online cannot be read: {answer['stderr']}"
            )
        reading = {"cpus_online": kernel["online"]}
        return {"changed": False, "reading": reading, "bench": kernel}
