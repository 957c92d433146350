"""Neighbours of a measured instance: the CPUs that they get, and which cells can have any.

Pure: the topology of a host, a placement and an instance in; the neighbours, or the reason why
there are none, out. The role trial_neighbours starts them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from virtbed.hwloc import Machine, Node
from virtbed.locality import HEADROOM_MIB, Search
from virtbed.placement import Placement, Topology
from virtbed.plan import Plan
from virtbed_contract.counts import count
from virtbed_contract.documents import Instance, Neighbour
from virtbed_contract.factors import FACTORS, Factor
from virtbed_contract.kernel.cpus import format_cpu_list, parse_cpu_list
from virtbed_contract.neighbours import CORE

NEIGHBOURS: Factor = next(factor for factor in FACTORS if factor.name == "neighbours")
Why = tuple[str, str]
"""Why a cell cannot run, and the remedy."""


def wanted(plan: Plan) -> int:
    """Return the largest number of neighbours that a plan lists."""
    return max(map(int, plan.values(NEIGHBOURS)))


def place_neighbours(
    topology: Topology, placed: Placement, most: int, memory_mib: int, total_mib: int | None = None
) -> tuple[Neighbour, ...]:
    """Choose the CPUs of neighbours: instances of the same size and kind of core as a placed one.

    No CPU belongs to two instances. Order of preference: cores without a CPU of the measured
    instance, first those under the same caches, then those of the same node, the same package and
    the rest, because the effect of what they share is to be measured; then the other threads of the
    measured instance's cores; last the housekeeping CPUs, where neighbours and housekeeping slow
    each other. The first neighbours are the same, however many there are.

    Args:
        topology: The host.
        placed: Placement of the measured instance.
        most: Number of neighbours wanted.
        memory_mib: Memory of each instance, in MiB.
        total_mib: Memory of the host, in MiB; None if unknown.

    Returns:
        At most `most` neighbours; fewer if CPUs or memory do not suffice.
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
    """Return the domains around an instance's CPUs, smallest first: the name and CPUs of each."""
    near = [domain for domain in machine.domains if domain.cpus & measured]
    near.sort(key=lambda domain: not domain.cache)  # of domains with the same CPUs name the cache
    each = {
        name: frozenset[int]().union(*(domain.cpus for domain in near if domain.name == name))
        for name in dict.fromkeys(domain.name for domain in near)
    }
    cores = frozenset(cpu for core in machine.cores if measured & {*core} for cpu in core)
    wider = [(name, cpus) for name, cpus in each.items() if cpus > cores]
    wider.sort(key=lambda one: len(one[1]))
    return [(CORE, cores), *wider, ("machine", machine.cpus)]


def _fit(bound: Sequence[Collection[Node]], memory_mib: int, total_mib: int | None) -> bool:
    """Return whether the memory suffices for all instances at the same time.

    Args:
        bound: The nodes that each instance is bound to; it takes an equal part from each.
        memory_mib: Memory of each instance, in MiB.
        total_mib: Memory of the host, in MiB; None if unknown.
    """
    needed: dict[int, float] = {}
    sizes: dict[int, int | None] = {}
    for nodes in bound:
        for node in nodes:
            needed[node.node] = needed.get(node.node, HEADROOM_MIB) + memory_mib / len(nodes)
            sizes[node.node] = node.memory_mib
    each = all(size is None or needed[number] <= size for number, size in sizes.items())
    return each and (total_mib is None or len(bound) * memory_mib + HEADROOM_MIB <= total_mib)


def accompanied(instance: Instance, room: Sequence[Neighbour]) -> Instance | Why:
    """Return an instance with the neighbours that its factors require, or why it cannot have them.

    Args:
        instance: The instance, with its `factors`.
        room: The neighbours that this host has room for, next to an instance of this size.
    """
    value = instance.factors.get(NEIGHBOURS.name, NEIGHBOURS.default)
    if value == NEIGHBOURS.default:
        return instance
    setting = f"{NEIGHBOURS.plan_key} {value}"
    if instance.own_kernel:
        return (
            f"{setting}: a guest's neighbours would be guests, and one guest is made at a time",
            "vary neighbours on platforms that use the host's own kernel",
        )
    if instance.private_kernel:
        return (
            f"{setting}: {instance.enclosure} has a kernel of its own, so the host's kernel does "
            "not show where a neighbour runs",
            "vary neighbours on platforms that use the host's own kernel",
        )
    if instance.mode != "pinned":
        return (
            f"{setting}: an instance that floats has no CPUs of its own, which neighbours could be "
            "kept off",
            "keep to mode pinned",
        )
    if len(room) < int(value):
        return (
            f"{setting}: {1 + int(value)} instances of {count(instance.cores, 'CPU')} and "
            f"{instance.memory_mib} MiB each are needed at the same time, this host has room for "
            f"{1 + len(room)} (CPUs of one kind, {HEADROOM_MIB} MiB of each memory node kept)",
            "lower neighbours, cores or memory_mib in the plan, or use a larger host",
        )
    return replace(instance, neighbours=tuple(room[: int(value)]))


def unmet(plan: Plan, values: Iterable[str], reasons: Iterable[Why]) -> str | None:
    """Return a message if no cell can have one of the plan's numbers of neighbours; else None.

    Args:
        plan: The plan.
        values: The number of neighbours of each cell of the design.
        reasons: Why other cells cannot run, with the remedies.
    """
    possible = {*values, NEIGHBOURS.default}
    missing = [value for value in plan.values(NEIGHBOURS) if value not in possible]
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
