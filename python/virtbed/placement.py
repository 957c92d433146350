"""Which CPUs and memory nodes of a host an instance of a given size is given, and why.

Pure: the doctor's facts in, kernel list strings out; the same question has the same answer, on
whichever platform it is asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from virtbed import hwloc
from virtbed.hwloc import Machine, Node
from virtbed.locality import HEADROOM_MIB, Search, fits
from virtbed.placement_words import caches, reasons_for
from virtbed_contract.kernel.cpus import format_cpu_list as format_cpu_list
from virtbed_contract.kernel.cpus import parse_cpu_list as parse_cpu_list
from virtbed_contract.remedies import setup


class PlacementError(ValueError):
    """An instance does not fit the host; the message says what was asked, found, and what to do."""


@dataclass(frozen=True)
class Topology:
    """A host's machine, and which of its CPUs may be used for what.

    Attributes:
        machine: CPUs, kinds of core, caches and nodes.
        allowed: CPUs that a process of virtbed may run on as it is started.
        isolated: CPUs that the scheduler leaves alone (isolcpus); processes are bound to them.
        tickless: CPUs without a tick while one process runs on each (nohz_full).
        near: CPUs near the card that instances are to be near; empty for no such card.
        card: Its PCI address.
    """

    machine: Machine
    allowed: frozenset[int]
    isolated: frozenset[int] = frozenset()
    tickless: frozenset[int] = frozenset()
    near: frozenset[int] = frozenset()
    card: str = ""

    @classmethod
    def from_doctor(cls, facts: Mapping[str, Any]) -> Topology:
        """Read the topology out of a host report's facts.

        Raises:
            PlacementError: hwloc printed nothing, or nothing that can be read.
        """
        machine = machine_of(facts)
        cpu = facts["cpu"]
        online = frozenset(cpu["online"])
        if online != machine.cpus:
            raise PlacementError(
                f"CPUs {format_cpu_list(online)} online by the kernel, "
                f"{format_cpu_list(machine.cpus)} by hwloc; run the doctor again, and bring CPUs "
                "online or take them offline only between sweeps"
            )
        isolated = frozenset(cpu["isolated"]) & online
        allowed = frozenset(cpu["allowed"]) & online
        # Memory of a node that our cpuset does not have cannot be bound, as if it had none.
        ours = facts["nodes_allowed"] or [node.node for node in machine.nodes]
        nodes = (n if n.node in ours else replace(n, memory_mib=0) for n in machine.nodes)
        machine = replace(machine, nodes=tuple(nodes))
        return cls(machine, allowed, isolated, frozenset(cpu["tickless"]) & (allowed | isolated))

    @property
    def measured(self) -> frozenset[int]:
        """The CPUs for measured instances: isolated or tickless ones where there are any.

        Of them those near the card, where there is one.
        """
        found = self.isolated or self.tickless or self.allowed
        return found & self.near if self.near else found

    def near_card(self, address: str) -> Topology:
        """Return the same, with instances near a card; as it is where nobody tells what is near."""
        return replace(self, near=self.machine.cards.get(address, frozenset()), card=address)

    @property
    def why_measured(self) -> str:
        """Why those; empty where they are all that are allowed."""
        why = []
        if self.isolated:
            why.append(f"CPUs {format_cpu_list(self.isolated)} are isolated (isolcpus)")
        elif self.tickless and self.tickless != self.allowed:
            why.append(f"CPUs {format_cpu_list(self.tickless)} have no tick (nohz_full)")
        if self.near and self.near != self.machine.cpus:
            why.append(f"CPUs {format_cpu_list(self.near)} are near {self.card}")
        return "; ".join(why)


def machine_of(facts: Mapping[str, Any]) -> Machine:
    """Return the machine that a host report's facts describe.

    Raises:
        PlacementError: hwloc printed nothing, or nothing that can be read.
    """
    topology = facts["hwloc"]
    if topology["xml"] is None:
        raise PlacementError(
            f"{topology['problem']}; hwloc tells which CPUs share what: {setup()}, or install "
            "Debian's hwloc-nox on the host"
        )
    parts = {int(cpu): part for cpu, part in facts["cpu"]["parts"].items()}
    try:
        return hwloc.read(topology["xml"], facts["nodes_with_cpus"], parts)
    except hwloc.TopologyError as error:
        raise PlacementError(f"{error}; run the doctor again") from error


@dataclass(frozen=True)
class Placement:
    """Where an instance goes, as kernel lists ("0-2,5").

    `cpus` and `mems` are the instance's; `housekeeping` is where its helpers run (emulator threads,
    daemons). It overlaps `cpus` only when the instance takes every CPU that there is. `caches`
    names what the CPUs share below a node, `reasons` says why they were chosen.
    """

    cpus: str
    mems: str
    housekeeping: str
    kind: int = 1
    caches: str = ""
    reasons: tuple[str, ...] = field(default=())


def choose_kind(topology: Topology, cores: int, wanted: int | None = None) -> int:
    """Return the kind of core, 1 for the fastest, for instances of up to `cores`.

    Args:
        topology: The host.
        cores: The largest size of the plan: all sizes run on one kind.
        wanted: The kind that the plan asks for; None for the fastest that holds the size.

    Raises:
        PlacementError: no kind has so many CPUs, or there is no such kind.
    """
    if cores < 1:
        raise PlacementError(f"{cores} cores asked, at least 1 needed; raise `cores` in the plan")
    offers = [kind.cpus & topology.measured for kind in topology.machine.kinds]
    if wanted is not None and not 1 <= wanted <= len(offers):
        raise PlacementError(
            f"core_kind {wanted} asked, this host has {len(offers)}: {_kinds(topology)}; change "
            "`core_kind` in the plan"
        )
    asked = range(1, len(offers) + 1) if wanted is None else [wanted]
    found = next((number for number in asked if len(offers[number - 1]) >= cores), None)
    if found is not None:
        return found
    larger = "lower `cores` in the plan, or use a larger host"
    if len(offers) == 1:
        offered = format_cpu_list(topology.measured)
        words = topology.why_measured
        raise PlacementError(
            f"{cores} cores asked, this host offers {len(topology.measured)} "
            f"{'such' if words else 'allowed'} CPUs ({offered}){words and f': {words}'}; {larger}"
        )
    raise PlacementError(
        f"{cores} cores asked of one kind, this host has {_kinds(topology)}; kinds of core are not "
        f"mixed in one instance: {larger}, or change `core_kind`"
    )


def place(
    topology: Topology, cores: int, memory_mib: int = 0, kind: int | None = None
) -> Placement:
    """Choose `cores` CPUs of a host for one instance.

    All are of one kind of core. The core of the lowest CPU is kept for housekeeping as long as any
    other CPU of the kind is left, unless threads would share a core for it while housekeeping could
    have CPUs of another kind. Of the rest the fewest packages, nodes, dies, cache domains and
    clusters are taken, in this order, since what crosses them is slower; among several that hold
    the size, those with memory of their own that fits, then those which share no cache with the
    housekeeping, then the one that needs the fewest SMT siblings, then one that a GPU hangs on,
    then one apart from the housekeeping, then the lowest. Within them, one thread of every core
    comes before any second thread.

    Args:
        topology: The host.
        cores: CPUs of the instance.
        memory_mib: Its memory, which must fit the nodes that it is bound to.
        kind: The kind of core, 1 for the fastest; None for the fastest that holds the size.

    Raises:
        PlacementError: the host has no such CPUs, or their nodes have too little memory.
    """
    number = choose_kind(topology, cores, kind)
    offered = topology.machine.kinds[number - 1].cpus & topology.measured
    others = topology.allowed - topology.isolated
    lowest = min(others - topology.measured or others or offered)
    core = _core(topology.machine, lowest)
    kept = [cpu for cpu in core if cpu in topology.allowed or cpu in offered]
    free = offered.difference(kept)
    if others - offered and _cores(topology, free) < cores <= _cores(topology, offered):
        free = offered  # no two of its CPUs need share a core, and housekeeping has another kind's
    search = Search(topology.machine, frozenset(kept), memory_mib)
    if cores <= len(free):
        chosen = search.best(free, cores)
    else:
        # All others are taken; the lowest CPU of the kept core gives way last.
        spare = sorted(offered.intersection(kept), reverse=True)
        chosen = [*free, *spare[: cores - len(free)]]
    taken = frozenset(chosen)
    nodes = search.nodes(taken)
    _check_memory(nodes, memory_mib, cores)
    housekeeping = _housekeeping(topology, taken, kept)
    reasons = reasons_for(topology.machine, taken, housekeeping, nodes, number)
    return Placement(
        cpus=format_cpu_list(taken),
        mems=format_cpu_list(node.node for node in nodes) or "0",
        housekeeping=format_cpu_list(housekeeping),
        kind=number,
        caches=caches(topology.machine, taken),
        reasons=(*filter(None, [topology.why_measured]), *reasons),
    )


def keep_online(topology: Topology, cores: int, kind: int | None = None) -> str:
    """Choose `cores` CPUs that stay when all others are taken offline, as a kernel list.

    Those nearest to the lowest CPU, which cannot be taken offline on most hosts: of its caches, its
    die, its node, its package. Within them one thread of every core comes before any second thread.
    All are of one kind where the lowest CPU is of that kind; else the caller must see that they are
    not. Assumes that the host offers so many (see `place`).
    """
    number = choose_kind(topology, cores, kind)
    online = topology.allowed | topology.isolated
    lowest = min(online)
    pool = online & (topology.machine.kinds[number - 1].cpus | {lowest})
    search = Search(topology.machine, frozenset(), 0, must=lowest)
    return format_cpu_list(search.best(pool, cores))


def _cores(topology: Topology, cpus: frozenset[int]) -> int:
    return sum(bool(cpus & {*core}) for core in topology.machine.cores)


def _core(machine: Machine, cpu: int) -> tuple[int, ...]:
    return next(core for core in machine.cores if cpu in core)


def _check_memory(nodes: Collection[Node], memory_mib: int, cores: int) -> None:
    if not fits(nodes, memory_mib):
        each = ", ".join(f"node {node.node}: {node.memory_mib} MiB" for node in nodes)
        raise PlacementError(
            f"memory_mib {memory_mib} asked for {cores} cores, {memory_mib + HEADROOM_MIB} MiB "
            f"needed with the emulator's and the kernel's; their memory nodes have {each}: lower "
            "`memory_mib` in the plan, or raise `cores` beyond one node"
        )


def _housekeeping(
    topology: Topology, taken: frozenset[int], kept: Collection[int]
) -> frozenset[int]:
    """Return the CPUs for helpers: the kept core, or one that shares no cache with those taken."""
    machine = topology.machine
    allowed = topology.allowed - topology.isolated or topology.allowed
    caches = [d.cpus for d in machine.domains if d.cache and d.cpus & taken]
    shared = frozenset[int]().union(*(core for core in machine.cores if taken & {*core}), *caches)
    own = frozenset(kept) & allowed
    apart = allowed - shared
    left = allowed - taken
    untouched = [frozenset(c) & left for c in machine.cores if not taken & {*c} and left & {*c}]
    if own and not own & shared:
        return own
    if apart:
        return frozenset(_core(machine, min(apart))) & apart
    if own in untouched:
        return own
    return next(iter(untouched), own - taken) or left or taken


def _kinds(topology: Topology) -> str:
    return "; ".join(
        f"kind {number}: CPUs {format_cpu_list(kind.cpus & topology.measured) or 'none'}"
        + (f" ({kind.words})" if kind.words else "")
        for number, kind in enumerate(topology.machine.kinds, 1)
    )
