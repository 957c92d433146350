"""What one process may use, read from files alone: no interpreter needs to start next to it.

`SCRIPT` prints the files, of the process itself or of another, `unpack` makes a tree of what was
printed, and `process` and `enclosed` read that tree, or the live one.
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
"""Before the path of a file that was printed; GNU head prints " <==" after it."""
MOST_BYTES = 2**26
"""Of a file: /proc/interrupts has 6 KB a line where CPUs are 512."""
_ROUTES = ("net/route", "net/ipv6_route")
_PLAIN = ("status", "stat", "cgroup", "attr/apparmor/current", "attr/current", *_ROUTES)
_HOST = ("proc/self/mountinfo", f"{topology.CPUS}/online", str(topology.CLOCKSOURCE))
_LIMITS = (
    *cgroups.QUOTA_FILES, *cgroups.BURST_FILES, *cgroups.CPUSET_FILES, *cgroups.MEMORY_FILES,
    *cgroups.SWAP_FILES, cgroups.PIDS_FILE,
)  # fmt: skip
_CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")

# POSIX sh, and coreutils' head, which names files: one process prints most of them, as each process
# costs a millisecond, and more in an emulated guest. $1 is the root of the file system, nothing on
# a live host, and $2 the process's number, by default that of the one that reads. For each mount
# that may limit CPUs, memory or processes, every cgroup from the process's own up to the mount
# point is printed, as a folder at least; which of them count, the reader decides. Of another
# process its network's namespace is printed, next to the reader's own, and of its mounts its root.
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
    """Return the root of the files that `SCRIPT` printed.

    Args:
        printed: Its standard output; what stands before the first file is passed over.
    """
    return Printed(_files(printed))


def _files(printed: str) -> Iterator[tuple[str, Optional[str]]]:
    # Bytes that are no UTF-8 are read as `files.read` reads them.
    text = printed.encode(errors="surrogateescape").decode(errors="replace")
    for part in f"\n{text}".replace("\r\n", "\n").split(f"\n{MARK}")[1:]:
        name, _, content = part.partition("\n")
        name = name.removesuffix(" <==")
        yield name, None if name.endswith("/") else content.replace("\r", "\n")


def process(root: Place) -> dict[str, Any]:
    """Return what the process to which /proc/self of a tree belongs may use.

    Returns:
        ``cpus_visible`` (the number of online CPUs), ``cpus_allowed_list``, ``mems_allowed_list``,
        ``memory_policy``, ``cgroup``, ``clocksource`` and ``privileges`` (see `privileges`); None
        for what the kernel does not tell. ``cgroup`` has ``version``, ``quota_cpus`` (the tightest
        CPU quota from its cgroup up, in CPUs) and ``cpuset`` (a kernel list).
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
    """Return what a process may do, by its /proc/PID/status; None for what that does not tell.

    Returns:
        ``users`` and ``groups`` (real, effective, saved, of files, and supplementary ones; each
        once), ``capabilities`` (that it has or may gain: its five sets in one, in hex) and
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
    """Return what the first process of a container may use, as its host's kernel tells.

    Returns:
        ``started`` (clock ticks since boot: with the number it names one process),
        ``cpus_allowed_list``, ``mems_allowed_list``, ``privileges`` (see `privileges`),
        ``networks`` (interfaces over which it has a route, but loopback), ``network`` (whose
        namespace they are in: ``own``, or ``host``, that of whoever reads), ``root`` (how that is
        mounted: ``ro`` or ``rw``), and those of `processes.protection` and `cgroups.limits`; None
        where there is no such process.
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
    """Return the interfaces that lead out: not those that a kernel makes in every namespace."""
    v4, v6 = (read(process / name) for name in _ROUTES)
    if v4 is None:
        return None
    # The name is the first column, below a line of headings, or the last, without one.
    names = {line.split()[0] for line in v4.splitlines()[1:]}
    names |= {line.split()[-1] for line in (v6 or "").splitlines()}
    return sorted(names - {"lo"})


def _network(proc: Place, pid: Pid) -> Optional[str]:
    ours, theirs = (_link(proc / str(one) / "ns/net") for one in ("self", pid))
    return None if ours is None or theirs is None else "host" if theirs == ours else "own"


def _link(path: Place) -> Optional[str]:
    """Return where a link of /proc leads; a printed one is a file that says so."""
    if isinstance(path, Printed):
        return read(path)
    try:
        return str(path.readlink())
    except OSError:
        return None


def _root(process: Place) -> Optional[str]:
    """Return how the root that a process sees is mounted: what was mounted over it last counts."""
    mounts = [line.split(" ") for line in (read(process / "mountinfo") or "").splitlines()]
    options = [mount[5].split(",")[0] for mount in mounts if mount[4] == "/"]
    return options[-1] if options else None


def _allowed(root: Place, pid: Pid = "self") -> Optional[str]:
    """Return the kernel list of the online CPUs that a process may run on."""
    allowed = processes.status(pid, root / "proc").get("Cpus_allowed_list")
    online = topology.online(root)
    if allowed is not None and online:
        # The kernel also lists CPUs that may be plugged in one day.
        allowed = format_cpu_list(set(parse_cpu_list(allowed)) & set(online))
    return allowed
