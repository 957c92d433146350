"""Reader of control groups: limits of a process's CPUs, memory and threads.

It reads version 1, version 2 and hybrid hosts, which mount both. Limits of ancestors apply, too, so
each function returns the tightest limit among the process's own group and its ancestors.
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
_UNLIMITED_BYTES = 2**60  # version 1 shows "no limit" as a number near 2**63


@dataclass(frozen=True)
class Mount:
    """One mounted hierarchy.

    Attributes:
        version: Version of control groups, 1 or 2.
        top: Path of the cgroup that is mounted.
        point: Folder that it is mounted on.
    """

    version: int
    top: str
    point: Place


def mounts(root: Place) -> dict[str, Mount]:
    """Return the mounts by controller of version 1, and the mount of version 2 by the name "".

    Options of a mount such as ``rw`` are among the names, too; no controller has such a name.
    """
    by_name: dict[str, Mount] = {}
    for line in (read(root / "proc/self/mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        kind, options = right.split(" ")[0], right.split(" ")[-1]
        if kind in ("cgroup", "cgroup2"):
            _, _, _, top, point, *_ = left.split(" ")
            mount = Mount(2 if kind == "cgroup2" else 1, top, root / point.lstrip("/"))
            by_name.update(dict.fromkeys([""] if kind == "cgroup2" else options.split(","), mount))
    return by_name


def version(root: Place) -> Optional[int]:
    """Return the version of the hierarchy that limits CPU time; None if none is mounted.

    A hybrid host mounts both versions, and limits CPU time by version 1.
    """
    mount = _mount(mounts(root), "cpu")
    return mount.version if mount else None


def controllers(root: Place) -> list[str]:
    """Return the controllers of the version that limits CPU time, sorted."""
    mounted = mounts(root)
    if "cpu" in mounted:
        # "#subsys_name hierarchy num_cgroups enabled", then a line per controller.
        known = (read(root / "proc/cgroups") or "").splitlines()
        return sorted(mounted.keys() & {line.split()[0] for line in known if line})
    if "" in mounted:
        return sorted((read(mounted[""].point / "cgroup.controllers") or "").split())
    return []


def lineage(root: Place, controller: str, pid: Pid = "self") -> list[Place]:
    """Return the folder of a process's cgroup in a controller's hierarchy, then its ancestors'.

    In a container, the path in ``/proc/PID/cgroup`` is often the host's and does not exist below
    the mount point; then the mount point is the folder of the process's own cgroup.

    Returns:
        Folders up to the mount point; empty if the controller is not mounted.
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
    """Return the tightest CPU quota that limits a process, in CPUs; None if there is no quota."""
    quotas = [_quota_cpus(group) for group in lineage(root, "cpu", pid)]
    return min((quota for quota in quotas if quota is not None), default=None)


def own_quota_cpus(root: Place, pid: Pid = "self") -> Optional[float]:
    """Return the CPU quota of a process's own cgroup, in CPUs; None if it has no quota."""
    groups = lineage(root, "cpu", pid)
    return _quota_cpus(groups[0]) if groups else None


def quota_times(root: Place, pid: Pid = "self") -> Optional[str]:
    """Return period and burst of the tightest CPU quota that limits a process, in words.

    Returns:
        Text such as "period 100000 us, burst 0 us"; None if there is no quota.
    """
    quotas = [(quota, group) for group in lineage(root, "cpu", pid) if (quota := _quota(group))]
    if not quotas:
        return None
    (_, period), group = min(quotas, key=lambda one: one[0][0] / one[0][1])
    burst = next(filter(None, (read(group / name) for name in BURST_FILES)), "0")
    return times_in_words(period, int(burst))


def times_in_words(period_us: int, burst_us: int = 0) -> str:
    """Return a period and a burst in the words of `quota_times`.

    >>> times_in_words(100000)
    'period 100000 us, burst 0 us'
    """
    return f"period {period_us} us, burst {burst_us} us"


def cpuset(root: Place, pid: Pid = "self") -> Optional[str]:
    """Return the kernel list of the CPUs in a process's cpuset; None if it has no cpuset."""
    for group in lineage(root, "cpuset", pid):
        for name in CPUSET_FILES:
            cpus = read(group / name)
            if cpus:
                return cpus
    return None


def memory_bytes(root: Place, pid: Pid = "self") -> Optional[int]:
    """Return the tightest memory limit of a process, in bytes; None if there is no limit."""
    limits = []
    for group in lineage(root, "memory", pid):
        text = next(filter(None, (read(group / name) for name in MEMORY_FILES)), "max")
        if text != "max" and int(text) < _UNLIMITED_BYTES:
            limits.append(int(text))
    return min(limits, default=None)


def swap_limit(root: Place, pid: Pid = "self") -> Optional[str]:
    """Return the limit of swap of a process, such as "0 MiB"; "max" if there is no limit.

    Version 1 limits the sum of memory and swap, so the limit of swap is the difference between that
    limit and the limit of memory.

    Returns:
        The limit; None if no group reports one, since the kernel has no swap or no limits of swap.
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
    """Return the tightest limit of processes and threads for a process; None if there is none."""
    texts = [read(group / PIDS_FILE) or "max" for group in lineage(root, "pids", pid)]
    return min((int(text) for text in texts if text != "max"), default=None)


def throttling(root: Place, pid: Pid = "self") -> Optional[dict[str, int]]:
    """Return the throttling by CPU quotas, summed over a process's cgroup and its ancestors.

    Returns:
        ``periods`` (number of periods), ``throttled`` (number of periods in which the group was
        stopped) and ``throttled_ns`` (time stopped); None if no group can have a quota.
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
    """Return all limits of a process, as they are part of an enclosure's reading.

    Each limit is the tightest among the process's own cgroup and its ancestors. From inside a
    container, ancestors of the container's own cgroup cannot be seen.

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


def _mount(mounted: dict[str, Mount], controller: str) -> Optional[Mount]:
    """Return the mount of a controller: that of version 1 if there is one, else of version 2."""
    return mounted.get(controller, mounted.get(""))


def _quota_cpus(group: Place) -> Optional[float]:
    quota = _quota(group)
    return None if quota is None else quota[0] / quota[1]


def _quota(group: Place) -> Optional[tuple[int, int]]:
    """Return quota and period of one group in microseconds; None if it has no quota."""
    quota, _, period = (read(group / "cpu.max") or "").partition(" ")
    if not quota:  # version 1, or a root group, which has no such file
        quota = read(group / "cpu.cfs_quota_us") or "max"
        period = read(group / "cpu.cfs_period_us") or "100000"
    unlimited = quota == "max" or int(quota) < 0
    return None if unlimited else (int(quota), int(period))
