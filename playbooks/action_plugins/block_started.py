"""Action plugin: start a block, validate its documents, and move Ansible off the measured CPUs."""

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
    """Return whether a host with this name and boot id is the controller itself.

    The name alone is not enough, since two hosts may have the same one.
    """
    return name == os.uname().nodename and boot == snapshots.BOOT.read_text().strip()


class ActionModule(ActionBase):
    """Validate a block's documents, and bind ansible-playbook to the block's housekeeping CPUs.

    The validation is here, once for all roles, so that their argument specs need not repeat the
    fields; Ansible's own validation also has no type for a number that may be null. If the
    controller is the bench host itself, the ansible-playbook that runs this task is moved, and with
    it all that it starts from then on.

    Arguments:

        bench: The bench host's own name.
        instance: The block's `virtbed_contract.documents.Instance`.
        trials: Its trials, each a `virtbed_contract.documents.TrialRequest`.
        claim: The controller's claim on the host, which is renewed; see `virtbed.host_lock`.
        claim_s: For how long, in seconds.
        disks: Pairs of a disk's kind and a folder on it; see `virtbed_contract.limits`.
        folder: The folder of the claim, in tests only.

    Returns `virtbed_contract.events.BlockStart`, by which the process that started ansible-playbook
    may move, too, or end it if a disk is full; and `boot`, the id of the host's boot.
    """

    _VALID_ARGS = frozenset({"bench", "instance", "trials", "claim", "claim_s", "disks", "folder"})

    def run(self, tmp: str | None = None, task_vars: Any = None) -> dict[str, Any]:
        """Validate, renew the claim, and move all threads of this worker's parent process."""
        super().run(tmp, task_vars)
        args = self._task.args
        try:
            instance = decode(Instance, args["instance"], "virtbed_instance")
            for number, trial in enumerate(args["trials"]):
                decode(TrialRequest, trial, f"virtbed_trials[{number}]")
        except DocumentError as error:
            raise AnsibleActionFail(f"block_started: {error}") from error
        boot, disks = self._begin([(kind, path) for kind, path in args.get("disks", ())])
        is_here = is_this_machine(args["bench"], boot)
        if is_here:
            words = ["--all-tasks", "--cpu-list", "--pid", instance.housekeeping]
            done = subprocess.run(
                ["taskset", *words, str(os.getppid())], check=False, capture_output=True, text=True
            )
            if done.returncode:
                raise AnsibleActionFail(f"block_started: {done.stderr.strip()}")
        return {
            "changed": False,
            "instance": instance.id,
            "bench": args["bench"],
            "cpus": instance.housekeeping,
            "here": is_here,
            "disks": encode(disks),
            "boot": boot,
        }

    def _begin(self, rooms: list[tuple[str, str]]) -> tuple[str, tuple[DiskFree, ...]]:
        """Renew the claim for the time limit of the block; return the host's boot id and disks."""
        from virtbed import host_lock

        args, paths = self._task.args, [path for _, path in rooms]
        claim, seconds = str(args.get("claim") or ""), int(args.get("claim_s") or 0)
        folder = args.get("folder", host_lock.FOLDER)
        try:
            answers = host_lock.begin(
                self._low_level_execute_command, claim, seconds, paths, folder
            )
        except host_lock.HostLockError as error:
            raise AnsibleActionFail(f"block_started: {error}") from error
        return answers[0], limits.parse(answers, rooms)
