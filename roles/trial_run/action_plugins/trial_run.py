"""Action for one trial: run its process, and fetch its result as a file."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path, PurePosixPath
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Run a trial's process by the module trial_process, and fetch the document that it wrote.

    Arguments:

        id: Id of the trial.
        argv, timeout_s: As for trial_process.
        incoming: Folder on the controller for the result.

    Returns the module's result, in which ``result`` is the fetched file.
    """

    _VALID_ARGS = frozenset({"id", "argv", "timeout_s", "incoming"})

    def run(self, tmp: str | None = None, task_vars: Any = None) -> dict[str, Any]:
        """Run the process, fetch and verify its result, and leave nothing on the managed host."""
        super().run(tmp, task_vars)
        arguments = self._task.args
        self._make_tmp_path()
        folder = self._connection._shell.tmpdir
        try:
            done: dict[str, Any] = self._execute_module(
                module_name="trial_process",
                module_args={
                    "argv": arguments["argv"],
                    "timeout_s": arguments["timeout_s"],
                    "result": self._connection._shell.join_path(folder, "result.json"),
                },
                task_vars=task_vars,
            )
            if not done.get("failed"):
                done["result"] = self._fetched(
                    done["result"], Path(arguments["incoming"], f"{arguments['id']}.json")
                )
        finally:
            self._remove_tmp_path(folder)
        done.pop("invocation", None)
        return done

    def _fetched(self, remote: dict[str, Any], local: Path) -> dict[str, Any]:
        """Fetch a file; return its local path, with the ``size`` and ``sha256`` of the original."""
        if self._connection.become:
            # The module made the file as root, and the login user must be able to read it.
            self._low_level_execute_command(
                shlex.join(
                    ["chown", f"--reference={PurePosixPath(remote['path']).parent}", remote["path"]]
                )
            )
        self._connection.fetch_file(remote["path"], str(local))
        content = local.read_bytes()
        arrived = (len(content), hashlib.sha256(content).hexdigest())
        if arrived != (remote["size"], remote["sha256"]):
            raise AnsibleActionFail(
                f"trial_run: {local}: {arrived[0]} bytes with SHA-256 {arrived[1][:12]} arrived, "
                f"{remote['size']} with {remote['sha256'][:12]} needed, as {remote['path']} has; "
                "the connection or the controller's disk loses data"
            )
        return {**remote, "path": str(local)}
