"""Facts of a host for the report of host_doctor: CPUs, memory, disks, cgroups, machine, images.

Every function takes the root of a file system ("/" on a live host, a recorded or made-up tree in a
test), reads below it and changes nothing. Standard library only, as it runs on the managed host.
Engines, KVM, GPUs and the kernel's file are in host_doctor_probe, host_doctor_gpu and
host_doctor_kernel.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.virtbed_contract.codec import encode
from ansible.module_utils.virtbed_contract.kernel import (
    cgroups,
    hypervisor,
    machine,
    pci,
    processes,
    topology,
)  # fmt: skip
from ansible.module_utils.virtbed_contract.kernel.cpus import parse_cpu_list
from ansible.module_utils.virtbed_contract.kernel.files import fields, read
from ansible.module_utils.virtbed_contract.kernel.isa import read_flags, read_isa
from ansible.module_utils.virtbed_contract.limits import TMP, free_mib, look

_OBJECT = re.compile(r'<object type="(\w+)"([^>]*)')
_CACHE_SIZE = re.compile(r'cache_size="(\d+)"')
_PARTS = ("Package", "Die", "NUMANode", "L4Cache", "L3Cache", "L2Cache", "L1Cache", "Core", "PU")


def cpu_flags(root: Path) -> set[str]:
    """Return the feature flags of the first CPU."""
    return set(read_flags(root))


def cpu_facts(root: Path, affinity: Iterable[int]) -> dict[str, Any]:
    """Return the CPU part of the report.

    `allowed` is what this process may use: online, in `affinity`, and in its cgroup's cpuset.
    `isolated` (isolcpus) and `tickless` (nohz_full) are among its cpuset's CPUs. The scheduler
    places no process on an isolated CPU by itself, so processes must be bound to them.
    """
    online = topology.online(root) or tuple(sorted(affinity))
    # Not the kernel's own list of offline CPUs: that also has CPUs that are not plugged in.
    offline = set(topology.present(root)) - set(online)
    cpuset = cgroups.cpuset(root)
    permitted = set(online) & (set(online) if cpuset is None else set(parse_cpu_list(cpuset)))
    return {
        "model": topology.cpu_model(root) or "unknown",
        "online": list(online),
        "offline": sorted(offline),
        "allowed": sorted(permitted & set(affinity)),
        "isolated": sorted(permitted & set(topology.isolated(root))),
        "tickless": sorted(permitted & set(topology.tickless(root))),
        # JSON keys are strings.
        "parts": {str(cpu): part for cpu, part in topology.parts(root).items()},
        "isa": read_isa(root),
    }


def nodes_allowed(root: Path) -> list[int]:
    """Return the memory nodes that this process may use; [] where the kernel reports none."""
    return list(parse_cpu_list(processes.memory_nodes(proc=root / "proc") or ""))


def cgroup_facts(root: Path) -> dict[str, Any]:
    """Return {version, controllers} of the cgroup hierarchies that limit CPU time."""
    return {"version": cgroups.version(root), "controllers": cgroups.controllers(root)}


def memory_facts(root: Path, needed_mib: int) -> dict[str, int]:
    """Return {total, available, needed} in MiB."""
    meminfo = fields(read(root / "proc/meminfo"))
    total, available = (
        int(meminfo.get(name, "0 kB").split()[0]) // 1024 for name in ("MemTotal", "MemAvailable")
    )
    return {"total": total, "available": available, "needed": needed_mib}


def disk_facts(state_dir: Path, needed_mib: int) -> dict[str, Any]:
    """Return {path, free_mib, needed_mib} of the file system that holds, or would hold, path."""
    return {"path": str(state_dir), "free_mib": free_mib(state_dir), "needed_mib": needed_mib}


def other_disks(stores: Iterable[str]) -> list[dict[str, Any]]:
    """Return {kind, path, free_mib} of where else a sweep writes: /tmp and the engines' stores."""
    rooms = [("tmp", TMP), *(("store", store) for store in dict.fromkeys(stores))]
    return [encode(look(kind, Path(path))) for kind, path in rooms]


def has_iommu(root: Path) -> bool:
    """Return whether the kernel drives an IOMMU."""
    return pci.has_iommu(root)


def below_facts(root: Path) -> dict[str, Any]:
    """Return {name, emulated} of the hypervisor or emulator below the host; name None for none."""
    below: dict[str, Any] = encode(hypervisor.below(root))
    return below


def machine_facts(root: Path, xml: str | None, clock_s: float) -> dict[str, Any]:
    """Return the identity of a machine, and the properties by which it is compared with others.

    Args:
        root: Root of its file system.
        xml: The machine's topology as hwloc's XML; None if unknown.
        clock_s: The time on its clock, in seconds since the epoch.

    Returns:
        {id, boot, model, firmware, microcode, topology, clock_s}; None for what is not known.
    """
    properties = {**machine.identity(root), **machine.hardware(root)}
    return {**properties, "topology": shape(xml) if xml else None, "clock_s": clock_s}


def shape(xml: str) -> str:
    """Return the counts of a machine's parts in hwloc's XML, as text.

    For example "2 Package, 2 NUMANode, 2 L3Cache of 32768 KiB, 16 Core, 32 PU".
    """
    counts: dict[str, int] = {}
    for kind, rest in _OBJECT.findall(xml):
        size = _CACHE_SIZE.search(rest) if kind.endswith("Cache") else None
        words = f"{kind} of {int(size[1]) >> 10} KiB" if size else kind
        if kind in _PARTS:
            counts[words] = counts.get(words, 0) + 1
    order = sorted(counts, key=lambda words: _PARTS.index(words.split()[0]))
    return ", ".join(f"{counts[words]} {words}" for words in order)


def system_facts(root: Path) -> dict[str, Any]:
    """Return {kernel, distribution, init, clocksource, governor}."""
    os_release = dict(
        line.split("=", 1)
        for line in (read(root / "etc/os-release") or "").splitlines()
        if "=" in line
    )
    return {
        "kernel": read(root / "proc/sys/kernel/osrelease") or "",
        "distribution": os_release.get("PRETTY_NAME", "unknown").strip('"'),
        # The test that sd_booted(3) documents.
        "init": "systemd" if (root / "run/systemd/system").is_dir() else "other",
        "clocksource": topology.clocksource(root) or "",
        "governor": read(root / topology.CPUS / "cpu0/cpufreq/scaling_governor"),
    }


def image_facts(
    state_dir: Path, variants: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return {variant, words, build_s, digest, key, path, current} of each variant, by its name.

    `digest`, `key` and `path` are None unless the variant has a complete image: the manifest is
    written last, so an image without it is incomplete. `current` is whether the image was built
    from the sources whose key is in `variants`.
    """
    images = {}
    for name, variant in variants.items():
        image = _image(state_dir / f"images/current-{name}")
        images[name] = {
            "variant": name,
            "words": variant["words"],
            "build_s": variant["build_s"],
            **image,
            "current": image["key"] == variant["key"],
        }
    return images


def _image(place: Path) -> dict[str, str | None]:
    try:
        manifest = json.loads((place / "manifest.json").read_text(encoding="utf-8"))
        return {
            "digest": manifest["digest"],
            "key": manifest["key"],
            "path": str(place.resolve()),
        }
    except (OSError, ValueError, KeyError):
        return {"digest": None, "key": None, "path": None}
