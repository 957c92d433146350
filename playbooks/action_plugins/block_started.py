"""The start of a block: its documents are validated, and Ansible leaves the measured CPUs."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from virtbed_contract import limits
from virtbed_contract.codec import DocumentError, decode, encode
from virtbed_contract.documents import Instance, TrialRequest
from virtbed_contract.kernel import snapshots
from virtbed_contract.limits import DiskFree


def is_this_machine(name: str, boot: str) -> bool:
    """Return whether a host of this name and boot id is the controller's own.

    Two hosts may have one name.
    """
    return name == os.uname().nodename and boot == snapshots.BOOT.read_text().strip()


class ActionModule(ActionBase):
    """Validate a block's documents, and keep ansible-playbook to its housekeeping CPUs.

    Once for all roles: their argument specs do not repeat the fields, and Ansible's validation
    knows no number that may be null. Only where it runs on the bench host, whose own name `bench`
    is, does the ansible-playbook that runs this move, and what it starts from now on.

    Arguments: ``bench``, ``instance`` and ``trials``; with a ``claim`` the host is held for
    ``claim_s`` seconds more, see `virtbed.host_lock`; ``disks`` are pairs of a kind of room and its
    folder, see `virtbed_contract.limits`. Returns `virtbed_contract.events.BlockStart`: whoever
    started ansible-playbook may have to move, too, or may end it for want of room.
    """

    _VALID_ARGS = frozenset({"bench", "instance", "trials", "claim", "claim_s", "disks", "folder"})

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
        boot, disks = self._ask([(kind, path) for kind, path in asked.get("disks", ())])
        here = is_this_machine(asked["bench"], boot)
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
            "disks": encode(disks),
        }

    def _ask(self, rooms: list[tuple[str, str]]) -> tuple[str, tuple[DiskFree, ...]]:
        """Hold the host for as long as the block may take; return its boot id, and its disks."""
        from virtbed import host_lock

        asked, paths = self._task.args, [path for _, path in rooms]
        claim, seconds = str(asked.get("claim") or ""), int(asked.get("claim_s") or 0)
        folder = asked.get("folder", host_lock.FOLDER)  # another only in tests
        try:
            answers = host_lock.begin(
                self._low_level_execute_command, claim, seconds, paths, folder
            )
        except host_lock.HostLockError as error:
            raise AnsibleActionFail(f"block_started: {error}") from error
        return answers[0], limits.parse(answers, rooms)
