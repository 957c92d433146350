"""The start of a block: ansible-playbook itself is kept off the measured CPUs."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Keep the ansible-playbook that runs this, and what it starts from now on, to `cpus`.

    Only where it runs on `bench`, the bench host's own name. Returns ``here``, whether it does, and
    ``bench``, ``cpus`` and ``instance``: whoever started it may have to move, too.
    """

    _requires_connection = False
    _VALID_ARGS = frozenset({"bench", "cpus", "instance"})

    def run(self, tmp: str | None = None, task_vars: Any = None) -> dict[str, Any]:
        """Move the parent of this worker, every thread of it."""
        super().run(tmp, task_vars)
        here = os.uname().nodename == self._task.args["bench"]
        if here:
            words = ["--all-tasks", "--cpu-list", "--pid", self._task.args["cpus"]]
            done = subprocess.run(
                ["taskset", *words, str(os.getppid())], check=False, capture_output=True, text=True
            )
            if done.returncode:
                raise AnsibleActionFail(f"block_started: {done.stderr.strip()}")
        return {"changed": False, "here": here, **self._task.args}
