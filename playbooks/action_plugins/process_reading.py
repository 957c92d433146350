"""What a process may use, without starting an interpreter on the managed host."""

from __future__ import annotations

import shlex
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from virtbed_contract.kernel import readings
from virtbed_contract.kernel.printed import Place


class ActionModule(ActionBase):
    """Return ``reading``: what a process may use, by its /proc, its cgroups and /sys.

    The files are printed by sh on the managed host, and parsed here. Arguments, one of:

        argv: An argv prefix, such as an enclosure's; the process is one that it starts. See
            `readings.process`.
        container: What an engine reported of a container at its start: ``container`` (its name),
            ``pid`` and ``started`` of its first process, and more, all of which becomes part of the
            reading. See `readings.enclosed`.
    """

    _VALID_ARGS = frozenset({"argv", "container"})

    def run(self, tmp: str | None = None, task_vars: Any = None) -> dict[str, Any]:
        """Read once."""
        super().run(tmp, task_vars)
        container = self._task.args.get("container")
        argv, pid = self._task.args.get("argv", ()), container["pid"] if container else "self"
        command = shlex.join([*argv, "sh", "-c", readings.SCRIPT, "sh", "", str(pid)])
        answer = self._low_level_execute_command(command)
        if answer["rc"] != 0:
            said = (answer["stderr"] or answer["stdout"]).strip()
            raise AnsibleActionFail(f"process_reading: exit status {answer['rc']}: {said}")
        root = readings.unpack(answer["stdout"])
        reading = _of(container, root) if container else readings.process(root)
        return {"changed": False, "reading": reading}


def _of(container: dict[str, Any], root: Place) -> dict[str, Any]:
    found = readings.enclosed(root, container["pid"])
    if found is None or found["started"] != container["started"]:
        raise AnsibleActionFail(
            f"process_reading: process {container['pid']} of {container['container']} has ended; "
            "something stopped or restarted the container that the trial needs"
        )
    return container | found
