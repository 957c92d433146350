"""The module daemon_affinity, for the daemons of every role that platforms.yml names."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Run the module, unless this playbook has kept the daemons to the same CPUs already.

    Most instances of a sweep leave the same CPUs to the daemons, and each would pay for a module.
    """

    _VALID_ARGS = frozenset({"cpus", "snapshot"})

    def run(self, tmp: str | None = None, task_vars: Any = None) -> dict[str, Any]:
        """Run it, and note in the fact ``host_daemons_cpus`` where the daemons are kept."""
        super().run(tmp, task_vars)
        cpus = self._task.args.get("cpus", "")
        if cpus and task_vars["ansible_facts"].get("host_daemons_cpus") == cpus:
            return {"changed": False}
        from virtbed.platforms import load_platforms  # reads files: only if there is need

        roles = load_platforms().roles.values()
        daemons = sorted({daemon for role in roles for daemon in role.daemons})
        done: dict[str, Any] = self._execute_module(
            module_args={**self._task.args, "daemons": daemons}, task_vars=task_vars
        )
        if not done.get("failed"):
            done["ansible_facts"] = {"host_daemons_cpus": cpus}
        return done
