"""What a process under an argv prefix may use, without starting an interpreter beside it."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from virtbed_contract.kernel import readings


class ActionModule(ActionBase):
    """Return ``reading``: what a process that `argv` starts may use, by its /proc and /sys.

    `argv` is an argv prefix, such as an enclosure's; [] reads the connection's own processes. The
    files are printed by sh on the managed host, and parsed here: see `readings.process`.
    """

    _VALID_ARGS = frozenset({"argv"})

    def run(self, tmp: str | None = None, task_vars: Any = None) -> dict[str, Any]:
        """Read once."""
        super().run(tmp, task_vars)
        command = shlex.join([*self._task.args["argv"], "sh", "-c", readings.SCRIPT])
        answer = self._low_level_execute_command(command)
        if answer["rc"] != 0:
            said = (answer["stderr"] or answer["stdout"]).strip()
            raise AnsibleActionFail(f"process_reading: exit status {answer['rc']}: {said}")
        with tempfile.TemporaryDirectory(prefix="virtbed-reading-") as folder:
            readings.unpack(answer["stdout"], Path(folder))
            return {"changed": False, "reading": readings.process(Path(folder))}
