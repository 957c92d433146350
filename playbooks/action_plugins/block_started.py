"""The start of a block: its documents are validated, and Ansible leaves the measured CPUs."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from virtbed_contract.codec import DocumentError, decode
from virtbed_contract.documents import Instance, TrialRequest
from virtbed_contract.kernel import snapshots


class ActionModule(ActionBase):
    """Validate a block's documents, and keep ansible-playbook to its housekeeping CPUs.

    Once for all roles: their argument specs do not repeat the fields, and Ansible's validation
    knows no number that may be null. Only where it runs on the bench host, whose own name `bench`
    is, does the ansible-playbook that runs this move, and what it starts from now on.

    Arguments: ``bench``, ``instance`` and ``trials``. Returns `virtbed_contract.events.BlockStart`:
    whoever started ansible-playbook may have to move, too.
    """

    _VALID_ARGS = frozenset({"bench", "instance", "trials"})

    def run(self, tmp: str | None = None, task_vars: Any = None) -> dict[str, Any]:
        """Move the parent of this worker, every thread of it."""
        super().run(tmp, task_vars)
        asked = self._task.args
        try:
            instance = decode(Instance, asked["instance"], "virtbed_instance")
            for number, trial in enumerate(asked["trials"]):
                decode(TrialRequest, trial, f"virtbed_trials[{number}]")
        except DocumentError as error:
            raise AnsibleActionFail(f"block_started: {error}") from error
        here = os.uname().nodename == asked["bench"] and self._same_kernel()
        if here:
            words = ["--all-tasks", "--cpu-list", "--pid", instance.housekeeping]
            done = subprocess.run(
                ["taskset", *words, str(os.getppid())], check=False, capture_output=True, text=True
            )
            if done.returncode:
                raise AnsibleActionFail(f"block_started: {done.stderr.strip()}")
        return {
            "changed": False,
            "instance": instance.id,
            "bench": asked["bench"],
            "cpus": instance.housekeeping,
            "here": here,
        }

    def _same_kernel(self) -> bool:
        """Return whether the bench host's kernel is this one's: two hosts may have one name."""
        answer = self._low_level_execute_command(f"cat {snapshots.BOOT}", sudoable=False)
        return bool(answer["stdout"].strip() == snapshots.BOOT.read_text().strip())
