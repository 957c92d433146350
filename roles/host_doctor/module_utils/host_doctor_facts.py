"""Knows alone where Linux writes down CPUs, memory, cgroups and PCI devices, and how to read it.

Every function takes the root of a file system ("/" on a live host, a recorded or made-up tree in a
test), reads below it and changes nothing. Standard library only: it runs on the managed host.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# The flags that decide which kernels oneDNN picks, so two hosts that differ here are not alike.
# fmt: off
ISA_FLAGS = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl",
    "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "asimd",
    "asimddp", "bf16", "sve",
)
# fmt: on

NVIDIA_VENDOR = "0x10de"
DISPLAY_CLASS = "0x03"


def read(path: Path) -> str:
    """Return the stripped text of a file, "" where the kernel does not offer it."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def parse_cpu_list(text: str) -> list[int]:
    """Return the numbers in a kernel list: "0-2,5" gives [0, 1, 2, 5]."""
    numbers: set[int] = set()
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            numbers.update(range(int(first), int(last or first) + 1))
    return sorted(numbers)


def _fields(text: str) -> dict[str, str]:
    """Return the first value of each "key : value" line."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    return fields


def cpu_flags(root: Path) -> set[str]:
    """Return the feature flags of the first CPU."""
    fields = _fields(read(root / "proc/cpuinfo"))
    return set(fields.get("flags", fields.get("Features", "")).split())


def numa_facts(root: Path) -> list[dict[str, Any]]:
    """Return one {node, cpus, memory_mib} per NUMA node; [] on a kernel without NUMA."""
    base = root / "sys/devices/system/node"
    nodes = []
    for node in parse_cpu_list(read(base / "online")):
        home = base / f"node{node}"
        # A line reads "Node 0 MemTotal:  7039180 kB".
        total = next((x for x in read(home / "meminfo").splitlines() if "MemTotal:" in x), "0 kB")
        nodes.append(
            {
                "node": node,
                "cpus": parse_cpu_list(read(home / "cpulist")),
                "memory_mib": int(total.split()[-2]) // 1024,
            }
        )
    return nodes


def _cpu(base: Path, cpu: int, node: int) -> dict[str, Any]:
    topology = base / f"cpu{cpu}/topology"
    # A kernel that does not know writes -1, or nothing: one socket, one thread to a core.
    return {
        "cpu": cpu,
        "core": int(read(topology / "core_id") or cpu),
        "socket": max(0, int(read(topology / "physical_package_id") or 0)),
        "node": node,
        "siblings": parse_cpu_list(read(topology / "thread_siblings_list")) or [cpu],
    }


def cpu_facts(root: Path, affinity: Iterable[int]) -> dict[str, Any]:
    """Return the CPU part of the report.

    `allowed` is what this process may use: online, in `affinity`, and in its cgroup's cpuset.
    """
    base = root / "sys/devices/system/cpu"
    online = parse_cpu_list(read(base / "online")) or sorted(affinity)
    # "offline" also lists CPUs that are merely possible, so it is worked out from "present".
    present = parse_cpu_list(read(base / "present")) or online
    node_of = {cpu: node["node"] for node in numa_facts(root) for cpu in node["cpus"]}
    cpus = [_cpu(base, cpu, node_of.get(cpu, 0)) for cpu in online]
    allowed = set(online) & set(affinity)
    cpuset = cgroup_cpuset(root)
    if cpuset is not None:
        allowed &= set(cpuset)
    flags = cpu_flags(root)
    return {
        "model": _fields(read(root / "proc/cpuinfo")).get("model name", "unknown"),
        "sockets": len({cpu["socket"] for cpu in cpus}),
        "online": online,
        "offline": sorted(set(present) - set(online)),
        "allowed": sorted(allowed),
        "smt": any(len(cpu["siblings"]) > 1 for cpu in cpus),
        "isa": [flag for flag in ISA_FLAGS if flag in flags],
        "cpus": cpus,
    }


def _cgroup_mounts(root: Path) -> list[tuple[int, Path, set[str]]]:
    """Return (version, mount point below root, v1 mount options) of each cgroup file system."""
    mounts = []
    for line in read(root / "proc/mounts").splitlines():
        _, where, kind, options = line.split()[:4]
        if kind in ("cgroup", "cgroup2"):
            version = 2 if kind == "cgroup2" else 1
            mounts.append((version, root / where.lstrip("/"), set(options.split(","))))
    return mounts


def cgroup_facts(root: Path) -> dict[str, Any]:
    """Return {version, controllers}; version is that of the hierarchy holding `cpu`, else None.

    A hybrid host mounts both, and what limits a CPU there is version 1.
    """
    mounts = _cgroup_mounts(root)
    # /proc/cgroups: "#subsys_name hierarchy num_cgroups enabled", then a line a controller.
    known = {line.split()[0] for line in read(root / "proc/cgroups").splitlines() if line}
    version_1 = {name for version, _, options in mounts if version == 1 for name in options & known}
    if "cpu" in version_1:
        return {"version": 1, "controllers": sorted(version_1)}
    for version, where, _ in mounts:
        if version == 2:
            controllers = read(where / "cgroup.controllers").split()
            return {"version": 2, "controllers": sorted(controllers)}
    return {"version": None, "controllers": []}


def cgroup_cpuset(root: Path) -> list[int] | None:
    """Return the CPUs of this process's cpuset cgroup, None where no cpuset is in force."""
    homes = {}
    for line in read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        homes[controllers] = path
    for version, where, options in _cgroup_mounts(root):
        if version == 1 and "cpuset" not in options:
            continue
        path = homes.get("" if version == 2 else "cpuset", "/").lstrip("/")
        # In a cgroup namespace the path may climb above the mount ("/../.."), or not be shown.
        home = where if ".." in path else where / path
        while True:
            for name in ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"):
                cpus = parse_cpu_list(read(home / name))
                if cpus:
                    return cpus
            if home == where:
                break
            home = home.parent
    return None


