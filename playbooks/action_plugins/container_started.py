"""A container, started by its engine's client, and what only the engine can tell of it."""

from __future__ import annotations

import json
import shlex
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from virtbed_contract.kernel import processes

# POSIX sh; $1 is the client, $2 the container, $3 a Go template of what else is asked of it. The
# command that starts the container follows. A container that has ended has the process 0.
_SCRIPT = """\
client=$1 name=$2 also=$3
shift 3
"$@" > /dev/null || exit
process=$("$client" container inspect --format "{{.State.Pid}} {{.Image}}$also" "$name") || exit
echo "$process"
set -- $process
"$client" image inspect --format "{{json .RootFS.Layers}}" "$2" || exit
[ "$1" = 0 ] || cat "/proc/$1/stat" 2> /dev/null || : # it has ended meanwhile
"""


class ActionModule(ActionBase):
    """Start a container, and return what the readings of it need.

    By the client: a module takes longer to start than a container does. Arguments:

        client: The engine's client, ``docker`` or one with the same commands.
        name: The container.
        command: The argv that makes and starts it, and ends then.
        also: What else to ask: fields of the engine's description of the container, by the names
            under which they are returned.

    Returns ``container``: ``container`` (its name), ``pid`` and ``started`` (clock ticks since
    boot) of its first process, ``layers`` (the digests of its image's layers), and what else was
    asked.
    """

    _VALID_ARGS = frozenset({"client", "name", "command", "also"})

    def run(self, tmp: str | None = None, task_vars: Any = None) -> dict[str, Any]:
        """Start it, and ask once."""
        super().run(tmp, task_vars)
        asked = self._task.args
        also = asked.get("also", {})
        template = "".join(f" {{{{.{field}}}}}" for field in also.values())
        command = ["sh", "-c", _SCRIPT, "sh", asked["client"], asked["name"], template]
        answer = self._low_level_execute_command(
            shlex.join([*command, *map(str, asked["command"])])
        )
        if answer["rc"] != 0:
            said = (answer["stderr"] or answer["stdout"]).strip()
            raise AnsibleActionFail(f"container_started: {asked['name']}: {said}")
        process, layers, *stat = answer["stdout"].splitlines()
        pid, _, *others = process.split()
        if not stat:
            raise AnsibleActionFail(
                f"container_started: {asked['name']} has ended already, a running one needed; "
                "something stopped or removed it"
            )
        return {
            "changed": True,
            "container": {
                "container": asked["name"],
                "pid": int(pid),
                "started": processes.Stat.parse(stat[0]).started,
                **dict(zip(also, others, strict=True)),
                "layers": json.loads(layers),
            },
        }
