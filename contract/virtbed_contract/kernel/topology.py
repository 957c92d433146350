"""Reader of a machine's CPUs: which are online, isolated or tickless, their nodes and features.

It does not read which CPUs share caches: hwloc does (see docs/decisions/103).
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
"""Files in a CPU's folder: the threads of its core, and the CPUs of its package."""
NODE_CPUS = "cpulist"
"""File in a node's folder: its CPUs."""
NEAR_NODE, NEAR_CPUS, NEAR_MASK = "numa_node", "local_cpulist", "local_cpus"
"""Files in a PCI device's folder: the near node, and the near CPUs as a list and as a mask."""
MOST_HWLOC_BYTES = 16 * 2**20
"""Largest XML of hwloc that is read; that of a machine with 1000 CPUs is below 2 MiB."""
MONITORS = {"cpu_core": "IntelCore", "cpu_atom": "IntelAtom", "cpu_lowpower": "IntelLowPower"}
"""Kinds of core by the performance monitor that the kernel has for each on hybrid processors."""
CLOCKSOURCE = Path("sys/devices/system/clocksource/clocksource0/current_clocksource")


def online(root: Place) -> tuple[int, ...]:
    """Return the CPUs that are online; () if the kernel does not report them."""
    return parse_cpu_list(read(root / CPUS / "online") or "")


def present(root: Place) -> tuple[int, ...]:
    """Return the CPUs that are present, online or not; () if the kernel does not report them."""
    return parse_cpu_list(read(root / CPUS / "present") or "")


def siblings(root: Place, cpu: int) -> tuple[int, ...]:
    """Return the threads of a CPU's core, the CPU itself included."""
    threads = read(root / CPUS / f"cpu{cpu}" / THREADS)
    return parse_cpu_list(threads or "") or (cpu,)


def isolated(root: Place) -> tuple[int, ...]:
    """Return the CPUs that are isolated from load balancing (isolcpus, isolated partitions)."""
    return parse_cpu_list(read(root / CPUS / "isolated") or "")


def tickless(root: Place) -> tuple[int, ...]:
    """Return the CPUs without a scheduler tick while a single task runs (nohz_full)."""
    # Some kernels print "(null)" for an empty list.
    listed = read(root / CPUS / "nohz_full") or ""
    return parse_cpu_list(listed) if listed[:1].isdigit() else ()


def nodes_with_cpus(root: Place) -> tuple[int, ...]:
    """Return the NUMA nodes that have CPUs; () if the kernel does not report them."""
    return parse_cpu_list(read(root / NODES / "has_cpu") or "")


def nodes_near(root: Place, device: Place) -> tuple[int, ...]:
    """Return the NUMA nodes with CPUs that a device is near: one node, or those of a package.

    Args:
        root: Root of the tree.
        device: Folder of the device in the tree.

    Returns:
        Numbers of the nodes; () if the firmware does not report them. A machine with a single node
        returns that node.
    """
    cpus_of = {node: set(_cpus_of(root, node)) for node in nodes_with_cpus(root)}
    reported = read(device / NEAR_NODE) or ""
    if reported.isdigit() and (int(reported) in cpus_of or not cpus_of):
        return (int(reported),)
    near = set(parse_cpu_list(read(device / NEAR_CPUS) or ""))
    near = near or set(parse_cpu_mask(read(device / NEAR_MASK) or ""))
    if len(cpus_of) == 1:
        return tuple(cpus_of)
    around = tuple(node for node, cpus in cpus_of.items() if near & cpus)
    # The kernel lists all CPUs if it does not know which are near.
    return around if len(around) < len(cpus_of) else ()


def address_bits(root: Place) -> Optional[int]:
    """Return the width of the processor's physical addresses in bits; None if it is unknown."""
    # "address sizes	: 46 bits physical, 48 bits virtual"
    words = fields(read(root / "proc/cpuinfo")).get("address sizes", "").split()
    return int(words[0]) if words[:1] and words[0].isdigit() else None


def _cpus_of(root: Place, node: int) -> tuple[int, ...]:
    return parse_cpu_list(read(root / NODES / f"node{node}" / NODE_CPUS) or "")


def parts(root: Place) -> dict[int, str]:
    """Return the kind of core by CPU; {} if neither the processor nor the kernel tells.

    Arm's processors report implementer and part. For Intel's hybrid processors the kernel has one
    performance monitor per kind, with its CPUs; the names of these kinds are hwloc's, which itself
    reads them from the processor and only if it may run on every CPU.
    """
    kinds = {
        cpu: kind
        for monitor, kind in MONITORS.items()
        for cpu in parse_cpu_list(read(root / "sys/devices" / monitor / "cpus") or "")
    }
    for block in (read(root / "proc/cpuinfo") or "").split("\n\n"):
        keys = fields(block)
        if keys.get("processor", "").isdigit() and keys.get("CPU part"):
            kinds[int(keys["processor"])] = f"{keys.get('CPU implementer', '')}/{keys['CPU part']}"
    return kinds


def clocksource(root: Place) -> Optional[str]:
    """Return the kernel's clock source, such as ``tsc`` or ``kvm-clock``."""
    return read(root / CLOCKSOURCE)


def cpu_model(root: Place) -> Optional[str]:
    """Return the model of the first CPU; None if the kernel does not report it."""
    return fields(read(root / "proc/cpuinfo")).get("model name") or None


def turbo(root: Place) -> Optional[bool]:
    """Return whether CPUs may run above their base clock rate; None if this is unknown."""
    files = {NO_TURBO: "0", BOOST: "1"}
    states = ((read(root / path), on) for path, on in files.items())
    return next((text == on for text, on in states if text is not None), None)


def mitigations(root: Place) -> Optional[dict[str, str]]:
    """Return the kernel's mitigation of each CPU vulnerability, by name; None if unknown."""
    try:
        names = sorted(path.name for path in (root / VULNERABILITIES).iterdir())
    except OSError:
        return None
    texts = {name: read(root / VULNERABILITIES / name) for name in names}
    return {name: text for name, text in texts.items() if text} or None