def memory_facts(root: Path, needed_mib: int) -> dict[str, int]:
    """Return {total, available, needed} in MiB."""
    fields = _fields(read(root / "proc/meminfo"))
    total, available = (
        int(fields.get(name, "0 kB").split()[0]) // 1024 for name in ("MemTotal", "MemAvailable")
    )
    return {"total": total, "available": available, "needed": needed_mib}


def disk_facts(state_dir: Path, needed_mib: int) -> dict[str, Any]:
    """Return {path, free_mib, needed_mib} of the file system that holds, or would hold, path."""
    nearest = next(path for path in (state_dir, *state_dir.parents) if path.exists())
    stat = os.statvfs(nearest)
    free_mib = stat.f_bavail * stat.f_frsize // 2**20
    return {"path": str(state_dir), "free_mib": free_mib, "needed_mib": needed_mib}


def gpu_facts(root: Path) -> list[dict[str, Any]]:
    """Return one {vendor, pci, name, driver} per NVIDIA display device on the PCI bus."""
    gpus = []
    for device in sorted((root / "sys/bus/pci/devices").glob("*")):
        is_display = read(device / "class").startswith(DISPLAY_CLASS)
        if read(device / "vendor") != NVIDIA_VENDOR or not is_display:
            continue
        # The driver, once loaded, knows the marketing name; before that there is only the number.
        information = read(root / "proc/driver/nvidia/gpus" / device.name / "information")
        driver = device / "driver"
        gpus.append(
            {
                "vendor": "nvidia",
                "pci": device.name,
                "name": _fields(information).get("Model", f"device {read(device / 'device')}"),
                "driver": driver.resolve().name if driver.exists() else None,
            }
        )
    return gpus


def has_iommu(root: Path) -> bool:
    """Return whether the kernel drives an IOMMU."""
    return any((root / "sys/class/iommu").glob("*"))


def system_facts(root: Path) -> dict[str, Any]:
    """Return {kernel, distribution, init, clocksource, governor}."""
    os_release = dict(
        line.split("=", 1) for line in read(root / "etc/os-release").splitlines() if "=" in line
    )
    devices = root / "sys/devices/system"
    return {
        "kernel": read(root / "proc/sys/kernel/osrelease"),
        "distribution": os_release.get("PRETTY_NAME", "unknown").strip('"'),
        # The test that sd_booted(3) documents.
        "init": "systemd" if (root / "run/systemd/system").is_dir() else "other",
        "clocksource": read(devices / "clocksource/clocksource0/current_clocksource"),
        "governor": read(devices / "cpu/cpu0/cpufreq/scaling_governor") or None,
    }


def image_facts(state_dir: Path) -> dict[str, str | None]:
    """Return {digest, key, path} of the current image; all None without a whole one.

    The manifest is written last, so an image without it is half built and does not count.
    """
    current = state_dir / "images/current"
    try:
        manifest = json.loads((current / "manifest.json").read_text(encoding="utf-8"))
        return {
            "digest": manifest["digest"],
            "key": manifest["key"],
            "path": str(current.resolve()),
        }
    except (OSError, ValueError, KeyError):
        return {"digest": None, "key": None, "path": None}
