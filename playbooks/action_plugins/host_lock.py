"""Action plugin: claim a bench host for one controller, check its claim, or free it."""

from __future__ import annotations

import os
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Fail if another controller measures the host; see `virtbed.host_lock`.

    It needs no Python interpreter on the host. Arguments:

        state: ``taken`` (claim the host), ``free`` (check that no other controller has claimed it)
            or ``released`` (remove this controller's claim).
        claim: The claim of this controller; empty for a playbook that measures nothing.
        what: With ``taken``, what ansible-playbook itself is doing. It then also keeps sweeps of
            this controller from starting until it ends (`virtbed.bench.hold`).
        seconds: How long the claim is valid.
        folder: The folder of the claim on the host; by default that of root.

    Returns ``claim``, which ``released`` needs.
    """

    _VALID_ARGS = frozenset({"state", "claim", "what", "seconds", "folder"})

    def run(self, tmp: str | None = None, task_vars: Any = None) -> dict[str, Any]:
        """Read or write the claim, by one or two commands on the host."""
        # Imported here, since the import takes longer than most tasks.
        from virtbed import host_lock

        super().run(tmp, task_vars)
        args = self._task.args
        claim, execute = str(args.get("claim") or ""), self._low_level_execute_command
        folder = args.get("folder", host_lock.FOLDER)
        try:
            if args.get("what"):
                from virtbed import bench

                # This is a worker of ansible-playbook, which is its parent.
                claim = str(bench.hold(args["what"], os.getppid()))
            if args["state"] == "taken" and claim:
                host_lock.take(execute, claim, int(args["seconds"]), folder)
            elif args["state"] == "released":
                host_lock.free(execute, claim, folder)
            else:
                host_lock.check_free(execute, claim, folder)
        except RuntimeError as error:  # HostLockError, or BenchError of `hold`
            raise AnsibleActionFail(f"host_lock: {error}") from error
        return {"changed": False, "claim": claim}
