"""Which CPUs and memory nodes of a host an instance of a given size is given.

Pure: the doctor's facts in, kernel list strings out; the same question has the same answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from virtbed_contract.kernel.cpus import format_cpu_list as format_cpu_list
from virtbed_contract.kernel.cpus import parse_cpu_list as parse_cpu_list


class PlacementError(ValueError):
    """An instance does not fit the host; the message says what was asked, found, and what to do."""


@dataclass(frozen=True)
class Cpu:
    """One online logical CPU. `siblings` are all threads of its core, itself among them."""

    cpu: int
    node: int
    siblings: tuple[int, ...]


@dataclass(frozen=True)
class Topology:
    """The CPUs a host offers, allowed ones only, and the NUMA nodes that have memory."""

    cpus: tuple[Cpu, ...]
    memory_nodes: tuple[int, ...]

    @classmethod
    def from_doctor(cls, report: Mapping[str, Any]) -> Topology:
        """Read the topology out of a host report's facts."""
        facts = report["facts"]
        allowed = set(facts["cpu"]["allowed"])
        return cls(
            cpus=tuple(
                Cpu(row["cpu"], row["node"], tuple(row["siblings"]))
                for row in facts["cpu"]["cpus"]
                if row["cpu"] in allowed
            ),
            # A kernel without NUMA lists no node, and has all its memory on node 0.
            memory_nodes=tuple(n["node"] for n in facts["numa"] if n["memory_mib"]) or (0,),
        )


@dataclass(frozen=True)
class Placement:
    """Where an instance goes, as kernel lists ("0-2,5").

    `cpus` and `mems` are the instance's; `housekeeping` is where its helpers run (emulator threads,
    daemons). It overlaps `cpus` only when the instance takes every allowed CPU.
    """

    cpus: str
    mems: str
    housekeeping: str


def place(topology: Topology, cores: int) -> Placement:
    """Choose `cores` CPUs of a host for one instance.

    The lowest-numbered core is kept for housekeeping as long as any other CPU is left. Of the
    rest, one NUMA node is taken where one is enough, since a remote node's memory is slower; among
    several such nodes the one that needs the fewest SMT siblings, then the lowest. Otherwise the
    fewest nodes. Within them, one thread of every core comes before any second thread.

    Raises PlacementError if `cores` is below 1 or above the number of allowed CPUs.
    """
    allowed = [cpu.cpu for cpu in topology.cpus]
    if cores < 1:
        raise PlacementError(f"{cores} cores asked, at least 1 needed; raise `cores` in the plan")
    if cores > len(allowed):
        raise PlacementError(
            f"{cores} cores asked, this host offers {len(allowed)} allowed CPUs"
            f" ({format_cpu_list(allowed)}); lower `cores` in the plan, or use a larger host"
        )
    first = min(topology.cpus, key=lambda cpu: cpu.cpu)
    kept = [cpu for cpu in topology.cpus if cpu.cpu in {first.cpu, *first.siblings}]
    others = [cpu for cpu in topology.cpus if cpu not in kept]
    if cores <= len(others):
        chosen = _choose(others, cores)
    else:
        # All others are taken; the lowest CPU of the kept core gives way last.
        spare = sorted(kept, key=lambda cpu: -cpu.cpu)
        chosen = others + spare[: cores - len(others)]
    taken = {cpu.cpu for cpu in chosen}
    nodes = {cpu.node for cpu in chosen} & set(topology.memory_nodes)
    return Placement(
        cpus=format_cpu_list(taken),
        # A node of CPUs only cannot be put in cpuset.mems: all memory is as remote as any.
        mems=format_cpu_list(nodes or topology.memory_nodes),
        housekeeping=format_cpu_list({cpu.cpu for cpu in kept} - taken or taken),
    )


def keep_online(topology: Topology, cores: int) -> str:
    """Choose `cores` CPUs that stay when all others are taken offline, as a kernel list.

    Those of the lowest CPU's node first, since that CPU cannot be taken offline on most hosts;
    then the next nodes. Within a node one thread of every core comes before any second thread.
    Assumes that the host offers so many (see `place`).
    """
    first = min(topology.cpus, key=lambda cpu: cpu.cpu)
    in_turn = _threads_in_turn(list(topology.cpus))
    nearest = sorted(in_turn, key=lambda cpu: (cpu.node != first.node, cpu.node))
    return format_cpu_list(cpu.cpu for cpu in nearest[:cores])


def _choose(cpus: list[Cpu], cores: int) -> list[Cpu]:
    """Choose `cores` of `cpus`, which are enough, from as few nodes as possible."""
    by_node: dict[int, list[Cpu]] = {}
    for cpu in _threads_in_turn(cpus):
        by_node.setdefault(cpu.node, []).append(cpu)
    fitting = [node for node, offer in by_node.items() if len(offer) >= cores]
    if fitting:
        best = min(fitting, key=lambda node: (_shared_threads(by_node[node][:cores]), node))
        return by_node[best][:cores]
    pool: list[Cpu] = []
    for node in sorted(by_node, key=lambda node: (-len(by_node[node]), node)):
        pool += by_node[node]
        if len(pool) >= cores:
            break
    return _threads_in_turn(pool)[:cores]


def _threads_in_turn(cpus: list[Cpu]) -> list[Cpu]:
    """Order CPUs: the first thread of every core, then the second of every core, and so on."""
    numbers = {cpu.cpu for cpu in cpus}

    def turn(cpu: Cpu) -> tuple[int, int]:
        return sum(s < cpu.cpu for s in cpu.siblings if s in numbers), cpu.cpu

    return sorted(cpus, key=turn)


def _shared_threads(cpus: list[Cpu]) -> int:
    """Count the CPUs beyond the first of their core."""
    return len(cpus) - len({cpu.siblings for cpu in cpus})
