"""Reader of the CPUs, memory and privileges of one process, from files alone.

`SCRIPT` prints the files of the process that runs it, or of another process; a shell is enough, so
no Python needs to start next to a measured process. `unpack` makes a tree of the output. `process`
and `enclosed` read that tree, or the live one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from operator import or_
from typing import Any, Optional

from . import cgroups, processes, topology
from .cpus import format_cpu_list, parse_cpu_list
from .files import read
from .printed import Place, Printed
from .processes import Pid

MARK = "==> "
"""Printed before the path of each file; GNU head also prints " <==" after it."""
MOST_BYTES = 2**26
"""Bytes of a file that are read; /proc/interrupts has 6 KB per line on 512 CPUs."""
_ROUTES = ("net/route", "net/ipv6_route")
_PLAIN = ("status", "stat", "cgroup", "attr/apparmor/current", "attr/current", *_ROUTES)
_HOST = ("proc/self/mountinfo", f"{topology.CPUS}/online", str(topology.CLOCKSOURCE))
_LIMITS = (
    *cgroups.QUOTA_FILES, *cgroups.BURST_FILES, *cgroups.CPUSET_FILES, *cgroups.MEMORY_FILES,
    *cgroups.SWAP_FILES, cgroups.PIDS_FILE,
)  # fmt: skip
_CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")

# POSIX sh with coreutils. Each process costs a millisecond, and more in an emulated guest, so one
# call of head prints most files, with their names. $1 is the root of the file system, empty on a
# live host; $2 is the id of the process, by default the script itself. For each mounted hierarchy
# that can limit CPUs, memory or processes, every cgroup from the process's own up to the mount
# point is printed, at least as a folder; the reader decides which of them apply. For another
# process, the network namespaces of it and of the script are printed, and the mount of its root.
SCRIPT = f"""\
pid=${{2:-self}}
(cd "$1/" && exec head -v -c {MOST_BYTES} \
  {" ".join(_HOST)} {" ".join(f"proc/$pid/{name}" for name in _PLAIN)}) 2>/dev/null
echo
if [ -r "$1/proc/$pid/numa_maps" ]; then
  echo "{MARK}/proc/$pid/numa_maps"; head -n 1 "$1/proc/$pid/numa_maps"
fi
for one in self "$pid"; do
  if [ "$pid" != self ] && link=$(readlink "$1/proc/$one/ns/net"); then
    echo "{MARK}/proc/$one/ns/net"; echo "$link"
  fi
done
if [ "$pid" != self ] && [ -r "$1/proc/$pid/mountinfo" ]; then
  echo "{MARK}/proc/$pid/mountinfo"
  grep -E '^([^ ]+ ){{4}}/ ' "$1/proc/$pid/mountinfo"
fi
[ ! -r "$1/proc/$pid/cgroup" ] ||
grep -E ' - cgroup(2 |.*[ ,](cpu|cpuset|memory|pids)(,|$))' "$1/proc/self/mountinfo" |
while read -r _ _ _ top point _; do
  while IFS=: read -r _ controllers path; do
    case ",$controllers," in ,, | *,cpu,* | *,cpuset,* | *,memory,* | *,pids,*) ;;
      *) continue ;;
    esac
    case "$path/" in "${{top%/}}/"*) path="${{path#"${{top%/}}"}}" ;; esac
    group="$point/${{path#/}}"
    [ -d "$1$group" ] || group="$point"
    group="${{group%/}}"
    while true; do
      case "$printed" in *":$group:"*) break ;; esac
      printed="$printed:$group:"
      echo "{MARK}$group/"
      for file in {" ".join(_LIMITS)}; do
        if [ -r "$1$group/$file" ] && read -r line < "$1$group/$file"; then
          echo "{MARK}$group/$file"; echo "$line"
        fi
      done
      if [ -r "$1$group/{cgroups.STAT_FILE}" ]; then
        echo "{MARK}$group/{cgroups.STAT_FILE}"; cat "$1$group/{cgroups.STAT_FILE}"
      fi
      [ "$group" != "$point" ] || break
      group="${{group%/*}}"
    done
  done < "$1/proc/$pid/cgroup"
