"""CPUs and memory nodes of a machine: which are there, and which CPUs share what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from .cpus import parse_cpu_list, parse_cpu_mask
from .files import fields, read

CPUS = Path("sys/devices/system/cpu")
NODES = Path("sys/devices/system/node")
VULNERABILITIES = CPUS / "vulnerabilities"
NO_TURBO, BOOST = CPUS / "intel_pstate/no_turbo", CPUS / "cpufreq/boost"
CLOCKSOURCE = Path("sys/devices/system/clocksource/clocksource0/current_clocksource")


@dataclass(frozen=True)
class Cpu:
    """One online logical CPU. `siblings` are all online threads of its core, itself among them."""

    cpu: int
    core: int
    socket: int
    node: int
    siblings: tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """One NUMA node: its CPUs, perhaps none, and its memory, perhaps none."""

    node: int
    cpus: tuple[int, ...]
    memory_mib: int


def online(root: Path) -> tuple[int, ...]:
    """Return the CPUs that are online; () where the kernel does not tell."""
    return parse_cpu_list(read(root / CPUS / "online") or "")


def present(root: Path) -> tuple[int, ...]:
    """Return the CPUs that are plugged in, online or not; () where the kernel does not tell."""
    return parse_cpu_list(read(root / CPUS / "present") or "")


def siblings(root: Path, cpu: int) -> tuple[int, ...]:
    """Return the threads of a CPU's core, itself among them."""
    found = read(root / CPUS / f"cpu{cpu}/topology/thread_siblings_list")
    return parse_cpu_list(found or "") or (cpu,)


def nodes(root: Path) -> tuple[Node, ...]:
    """Return the online NUMA nodes; () on a kernel without NUMA."""
    listed = read(root / NODES / "online")
    numbers = (
        parse_cpu_list(listed)
        if listed
        else sorted(int(home.name[len("node") :]) for home in (root / NODES).glob("node[0-9]*"))
    )
    return tuple(_node(root, number) for number in numbers)


def cpus(root: Path, online: tuple[int, ...]) -> tuple[Cpu, ...]:
    """Return the place of each of some CPUs.

    A kernel that does not know its topology writes -1, or nothing: that is one socket, one node and
    one thread per core.
    """
    node_of = {cpu: node.node for node in nodes(root) for cpu in node.cpus}
    found = []
    for cpu in online:
        topology = root / CPUS / f"cpu{cpu}/topology"
        found.append(
            Cpu(
                cpu=cpu,
                core=int(read(topology / "core_id") or cpu),
                socket=max(0, int(read(topology / "physical_package_id") or 0)),
                node=node_of.get(cpu, 0),
                siblings=siblings(root, cpu),
            )
        )
    return tuple(found)


def clocksource(root: Path) -> Optional[str]:
    """Return the clock that the kernel keeps time by, such as ``tsc`` or ``kvm-clock``."""
    return read(root / CLOCKSOURCE)


def cpu_model(root: Path) -> Optional[str]:
    """Return the model of the first CPU; None where the kernel does not tell."""
    return fields(read(root / "proc/cpuinfo")).get("model name") or None


def turbo(root: Path) -> Optional[bool]:
    """Return whether CPUs may run above their base clock rate; None where it is not told."""
    told = {NO_TURBO: "0", BOOST: "1"}
    found = ((read(root / path), on) for path, on in told.items())
    return next((text == on for text, on in found if text is not None), None)


def mitigations(root: Path) -> Optional[dict[str, str]]:
    """Return what the kernel does about each vulnerability, by name; None where it is not told."""
    try:
        names = sorted(path.name for path in (root / VULNERABILITIES).iterdir())
    except OSError:
        return None
    texts = {name: read(root / VULNERABILITIES / name) for name in names}
    return {name: text for name, text in texts.items() if text} or None


def _node(root: Path, number: int) -> Node:
    home = root / NODES / f"node{number}"
    # A line reads "Node 0 MemTotal:  7039180 kB".
    lines = (read(home / "meminfo") or "").splitlines()
    total = next((line for line in lines if "MemTotal:" in line), "0 kB")
    return Node(
        node=number,
        # Some recorded trees hold the mask alone.
        cpus=parse_cpu_list(read(home / "cpulist") or "")
        or parse_cpu_mask(read(home / "cpumap") or ""),
        memory_mib=int(total.split()[-2]) // 1024,
    )
