"""Action of the module daemon_affinity: for the daemons of every role in platforms.yml."""

from __future__ import annotations

import shlex
from typing import Any

from ansible.plugins.action import ActionBase

_FACT = "host_daemons_names"  # looked up once per playbook
# Prints the distinct CPU lists of all threads of the processes whose name matches $1.
_LOOK = """
for comm in $(grep -lxEs "$1" /proc/[0-9]*/comm); do
  grep -hs ^Cpus_allowed_list: "${comm%comm}"task/*/status
done | sort -u
"""


class ActionModule(ActionBase):
    """Run the module, unless every thread of the daemons has the requested affinity already.

    Most instances of a sweep leave the same CPUs to the daemons. The check takes a tenth of a
    module's time, and runs for each instance.
    """

    _VALID_ARGS = frozenset({"cpus", "snapshot"})

    def run(self, tmp: str | None = None, task_vars: Any = None) -> dict[str, Any]:
        """Read the affinity by a shell command, and run the module if it differs."""
        super().run(tmp, task_vars)
        cpus = self._task.args.get("cpus", "")
        known = task_vars["ansible_facts"].get(_FACT)
        daemons = known or _daemons()
        facts = {} if known else {"ansible_facts": {_FACT: daemons}}
        if cpus:
            look = ["sh", "-c", _LOOK, "sh", "|".join(daemons)]
            lines = self._low_level_execute_command(shlex.join(look))["stdout"].splitlines()
            # No output may also mean that the command failed: then the module decides.
            if lines and all(line.split()[1:] == [cpus] for line in lines):
                return {"changed": False, **facts}
        done: dict[str, Any] = self._execute_module(
            module_args={**self._task.args, "daemons": daemons}, task_vars=task_vars
        )
        return {**done, **facts}


def _daemons() -> list[str]:
    # Imported only when needed, because the import takes longer than the check.
    from virtbed.platforms import load_platforms

    roles = load_platforms().roles.values()
    return sorted({daemon for role in roles for daemon in role.daemons})
