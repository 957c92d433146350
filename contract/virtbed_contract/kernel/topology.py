"""CPUs of a machine: which are there, and what the kernel does with them.

Which CPUs share what, hwloc tells (see docs/decisions/103).
"""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from .cpus import parse_cpu_list, parse_cpu_mask
from .files import fields, read
from .printed import Place

CPUS = Path("sys/devices/system/cpu")
NODES = Path("sys/devices/system/node")
VULNERABILITIES = CPUS / "vulnerabilities"
NO_TURBO, BOOST = CPUS / "intel_pstate/no_turbo", CPUS / "cpufreq/boost"
THREADS, CORES = "topology/thread_siblings_list", "topology/core_siblings_list"
"""Of a CPU's folder: the threads of its core, and the CPUs of its package."""
NODE_CPUS = "cpulist"
"""Of a node's folder."""
NEAR_NODE, NEAR_CPUS, NEAR_MASK = "numa_node", "local_cpulist", "local_cpus"
"""Of a PCI device's folder: the node, and the CPUs, as a list and as a mask."""
MOST_HWLOC_BYTES = 16 * 2**20
"""Of hwloc's XML, which tells of a machine of a thousand CPUs in under 2 MiB."""
CLOCKSOURCE = Path("sys/devices/system/clocksource/clocksource0/current_clocksource")


def online(root: Place) -> tuple[int, ...]:
    """Return the CPUs that are online; () where the kernel does not tell."""
    return parse_cpu_list(read(root / CPUS / "online") or "")


def present(root: Place) -> tuple[int, ...]:
    """Return the CPUs that are plugged in, online or not; () where the kernel does not tell."""
    return parse_cpu_list(read(root / CPUS / "present") or "")


def siblings(root: Place, cpu: int) -> tuple[int, ...]:
    """Return the threads of a CPU's core, itself among them."""
    found = read(root / CPUS / f"cpu{cpu}" / THREADS)
    return parse_cpu_list(found or "") or (cpu,)


def isolated(root: Place) -> tuple[int, ...]:
    """Return the CPUs among which the scheduler moves nothing (isolcpus, isolated partitions)."""
    return parse_cpu_list(read(root / CPUS / "isolated") or "")


def tickless(root: Place) -> tuple[int, ...]:
    """Return the CPUs that have no tick while one process runs (nohz_full)."""
    # Without any, some kernels print "(null)".
    listed = read(root / CPUS / "nohz_full") or ""
    return parse_cpu_list(listed) if listed[:1].isdigit() else ()


def nodes_with_cpus(root: Place) -> tuple[int, ...]:
    """Return the NUMA nodes that have CPUs of their own; () on a kernel that does not tell."""
    return parse_cpu_list(read(root / NODES / "has_cpu") or "")


def nodes_near(root: Place, device: Place) -> tuple[int, ...]:
    """Return the NUMA nodes with CPUs that a device is near: those of its package, or one of them.

    Args:
        root: Of the tree.
        device: The device's folder in it.

    Returns:
        The one node of a machine that has one; () where the firmware does not tell.
    """
    cpus_of = {node: set(_cpus_of(root, node)) for node in nodes_with_cpus(root)}
    said = read(device / NEAR_NODE) or ""
    if said.isdigit() and (int(said) in cpus_of or not cpus_of):
        return (int(said),)
    near = set(parse_cpu_list(read(device / NEAR_CPUS) or ""))
    near = near or set(parse_cpu_mask(read(device / NEAR_MASK) or ""))
    if len(cpus_of) == 1:
        return tuple(cpus_of)
    around = tuple(node for node, cpus in cpus_of.items() if near & cpus)
    # Near all of them is what the kernel says where it does not know.
    return around if len(around) < len(cpus_of) else ()


def address_bits(root: Place) -> Optional[int]:
    """Return how wide the processor's physical addresses are; None where nobody tells."""
    # "address sizes	: 46 bits physical, 48 bits virtual"
    words = fields(read(root / "proc/cpuinfo")).get("address sizes", "").split()
    return int(words[0]) if words[:1] and words[0].isdigit() else None


def _cpus_of(root: Place, node: int) -> tuple[int, ...]:
    return parse_cpu_list(read(root / NODES / f"node{node}" / NODE_CPUS) or "")


def parts(root: Place) -> dict[int, str]:
    """Return what kind of core each online CPU is, where the processor tells: Arm's part."""
    found = {}
    for block in (read(root / "proc/cpuinfo") or "").split("\n\n"):
        keys = fields(block)
        if keys.get("processor", "").isdigit() and keys.get("CPU part"):
            found[int(keys["processor"])] = f"{keys.get('CPU implementer', '')}/{keys['CPU part']}"
    return found


def clocksource(root: Place) -> Optional[str]:
    """Return the clock that the kernel keeps time by, such as ``tsc`` or ``kvm-clock``."""
    return read(root / CLOCKSOURCE)


def cpu_model(root: Place) -> Optional[str]:
    """Return the model of the first CPU; None where the kernel does not tell."""
    return fields(read(root / "proc/cpuinfo")).get("model name") or None


def turbo(root: Place) -> Optional[bool]:
    """Return whether CPUs may run above their base clock rate; None where it is unknown."""
    files = {NO_TURBO: "0", BOOST: "1"}
    found = ((read(root / path), on) for path, on in files.items())
    return next((text == on for text, on in found if text is not None), None)


def mitigations(root: Place) -> Optional[dict[str, str]]:
    """Return what the kernel does about each vulnerability, by name; None where it is unknown."""
    try:
        names = sorted(path.name for path in (root / VULNERABILITIES).iterdir())
    except OSError:
        return None
    texts = {name: read(root / VULNERABILITIES / name) for name in names}
    return {name: text for name, text in texts.items() if text} or None
