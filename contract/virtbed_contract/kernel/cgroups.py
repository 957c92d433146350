"""Control groups: limits of a process's CPUs, memory and threads, under versions 1, 2 and both.

A limit of an ancestor binds as well, so limits are the tightest from the process's own group up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional, Union

from .files import read
from .printed import Place

Pid = Union[int, str]

CPUSET_FILES = ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus")
QUOTA_FILES = ("cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us")
BURST_FILES = ("cpu.max.burst", "cpu.cfs_burst_us")
MEMORY_FILES = ("memory.max", "memory.limit_in_bytes")
SWAP_FILES = ("memory.swap.max", "memory.memsw.limit_in_bytes")
PIDS_FILE = "pids.max"
STAT_FILE = "cpu.stat"
_UNLIMITED_BYTES = 2**60  # version 1 writes no limit as a number near 2**63


@dataclass(frozen=True)
class Mount:
    """Where one hierarchy is mounted: its version, the cgroup at the top, and its folder."""

    version: int
    top: str
    point: Place


def mounts(root: Place) -> dict[str, Mount]:
    """Return the mount of each version 1 controller, and of version 2 under the name "".

    Options of a version 1 mount (``rw``) are among the names; no controller is called so.
    """
    found: dict[str, Mount] = {}
    for line in (read(root / "proc/self/mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        kind, options = right.split(" ")[0], right.split(" ")[-1]
        if kind in ("cgroup", "cgroup2"):
            _, _, _, top, point, *_ = left.split(" ")
            mount = Mount(2 if kind == "cgroup2" else 1, top, root / point.lstrip("/"))
            found.update(dict.fromkeys([""] if kind == "cgroup2" else options.split(","), mount))
    return found


def version(root: Place) -> Optional[int]:
    """Return the version of the hierarchy that limits CPU time; None without a mount of any.

    A hybrid host mounts both, and what limits CPU time there is version 1.
    """
    mount = _mount(mounts(root), "cpu")
    return mount.version if mount else None


def controllers(root: Place) -> list[str]:
    """Return the controllers of the hierarchy's version that limits CPU time, sorted."""
    found = mounts(root)
    if "cpu" in found:
        # "#subsys_name hierarchy num_cgroups enabled", then a line per controller.
        known = (read(root / "proc/cgroups") or "").splitlines()
        return sorted(found.keys() & {line.split()[0] for line in known if line})
    if "" in found:
        return sorted((read(found[""].point / "cgroup.controllers") or "").split())
    return []


def lineage(root: Place, controller: str, pid: Pid = "self") -> list[Place]:
    """Return a process's cgroup folder in a controller's hierarchy, then its ancestors'.

    In a container the path of ``/proc/PID/cgroup`` is often the host's, and does not exist below
    the mount, whose top then is the process's own cgroup.

    Returns:
        Folders up to the mount point; [] where the controller is not mounted.
    """
    mount = _mount(mounts(root), controller)
    if mount is None:
        return []
    name = controller if mount.version == 1 else ""
    for line in (read(root / "proc" / str(pid) / "cgroup") or "").splitlines():
        _, names, path = line.split(":", 2)
        if name in names.split(","):
            if f"{path}/".startswith(f"{mount.top.rstrip('/')}/"):
                path = path[len(mount.top.rstrip("/")) :]
            group = mount.point / path.lstrip("/")
            if ".." not in group.parts and group.is_dir():
                ancestors = [group, *group.parents]
                return ancestors[: ancestors.index(mount.point) + 1]
    return [mount.point]


def quota_cpus(root: Place, pid: Pid = "self") -> Optional[float]:
    """Return the tightest CPU quota that binds a process, in CPUs; None without one."""
    quotas = [_quota_cpus(group) for group in lineage(root, "cpu", pid)]
    return min((quota for quota in quotas if quota is not None), default=None)


def own_quota_cpus(root: Place, pid: Pid = "self") -> Optional[float]:
    """Return the CPU quota of the cgroup that a process is in itself, in CPUs; None without one."""
    groups = lineage(root, "cpu", pid)
    return _quota_cpus(groups[0]) if groups else None


def quota_times(root: Place, pid: Pid = "self") -> Optional[str]:
    """Return period and burst of the tightest CPU quota that binds a process, in words.

    Returns:
        None without a quota. A kernel without bursts has none.
    """
    found = [(quota, group) for group in lineage(root, "cpu", pid) if (quota := _quota(group))]
    if not found:
        return None
    (_, period), group = min(found, key=lambda one: one[0][0] / one[0][1])
    burst = next(filter(None, (read(group / name) for name in BURST_FILES)), "0")
    return times_in_words(period, int(burst))


