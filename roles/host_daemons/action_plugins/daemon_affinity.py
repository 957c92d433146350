"""The module daemon_affinity, for the daemons of every role that platforms.yml names."""

from __future__ import annotations

import shlex
from typing import Any

from ansible.plugins.action import ActionBase

_FACT = "host_daemons_names"  # looked up once per playbook
# The CPUs of every thread of the named processes; $1 is a regular expression of names.
_LOOK = """
for comm in $(grep -lxEs "$1" /proc/[0-9]*/comm); do
  grep -hs ^Cpus_allowed_list: "${comm%comm}"task/*/status
done | sort -u
"""


class ActionModule(ActionBase):
    """Run the module, unless every thread of the daemons is kept to the asked CPUs already.

    Most instances of a sweep leave the same CPUs to the daemons. Looking takes a tenth of a
    module's time, and each instance pays for it.
    """

    _VALID_ARGS = frozenset({"cpus", "snapshot"})

    def run(self, tmp: str | None = None, task_vars: Any = None) -> dict[str, Any]:
        """Look, and run it if there is need."""
        super().run(tmp, task_vars)
        cpus = self._task.args.get("cpus", "")
        known = task_vars["ansible_facts"].get(_FACT)
        daemons = known or _daemons()
        facts = {} if known else {"ansible_facts": {_FACT: daemons}}
        if cpus:
            look = ["sh", "-c", _LOOK, "sh", "|".join(daemons)]
            found = self._low_level_execute_command(shlex.join(look))["stdout"].splitlines()
            # Nothing found may also be a look that failed: then the module tells.
            if found and all(line.split()[1:] == [cpus] for line in found):
                return {"changed": False, **facts}
        done: dict[str, Any] = self._execute_module(
            module_args={**self._task.args, "daemons": daemons}, task_vars=task_vars
        )
        return {**done, **facts}


def _daemons() -> list[str]:
    # Imported here, as that takes longer than to look.
    from virtbed.platforms import load_platforms

    roles = load_platforms().roles.values()
    return sorted({daemon for role in roles for daemon in role.daemons})
