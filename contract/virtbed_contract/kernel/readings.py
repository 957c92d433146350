"""What one process may use, read from files alone: no interpreter needs to start beside it.

`SCRIPT` prints the files as any process under the same argv prefix sees them, `unpack` lays them
out as a tree, and `process` reads that tree, or the live one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import cgroups, processes, topology
from .cpus import format_cpu_list, parse_cpu_list

_MARK = "==> "
_PLAIN = ("/proc/self/status", "/proc/self/cgroup", "/proc/self/mountinfo",
          f"/{topology.CPUS}/online", f"/{topology.CLOCKSOURCE}")  # fmt: skip

# POSIX sh; $1 is the root of the file system, nothing on a live host. For each mount that may limit
# CPUs, every cgroup from the process's own up to the mount point is printed, as a folder at least;
# which of them count, the reader decides.
SCRIPT = f"""\
for file in {" ".join(_PLAIN)}; do
  if [ -r "$1$file" ]; then echo "{_MARK}$file"; cat "$1$file"; fi
done
if [ -r "$1/proc/self/numa_maps" ]; then
  echo "{_MARK}/proc/self/numa_maps"; head -n 1 "$1/proc/self/numa_maps"
fi
grep -E ' - cgroup(2 |.*[ ,]cpu(set)?(,|$))' "$1/proc/self/mountinfo" |
while read -r _ _ _ top point _; do
  while IFS=: read -r _ controllers path; do
    case ",$controllers," in ,, | *,cpu,* | *,cpuset,*) ;; *) continue ;; esac
    case "$path/" in "${{top%/}}/"*) path="${{path#"${{top%/}}"}}" ;; esac
    group="$point/${{path#/}}"
    [ -d "$1$group" ] || group="$point"
    while true; do
      echo "{_MARK}$group/"
      for file in {" ".join((*cgroups.QUOTA_FILES, *cgroups.CPUSET_FILES))}; do
        if [ -r "$1$group/$file" ] && read -r line < "$1$group/$file"; then
          echo "{_MARK}$group/$file"; echo "$line"
        fi
      done
      case "$group" in "$point" | "$point/") break ;; esac
      group="${{group%/*}}"
    done
  done < "$1/proc/self/cgroup"
done
"""


def unpack(printed: str, root: Path) -> None:
    """Lay the files that `SCRIPT` printed out below a folder.

    Args:
        printed: Its standard output; what stands before the first file is passed over.
        root: An empty folder.
    """
    for part in f"\n{printed}".replace("\r\n", "\n").split(f"\n{_MARK}")[1:]:
        name, _, text = part.partition("\n")
        path = root / name.lstrip("/")
        if ".." in path.parts:
            continue
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


def process(root: Path) -> dict[str, Any]:
    """Return what the process to which /proc/self of a tree belongs may use.

    Returns:
        ``cpus_visible`` (the number of online CPUs), ``cpus_allowed_list``, ``mems_allowed_list``,
        ``memory_policy``, ``cgroup`` and ``clocksource``; None for what the kernel does not tell.
        ``cgroup`` has ``version``, ``quota_cpus`` (the tightest CPU quota from its cgroup up, in
        CPUs) and ``cpuset`` (a kernel list).
    """
    online = topology.online(root)
    proc = root / "proc"
    allowed = processes.status(proc=proc).get("Cpus_allowed_list")
    if allowed is not None and online:
        # The kernel also lists CPUs that may be plugged in one day.
        allowed = format_cpu_list(set(parse_cpu_list(allowed)) & set(online))
    return {
        "cpus_visible": len(online) or None,
        "cpus_allowed_list": allowed,
        "mems_allowed_list": processes.memory_nodes(proc=proc),
        "memory_policy": processes.memory_policy(proc=proc),
        "cgroup": {
            "version": cgroups.version(root),
            "quota_cpus": cgroups.quota_cpus(root),
            "cpuset": cgroups.cpuset(root),
        },
        "clocksource": topology.clocksource(root),
    }
