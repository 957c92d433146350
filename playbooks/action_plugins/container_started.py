"""Action plugin: start a container, and return the facts that only its engine knows."""

from __future__ import annotations

import json
import shlex
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from virtbed_contract.kernel import processes

# POSIX sh; $1 is the client, $2 the container, $3 a Go template of the further fields. The rest is
# the command that starts the container. A container that has ended has the process 0.
#
# systemd sets the limits of a container's scope again at each daemon-reload, such as that of an
# upgrade of a package, and lifts those that it does not know: runc 1.1 passes no limit of 0 to it,
# so none of swap, and crun 1.8 none of memory and CPU time. A reload may have lifted them before
# they are set here, so they are those of the engine, not of the control group.
_SCRIPT = """\
client=$1 name=$2 also=$3
limits='{{.HostConfig.Memory}} {{.HostConfig.CpuQuota}} {{.HostConfig.CpuPeriod}}'
shift 3
"$@" > /dev/null || exit
process=$("$client" container inspect --format "{{.State.Pid}} {{.Image}}$also" "$name") || exit
echo "$process"
set -- $process
"$client" image inspect --format "{{json .RootFS.Layers}}" "$2" || exit
scope=$(sed -nE 's/^0::.*\\/((docker|libpod)-[0-9a-f]+[.]scope).*/\\1/p' "/proc/$1/cgroup")
if [ -n "$scope" ] && [ -r /sys/fs/cgroup/cgroup.controllers ]; then
    limits=$("$client" container inspect --format "$limits" "$name") || exit
    set -- "$1" $limits
    time="CPUQuota=$(($3 * 100 / ($4 + ($4 == 0))))% CPUQuotaPeriodSec=$4us"
    [ "$3" -gt 0 ] || time=
    systemctl set-property --runtime "$scope" "MemoryMax=$2" MemorySwapMax=0 $time ||
        [ ! -e "/proc/$1" ] || exit
fi
[ "$1" = 0 ] || cat "/proc/$1/stat" 2> /dev/null || : # it has ended meanwhile
"""


class ActionModule(ActionBase):
    """Start a container, and return the facts that its readings need.

    It runs one shell script with the engine's client, since a module takes longer to start than a
    container. Arguments:

        client: The engine's client, ``docker`` or one with the same commands.
        name: The container's name.
        command: The argv that creates and starts the container, and then ends.
        also: Further facts: field names in the engine's description of the container, by the keys
            under which they are returned.

    Returns ``container``: ``container`` (its name), ``pid`` and ``started`` (clock ticks since
    boot) of its first process, ``layers`` (the digests of its image's layers), and the keys of
    ``also``.
    """

    _VALID_ARGS = frozenset({"client", "name", "command", "also"})

    def run(self, tmp: str | None = None, task_vars: Any = None) -> dict[str, Any]:
        """Start the container and read the facts, in one connection to the host."""
        super().run(tmp, task_vars)
        args = self._task.args
        also = args.get("also", {})
        template = "".join(f" {{{{.{field}}}}}" for field in also.values())
        command = ["sh", "-c", _SCRIPT, "sh", args["client"], args["name"], template]
        answer = self._low_level_execute_command(shlex.join([*command, *map(str, args["command"])]))
        if answer["rc"] != 0:
            printed = (answer["stderr"] or answer["stdout"]).strip()
            raise AnsibleActionFail(f"container_started: {args['name']}: {printed}")
        process, layers, *stat = answer["stdout"].splitlines()
        pid, _, *others = process.split()
        if not stat:
            raise AnsibleActionFail(
                f"container_started: {args['name']} has ended already, a running one needed; "
                "something stopped or removed it"
            )
        return {
            "changed": True,
            "container": {
                "container": args["name"],
                "pid": int(pid),
                "started": processes.Stat.parse(stat[0]).started,
                **dict(zip(also, others, strict=True)),
                "layers": json.loads(layers),
            },
        }