done
"""


def unpack(printed: str) -> Printed:
    """Return the root of a tree of the files that `SCRIPT` printed.

    Args:
        printed: Output of the script; text before the first file is ignored.
    """
    return Printed(_files(printed))


def _files(printed: str) -> Iterator[tuple[str, Optional[str]]]:
    # Decode bytes that are not UTF-8 as `files.read` does.
    text = printed.encode(errors="surrogateescape").decode(errors="replace")
    for part in f"\n{text}".replace("\r\n", "\n").split(f"\n{MARK}")[1:]:
        name, _, content = part.partition("\n")
        name = name.removesuffix(" <==")
        yield name, None if name.endswith("/") else content.replace("\r", "\n")


def process(root: Place) -> dict[str, Any]:
    """Return the CPUs, memory and privileges of the process of /proc/self in a tree.

    Returns:
        ``cpus_visible`` (number of online CPUs), ``cpus_allowed_list``, ``mems_allowed_list``,
        ``memory_policy``, ``cgroup``, ``clocksource`` and ``privileges`` (see `privileges`); None
        for what the kernel does not report. ``cgroup`` has ``version``, ``quota_cpus`` (the
        tightest CPU quota of its cgroup and the ancestors, in CPUs) and ``cpuset`` (a kernel list).
    """
    online = topology.online(root)
    proc = root / "proc"
    return {
        "cpus_visible": len(online) or None,
        "cpus_allowed_list": _allowed(root),
        "mems_allowed_list": processes.memory_nodes(proc=proc),
        "memory_policy": processes.memory_policy(proc=proc),
        "cgroup": {
            "version": cgroups.version(root),
            "quota_cpus": cgroups.quota_cpus(root),
            "cpuset": cgroups.cpuset(root),
        },
        "clocksource": topology.clocksource(root),
        "privileges": privileges(root),
    }


def privileges(root: Place, pid: Pid = "self") -> dict[str, Any]:
    """Return the privileges of a process from its /proc/PID/status; None if not reported there.

    Returns:
        ``users`` and ``groups`` (distinct ids: real, effective, saved, file-system; also the
        supplementary groups), ``capabilities`` (the union of its five sets, in hexadecimal) and
        ``no_new_privileges``.
    """
    status = processes.status(pid, root / "proc")
    sets = [int(status[name], 16) for name in _CAPABILITIES if name in status]
    gains = status.get("NoNewPrivs")
    return {
        "users": _ids(status.get("Uid")),
        "groups": _ids(status.get("Gid"), status.get("Groups", "")),
        "capabilities": f"{reduce(or_, sets):x}" if sets else None,
        "no_new_privileges": None if gains is None else gains == "1",
    }


def _ids(own: Optional[str], more: str = "") -> Optional[list[int]]:
    return None if own is None else sorted({int(word) for word in f"{own} {more}".split()})


def enclosed(root: Place, pid: int) -> Optional[dict[str, Any]]:
    """Return the CPUs, memory, network and privileges of a container's first process.

    They are read outside the container, on its host.

    Args:
        root: Root of the host's tree.
        pid: Id of the process on the host.

    Returns:
        ``started`` (clock ticks from boot to its start, which with the id identifies the process),
        ``cpus_allowed_list``, ``mems_allowed_list``, ``privileges`` (see `privileges`),
        ``networks`` (interfaces with a route, except loopback), ``network`` (its network namespace:
        ``host`` for that of the reader, else ``own``), ``root`` (``ro`` or ``rw``: how its root is
        mounted), and the entries of `processes.protection` and `cgroups.limits`; None if there is
        no such process.
    """
    proc = root / "proc"
    stat, status = processes.stat(pid, proc), processes.status(pid, proc)
    if stat is None or not status:
        return None
    return {
        "started": stat.started,
        "cpus_allowed_list": _allowed(root, pid),
        "mems_allowed_list": processes.memory_nodes(pid, proc),
        "privileges": privileges(root, pid),
        "networks": _networks(proc / str(pid)),
        "network": _network(proc, pid),
        "root": _root(proc / str(pid)),
        **processes.protection(pid, proc),
        **cgroups.limits(root, pid),
    }


def _networks(process: Place) -> Optional[list[str]]:
    """Return the interfaces with a route, without loopback, which every namespace has."""
    v4, v6 = (read(process / name) for name in _ROUTES)
    if v4 is None:
        return None
    # IPv4: a heading line, then the name in the first column. IPv6: the name in the last column.
    names = {line.split()[0] for line in v4.splitlines()[1:]}
    names |= {line.split()[-1] for line in (v6 or "").splitlines()}
    return sorted(names - {"lo"})


def _network(proc: Place, pid: Pid) -> Optional[str]:
    ours, theirs = (_link(proc / str(one) / "ns/net") for one in ("self", pid))
    return None if ours is None or theirs is None else "host" if theirs == ours else "own"


def _link(path: Place) -> Optional[str]:
    """Return the target of a link in /proc; in a printed tree, it is the text of a file."""
    if isinstance(path, Printed):
        return read(path)
    try:
        return str(path.readlink())
    except OSError:
        return None


def _root(process: Place) -> Optional[str]:
    """Return how the root of a process is mounted, by the last mount on it: ``ro`` or ``rw``."""
    mounts = [line.split(" ") for line in (read(process / "mountinfo") or "").splitlines()]
    options = [mount[5].split(",")[0] for mount in mounts if mount[4] == "/"]
    return options[-1] if options else None


def _allowed(root: Place, pid: Pid = "self") -> Optional[str]:
    """Return the kernel list of the online CPUs that a process may run on."""
    allowed = processes.status(pid, root / "proc").get("Cpus_allowed_list")
    online = topology.online(root)
    if allowed is not None and online:
        # The kernel also lists possible CPUs that are not present.
        allowed = format_cpu_list(set(parse_cpu_list(allowed)) & set(online))
    return allowed
