"""Knows how to read, from inside, what the kernel lets this process use: CPUs, quota, clock.

`python3 -m virtbed_workloads.environment` prints it, for whoever places a process.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# The extensions that change which kernels oneDNN and Eigen choose.
ISA = ("sse4_1", "sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl",
       "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_bf16", "amx_int8",
       "amx_tile", "asimd", "sve")  # fmt: skip


def read_environment(intra_op: int, inter_op: int, root: Path = Path("/")) -> dict[str, Any]:
    """Describe the environment of this process, as the result's ``environment``.

    Args:
        intra_op: The application's threads within one operation; 0 is the framework's choice.
        inter_op: The application's operations at a time; 0 is the framework's choice.
        root: Where ``proc`` and ``sys`` are found.
    """
    status = read_status(root)
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cpus_visible": os.cpu_count(),
        "affinity": sorted(os.sched_getaffinity(0)),
        # Not the status file's, which also lists CPUs that may be plugged in one day.
        "cpus_allowed_list": kernel_list(os.sched_getaffinity(0)),
        "mems_allowed_list": status["Mems_allowed_list"],
        "memory_policy": read_memory_policy(root),
        "cgroup": read_cgroup(root),
        "threads": {
            "intra_op": intra_op,
            "inter_op": inter_op,
            "process_threads": int(status["Threads"]),
            "usable_cores": usable_cores(root),
        },
        "isa": read_isa(root),
        "clocksource": read(
            root / "sys/devices/system/clocksource/clocksource0/current_clocksource"
        ),
    }


def usable_cores(root: Path = Path("/")) -> int:
    """Return how many cores this process can really use: its affinity, cpuset and CPU quota.

    A quota of 1.5 CPUs makes 1: a second thread would spend half its time throttled. A cpuset
    shows in the affinity.
    """
    quota = read_cgroup(root)["quota_cpus"]
    affinity = len(os.sched_getaffinity(0))
    return affinity if quota is None else max(1, min(affinity, int(quota)))


def read_memory_kib(root: Path = Path("/")) -> dict[str, int]:
    """Read the resident set of this process, VmRSS, and its peak since it was executed, VmHWM.

    The peak of `getrusage` would be that of whoever executed this process, if larger.
    """
    status = read_status(root)
    return {key: int(status[key].split()[0]) for key in ("VmRSS", "VmHWM")}


def read_status(root: Path) -> dict[str, str]:
    """Parse ``/proc/self/status``."""
    lines = (root / "proc/self/status").read_text().splitlines()
    pairs = (line.partition(":") for line in lines)
    return {key: value.strip() for key, _, value in pairs}


def kernel_list(cpus: Iterable[int]) -> str:
    """Write CPUs as the kernel does: 0, 1, 2 and 5 are ``0-2,5``."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and cpu == runs[-1][-1] + 1:
            runs[-1].append(cpu)
        else:
            runs.append([cpu])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def read_memory_policy(root: Path) -> str | None:
    """Read this process's NUMA memory policy, such as ``bind:0`` or ``default``.

    ``mems_allowed_list`` is the cpuset's and does not show it. None on a kernel without NUMA.
    """
    fields = (read(root / "proc/self/numa_maps") or "").split(maxsplit=2)
    return fields[1] if fields else None


def read_isa(root: Path) -> list[str]:
    """List the instruction-set extensions of `ISA` that the first CPU has."""
    for line in (root / "proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            flags = set(value.split())
            return [name for name in ISA if name in flags]
    return []


def read_cgroup(root: Path) -> dict[str, Any]:
    """Find the CPU quota and CPU set that bind this process, under cgroup v1 or v2.

    Returns:
        ``version`` (1, 2 or None where no CPU controller is mounted), ``quota_cpus`` (the
        tightest quota from this cgroup up, in CPUs; None without one) and ``cpuset`` (a kernel
        CPU list; None where none is set).
    """
    found = mounts(root)
    version = 1 if "cpu" in found else 2 if "" in found else None
    cpu = lineage(root, found, "cpu" if version == 1 else "")
    cpuset = lineage(root, found, "cpuset" if "cpuset" in found else "")
    quotas = [quota for group in cpu if (quota := _quota_cpus(group, version)) is not None]
    names = ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus")
    sets = [cpus for group in cpuset for name in names if (cpus := read(group / name))]
    return {
        "version": version,
        "quota_cpus": min(quotas, default=None),
        "cpuset": sets[0] if sets else None,
    }


def read(path: Path) -> str | None:
    """Read a small kernel file; None where it does not exist or may not be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return None


def mounts(root: Path) -> dict[str, tuple[str, str]]:
    """Map each v1 controller, and "" for v2, to its mount's (root, mount point)."""
    found: dict[str, tuple[str, str]] = {}
    for line in (read(root / "proc/self/mountinfo") or "").splitlines():
        fields, _, tail = line.partition(" - ")
        kind, _, options = tail.split(" ", 2)
        _, _, _, mount_root, point, *_ = fields.split(" ")
        if kind == "cgroup2":
            found[""] = (mount_root, point)
        elif kind == "cgroup":
            for option in options.split(","):
                found[option] = (mount_root, point)
    return found


def lineage(root: Path, found: dict[str, tuple[str, str]], controller: str) -> list[Path]:
    """List this process's cgroup directory in a hierarchy and its ancestors up to the mount.

    In a container the path of ``/proc/self/cgroup`` is often the host's and does not exist below
    the mount, whose root then is this process's own cgroup.
    """
    if controller not in found:
        return []
    mount_root, point = found[controller]
    top = root / point.lstrip("/")
    for line in (read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            below = path.removeprefix(mount_root if mount_root != "/" else "").lstrip("/")
            group = top / below
            if ".." not in below and group.is_dir():
                ancestors = [group, *group.parents]
                return ancestors[: ancestors.index(top) + 1]
    return [top]


def _quota_cpus(group: Path, version: int | None) -> float | None:
    if version == 2:
        quota, _, period = (read(group / "cpu.max") or "max 100000").partition(" ")
    else:
        quota = read(group / "cpu.cfs_quota_us") or "-1"
        period = read(group / "cpu.cfs_period_us") or "100000"
    unlimited = quota == "max" or int(quota) < 0
    return None if unlimited else int(quota) / int(period)


if __name__ == "__main__":
    print(json.dumps(read_environment(0, 0)))
