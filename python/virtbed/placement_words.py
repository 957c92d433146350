"""Texts about a placement: the caches that its CPUs share, and why they were chosen."""

from __future__ import annotations

from collections.abc import Sequence

from virtbed.hwloc import Domain, Machine, Node
from virtbed_contract.kernel.cpus import format_cpu_list


def caches(machine: Machine, taken: frozenset[int]) -> str:
    """Return the caches and clusters of some CPUs that several cores share, with their CPUs."""
    shared = [d for d in machine.domains if (d.cache or d.name == "cluster") and d.cpus & taken]
    names = list(dict.fromkeys(domain.name for domain in shared))
    return "; ".join(
        f"{name} of CPUs "
        + " and ".join(format_cpu_list(d.cpus) + _size(d) for d in shared if d.name == name)
        for name in names
    )


def _size(domain: Domain) -> str:
    return f" ({domain.size_kib} KiB)" if domain.size_kib else ""


def count(number: int, noun: str) -> str:
    """Return "1 core", "2 cores"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def reasons_for(
    machine: Machine, taken: frozenset[int], housekeeping: frozenset[int], nodes: Sequence[Node],
    number: int,
) -> list[str]:  # fmt: skip
    """Return the reasons for a choice of CPUs and nodes, as parts of a sentence.

    Args:
        machine: The host's machine.
        taken: The CPUs of the instance.
        housekeeping: The CPUs for housekeeping.
        nodes: The nodes whose memory the instance is bound to.
        number: The kind of core, 1 for the fastest.
    """
    reasons = []
    if len(machine.kinds) > 1:
        words = machine.kinds[number - 1].words or "like cores"
        reasons.append(f"core kind {number} of {len(machine.kinds)}: {words}")
    inside = [d for d in machine.domains if taken <= d.cpus and d.cpus != machine.cpus]
    if inside:
        # The smallest domain with all CPUs; of two with the same CPUs the cache is preferred.
        best = min(inside, key=lambda d: (len(d.cpus), not d.cache))
        reasons.append(f"within one {best.name} (CPUs {format_cpu_list(best.cpus)})")
    for name in dict.fromkeys(d.name for d in machine.domains):
        touched = sum(d.name == name and bool(d.cpus & taken) for d in machine.domains)
        if touched > 1:
            reasons.append(f"over {touched} {name}s, the fewest that hold them")
    cores = [core for core in machine.cores if taken & {*core}]
    whole = len(taken) - len(cores)
    reasons.append(
        f"{count(len(cores), 'core')}, {count(whole, 'SMT sibling')} used"
        if whole
        else "one thread per core"
    )
    remote = [n for n in nodes if not n.cpus & taken or not n.own]
    if remote:
        names = format_cpu_list(node.node for node in remote)
        reasons.append(f"memory of node {names}, the nearest that has any")
    cards = sorted(address for address, cpus in machine.cards.items() if cpus & taken)
    if cards and len(machine.nodes) > 1:
        reasons.append(f"the node of {', '.join(cards)}")
    caches = [d for d in machine.domains if d.cache and d.cpus & taken]
    common = [d for d in caches if d.cpus & housekeeping]
    if housekeeping & taken:
        reasons.append("no CPU is left for housekeeping alone")
    elif any(housekeeping & {*core} for core in cores):
        reasons.append("housekeeping shares a core: no core without the instance is left")
    elif common:
        smallest = min(common, key=lambda d: len(d.cpus))
        reasons.append(f"housekeeping shares {smallest.name}: no CPU outside it is left")
    elif caches:
        reasons.append("housekeeping shares no cache")
    return reasons