def times_in_words(period_us: int, burst_us: int = 0) -> str:
    """Return how `quota_times` tells a period and a burst."""
    return f"period {period_us} us, burst {burst_us} us"


def cpuset(root: Place, pid: Pid = "self") -> Optional[str]:
    """Return the kernel list of the CPUs that a process's cpuset leaves it; None without one."""
    for group in lineage(root, "cpuset", pid):
        for name in CPUSET_FILES:
            cpus = read(group / name)
            if cpus:
                return cpus
    return None


def memory_bytes(root: Place, pid: Pid = "self") -> Optional[int]:
    """Return the tightest memory limit that binds a process, in bytes; None without one."""
    limits = []
    for group in lineage(root, "memory", pid):
        text = next(filter(None, (read(group / name) for name in MEMORY_FILES)), "max")
        if text != "max" and int(text) < _UNLIMITED_BYTES:
            limits.append(int(text))
    return min(limits, default=None)


def swap_limit(root: Place, pid: Pid = "self") -> Optional[str]:
    """Return how much swap a process's control groups leave it: "0 MiB", or "max" for any.

    Version 1 limits memory and swap together: the swap is what that leaves beyond the memory.

    Returns:
        None where no group tells: the kernel may have no swap, or no limits of it.
    """
    readable, limits = False, list[int]()
    for group in lineage(root, "memory", pid):
        text = next(filter(None, (read(group / name) for name in SWAP_FILES)), None)
        readable = readable or text is not None
        if text not in (None, "max") and int(text) < _UNLIMITED_BYTES:
            limits.append(int(text))
    if not limits:
        return "max" if readable else None
    both = _mount(mounts(root), "memory")
    memory = memory_bytes(root, pid) or 0 if both and both.version == 1 else 0
    return f"{max(0, min(limits) - memory) // 2**20} MiB"


def pids_max(root: Place, pid: Pid = "self") -> Optional[int]:
    """Return the tightest limit of processes and threads that binds a process; None without one."""
    texts = [read(group / PIDS_FILE) or "max" for group in lineage(root, "pids", pid)]
    return min((int(text) for text in texts if text != "max"), default=None)


def throttling(root: Place, pid: Pid = "self") -> Optional[dict[str, int]]:
    """Return how often and how long CPU quotas from a process's cgroup up stopped it, summed.

    Returns:
        ``periods`` and ``throttled`` (numbers) and ``throttled_ns``; None where no quota can be.
    """
    total: Optional[dict[str, int]] = None
    for group in lineage(root, "cpu", pid):
        lines = (read(group / STAT_FILE) or "").splitlines()
        stat = {key: int(value) for key, _, value in (line.partition(" ") for line in lines)}
        if "nr_periods" not in stat:
            continue
        total = total or {"periods": 0, "throttled": 0, "throttled_ns": 0}
        total["periods"] += stat["nr_periods"]
        total["throttled"] += stat["nr_throttled"]
        # Version 1 counts nanoseconds, version 2 microseconds.
        total["throttled_ns"] += stat.get("throttled_time", 1000 * stat.get("throttled_usec", 0))
    return total


def limits(root: Place, pid: Pid = "self") -> dict[str, Any]:
    """Return what limits a process, as an enclosure's reading has it.

    The limits are the tightest from the process's own cgroup up: inside a container none above its
    own shows.

    Returns:
        ``cpuset`` (a kernel list), ``quota_cpus``, ``quota_times``, ``memory_mib``, ``swap_limit``,
        ``pids_max`` and ``throttled_periods``.
    """
    limit = memory_bytes(root, pid)
    return {
        "cpuset": cpuset(root, pid),
        "quota_cpus": quota_cpus(root, pid),
        "quota_times": quota_times(root, pid),
        "memory_mib": None if limit is None else limit // 2**20,
        "swap_limit": swap_limit(root, pid),
        "pids_max": pids_max(root, pid),
        "throttled_periods": (throttling(root, pid) or {"throttled": 0})["throttled"],
    }


def _mount(found: dict[str, Mount], controller: str) -> Optional[Mount]:
    """Return the mount of a controller's hierarchy: version 1 where it has one, else version 2."""
    return found.get(controller, found.get(""))


def _quota_cpus(group: Place) -> Optional[float]:
    found = _quota(group)
    return None if found is None else found[0] / found[1]


def _quota(group: Place) -> Optional[tuple[int, int]]:
    """Return quota and period of one group in microseconds; None without a quota."""
    quota, _, period = (read(group / "cpu.max") or "").partition(" ")
    if not quota:  # version 1, or a root group, which has none
        quota = read(group / "cpu.cfs_quota_us") or "max"
        period = read(group / "cpu.cfs_period_us") or "100000"
    unlimited = quota == "max" or int(quota) < 0
    return None if unlimited else (int(quota), int(period))
