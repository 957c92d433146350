"""Action plugin: read the resources and rights of a process (CPUs, memory nodes, limits, ...).

It needs no Python interpreter on the managed host.
"""

from __future__ import annotations

import shlex
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from virtbed_contract.kernel import readings
from virtbed_contract.kernel.printed import Place


class ActionModule(ActionBase):
    """Return ``reading``: the resources and rights of a process, from /proc, cgroups and /sys.

    sh prints the files on the managed host, and this plugin parses them. Arguments, one of:

        argv: An argv prefix, such as an enclosure's. The process that is read is one that it
            starts; see `readings.process`.
        container: The result of `container_started`: ``container`` (its name), ``pid`` and
            ``started`` of its first process, and more. The process that is read is that one; see
            `readings.enclosed`. All fields become part of the reading.
    """

    _VALID_ARGS = frozenset({"argv", "container"})

    def run(self, tmp: str | None = None, task_vars: Any = None) -> dict[str, Any]:
        """Read by one command on the host."""
        super().run(tmp, task_vars)
        container = self._task.args.get("container")
        argv, pid = self._task.args.get("argv", ()), container["pid"] if container else "self"
        command = shlex.join([*argv, "sh", "-c", readings.SCRIPT, "sh", "", str(pid)])
        answer = self._low_level_execute_command(command)
        if answer["rc"] != 0:
            printed = (answer["stderr"] or answer["stdout"]).strip()
            raise AnsibleActionFail(f"process_reading: exit status {answer['rc']}: {printed}")
        root = readings.unpack(answer["stdout"])
        reading = _of(container, root) if container else readings.process(root)
        return {"changed": False, "reading": reading}


def _of(container: dict[str, Any], root: Place) -> dict[str, Any]:
    """Return the reading of a container's first process, which must still be the same one."""
    reading = readings.enclosed(root, container["pid"])
    if reading is None or reading["started"] != container["started"]:
        raise AnsibleActionFail(
            f"process_reading: process {container['pid']} of {container['container']} has ended; "
            "something stopped or restarted the container that the trial needs"
        )
    return container | reading
