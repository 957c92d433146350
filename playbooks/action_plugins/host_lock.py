"""The bench host itself is taken, looked at, or let go: several controllers may know it."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Fail if another controller measures the host; see `virtbed.host_lock`. Arguments:

        state: ``taken``, ``free`` (of others) or ``released``.
        claim: The claim of this controller; empty for whoever measures nothing.
        seconds: For how long it is taken.
        folder: Where the note lies on the host, if not in root's own folder.

    Without an interpreter on the host.
    """

    _VALID_ARGS = frozenset({"state", "claim", "seconds", "folder"})

    def run(self, tmp: str | None = None, task_vars: Any = None) -> dict[str, Any]:
        """Ask the host once or twice."""
        # Only here, as it takes longer to import than most tasks need.
        from virtbed import host_lock

        super().run(tmp, task_vars)
        asked = self._task.args
        claim, execute = str(asked.get("claim") or ""), self._low_level_execute_command
        folder = asked.get("folder", host_lock.FOLDER)
        try:
            if asked["state"] == "taken" and claim:
                host_lock.take(execute, claim, int(asked["seconds"]), folder)
            elif asked["state"] == "released":
                host_lock.free(execute, claim, folder)
            else:
                host_lock.check_free(execute, claim, folder)
        except host_lock.HostLockError as error:
            raise AnsibleActionFail(f"host_lock: {error}") from error
        return {"changed": False}
