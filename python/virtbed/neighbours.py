"""Instances next to a measured one: which CPUs they are given, and which cells can have any.

Pure: the topology of a host, a placement and an instance in; neighbours, or why there are none,
out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from virtbed.hwloc import Machine, Node
from virtbed.locality import HEADROOM_MIB, Search
from virtbed.placement import Placement, Topology
from virtbed.plan import Plan
from virtbed_contract.documents import Instance, Neighbour
from virtbed_contract.factors import FACTORS, Factor
from virtbed_contract.kernel.cpus import format_cpu_list, parse_cpu_list
from virtbed_contract.neighbours import CORE

NEIGHBOURS: Factor = next(factor for factor in FACTORS if factor.name == "neighbours")
Why = tuple[str, str]
"""Why a cell cannot run, and what would change that."""


def wanted(plan: Plan) -> int:
    """Return the most neighbours that a plan asks for."""
    return max(map(int, plan.values(NEIGHBOURS)))


def place_neighbours(
    topology: Topology, placed: Placement, most: int, memory_mib: int, total_mib: int | None = None
) -> tuple[Neighbour, ...]:
    """Choose CPUs for instances next to a placed one, of its size and kind of core.

    No CPU is in two instances. Cores that the placed one has nothing of are first, those of its own
    caches before those of its node, its package and the rest: what is shared is to be measured.
    Then the other threads of its cores, and last the CPUs of housekeeping: a neighbour would be
    slowed by it, and it by the neighbour. The first are the same however many there are.

    Args:
        topology: The host.
        placed: The measured instance.
        most: How many neighbours are wanted.
        memory_mib: Memory of each instance.
        total_mib: Memory of the host; None where that is unknown.

    Returns:
        As many as there is room for, in CPUs and in memory.
    """
    machine = topology.machine
    measured = frozenset(parse_cpu_list(placed.cpus))
    helpers = frozenset(parse_cpu_list(placed.housekeeping))
    around = _around(machine, measured)
    own_cores = around[0][1]
    free = (machine.kinds[placed.kind - 1].cpus & topology.measured) - measured
    search = Search(machine, helpers, memory_mib)
    bound = [search.nodes(measured)]
    found: list[Neighbour] = []
    while len(found) < most:
        pools = [
            (free - aside) & cpus
            for aside in (helpers | own_cores, helpers, frozenset[int]())
            for _, cpus in around
        ]
        pool = next((each for each in pools if len(each) >= len(measured)), None)
        if pool is None:
            break
        chosen = frozenset(search.best(pool, len(measured)))
        bound.append(search.nodes(chosen))
        if not _fit(bound, memory_mib, total_mib):
            break
        free -= chosen
        found.append(
            Neighbour(
                cpus=format_cpu_list(chosen),
                mems=format_cpu_list(node.node for node in bound[-1]) or "0",
                shares=next(name for name, cpus in around if cpus & chosen),
                housekeeping=bool(chosen & helpers),
            )
        )
    return tuple(found)


def _around(machine: Machine, measured: frozenset[int]) -> list[tuple[str, frozenset[int]]]:
    """Return what an instance's CPUs lie in: the name and all CPUs of each, the smallest first."""
    near = [domain for domain in machine.domains if domain.cpus & measured]
    near.sort(key=lambda domain: not domain.cache)  # a cache says more than what has the same CPUs
    each = {
        name: frozenset[int]().union(*(domain.cpus for domain in near if domain.name == name))
        for name in dict.fromkeys(domain.name for domain in near)
    }
    cores = frozenset(cpu for core in machine.cores if measured & {*core} for cpu in core)
    wider = [(name, cpus) for name, cpus in each.items() if cpus > cores]
    wider.sort(key=lambda one: len(one[1]))
    return [(CORE, cores), *wider, ("machine", machine.cpus)]


def _fit(bound: Sequence[Collection[Node]], memory_mib: int, total_mib: int | None) -> bool:
    """Return whether instances have their memory at the same time.

    Args:
        bound: The nodes that each is bound to: an instance of several takes as much of each.
        memory_mib: Memory of each instance.
        total_mib: Memory of the host; None where that is unknown.
    """
    asked: dict[int, float] = {}
    sizes: dict[int, int | None] = {}
    for nodes in bound:
        for node in nodes:
            asked[node.node] = asked.get(node.node, HEADROOM_MIB) + memory_mib / len(nodes)
            sizes[node.node] = node.memory_mib
    each = all(size is None or asked[number] <= size for number, size in sizes.items())
    return each and (total_mib is None or len(bound) * memory_mib + HEADROOM_MIB <= total_mib)


def accompanied(instance: Instance, room: Sequence[Neighbour]) -> Instance | Why:
    """Return an instance with the neighbours that its factors ask for, or why it cannot have them.

    Args:
        instance: With `factors`.
        room: The neighbours that this host has room for, next to an instance of this size.
    """
    value = instance.factors.get(NEIGHBOURS.name, NEIGHBOURS.default)
    if value == NEIGHBOURS.default:
        return instance
    asked = f"{NEIGHBOURS.plan_key} {value}"
    if instance.own_kernel:
        return (
            f"{asked}: a guest's neighbours would be guests, and one guest is made at a time",
            "vary neighbours on platforms of the host's own kernel",
        )
    if instance.private_kernel:
        return (
            f"{asked}: {instance.enclosure} has a kernel of its own, behind which the host's does "
            "not show where a neighbour runs",
            "vary neighbours on platforms of the host's own kernel",
        )
    if instance.mode != "pinned":
        return (
            f"{asked}: an instance that floats has no CPUs of its own, which neighbours could be "
            "kept off",
            "keep to mode pinned",
        )
    if len(room) < int(value):
        return (
            f"{asked}: {1 + int(value)} instances of {instance.cores} CPUs and "
            f"{instance.memory_mib} MiB each are needed at the same time, this host has room for "
            f"{1 + len(room)} (CPUs of one kind, {HEADROOM_MIB} MiB of each memory node kept)",
            "lower neighbours, cores or memory_mib in the plan, or use a larger host",
        )
    return replace(instance, neighbours=tuple(room[: int(value)]))


def unmet(plan: Plan, values: Iterable[str], reasons: Iterable[Why]) -> str | None:
    """Return which number of neighbours no cell of a plan has on this host; None if each has one.

    Args:
        plan: The plan.
        values: That of each cell.
        reasons: Of the cells that cannot run.
    """
    had = {*values, NEIGHBOURS.default}
    missing = [value for value in plan.values(NEIGHBOURS) if value not in had]
    if not missing:
        return None
    why = [
        f"{reason}; {remedy}"
        for reason, remedy in reasons
        if reason.startswith(f"{NEIGHBOURS.plan_key} {missing[0]}:")
    ]
    return (
        f"{NEIGHBOURS.plan_key}: {missing[0]} found, which no cell of the plan can have on this "
        f"host: {why[0] if why else 'none of its platforms can run'}"
    )
