"""One trial: its process is run, and its result fetched as a file."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path, PurePosixPath
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Run a trial's process by the module trial_process, and fetch the document that it kept.

    Arguments: ``id`` of the trial, ``argv`` and ``timeout_s`` of its process, and ``incoming``, the
    controller's folder for results. Returns what the module does; ``result`` is the fetched file.
    """

    _VALID_ARGS = frozenset({"id", "argv", "timeout_s", "incoming"})

    def run(self, tmp: str | None = None, task_vars: Any = None) -> dict[str, Any]:
        """Run, fetch, verify; whatever happens, leave nothing on the managed host."""
        super().run(tmp, task_vars)
        asked = self._task.args
        self._make_tmp_path()
        folder = self._connection._shell.tmpdir
        try:
            done: dict[str, Any] = self._execute_module(
                module_name="trial_process",
                module_args={
                    "argv": asked["argv"],
                    "timeout_s": asked["timeout_s"],
                    "result": self._connection._shell.join_path(folder, "result.json"),
                },
                task_vars=task_vars,
            )
            if not done.get("failed"):
                done["result"] = self._fetched(
                    done["result"], Path(asked["incoming"], f"{asked['id']}.json")
                )
        finally:
            self._remove_tmp_path(folder)
        done.pop("invocation", None)
        return done

    def _fetched(self, remote: dict[str, Any], local: Path) -> dict[str, Any]:
        """Fetch a file; return where it lies now, with ``size`` and ``sha256`` as it was made."""
        if self._connection.become:
            # What a module made as root, whoever connects must be able to read.
            self._low_level_execute_command(
                shlex.join(
                    ["chown", f"--reference={PurePosixPath(remote['path']).parent}", remote["path"]]
                )
            )
        self._connection.fetch_file(remote["path"], str(local))
        content = local.read_bytes()
        found = (len(content), hashlib.sha256(content).hexdigest())
        if found != (remote["size"], remote["sha256"]):
            raise AnsibleActionFail(
                f"trial_run: {local}: {found[0]} bytes with SHA-256 {found[1][:12]} arrived, "
                f"{remote['size']} with {remote['sha256'][:12]} needed as {remote['path']} had; "
                "the connection or the controller's disk loses data"
            )
        return {**remote, "path": str(local)}
