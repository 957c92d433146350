"""Placement: the CPUs and memory nodes of a host that an instance of a given size gets, and why.

Pure: the facts of a host's report in, kernel lists of CPUs out. The result depends on the host and
the size alone, so instances of all platforms get the same CPUs. `virtbed.locality` searches the
CPUs; this module prepares the choice and explains it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from virtbed import hwloc
from virtbed.hwloc import Machine, Node
from virtbed.locality import HEADROOM_MIB, Search, fits
from virtbed.placement_words import caches, reasons_for
from virtbed_contract.counts import count
from virtbed_contract.kernel.cpus import format_cpu_list as format_cpu_list
from virtbed_contract.kernel.cpus import parse_cpu_list as parse_cpu_list
from virtbed_contract.remedies import setup

_LARGER = "lower `cores` in the plan, or use a larger host"


class PlacementError(ValueError):
    """An instance does not fit the host; the message names the size, the CPUs and the remedy."""


@dataclass(frozen=True)
class Topology:
    """A host's machine, and the CPUs that may be used for each purpose.

    Attributes:
        machine: CPUs, kinds of core, caches and nodes.
        allowed: CPUs that virtbed's own process may run on (its affinity when it starts).
        isolated: CPUs that the scheduler does not use by itself (isolcpus).
        tickless: CPUs without a timer tick while only one process runs on them (nohz_full).
        near: CPUs near the GPU that instances are placed near; empty if there is none.
        card: PCI address of that GPU.
    """

    machine: Machine
    allowed: frozenset[int]
    isolated: frozenset[int] = frozenset()
    tickless: frozenset[int] = frozenset()
    near: frozenset[int] = frozenset()
    card: str = ""

    @classmethod
    def from_doctor(cls, facts: Mapping[str, Any]) -> Topology:
        """Return the topology that a host report's facts describe.

        Raises:
            PlacementError: hwloc's output is missing or unreadable, or disagrees with the kernel
                about the online CPUs.
        """
        machine = machine_of(facts)
        cpu = facts["cpu"]
        online = frozenset(cpu["online"])
        if online != machine.cpus:
            raise PlacementError(
                f"CPUs {format_cpu_list(online)} are online according to the kernel, "
                f"{format_cpu_list(machine.cpus)} according to hwloc; run virtbed doctor again, "
                "and bring CPUs online or take them offline only between sweeps"
            )
        isolated = frozenset(cpu["isolated"]) & online
        allowed = frozenset(cpu["allowed"]) & online
        # Memory of a node outside our cpuset cannot be bound, so the node counts as one without.
        ours = facts["nodes_allowed"] or [node.node for node in machine.nodes]
        nodes = (n if n.node in ours else replace(n, memory_mib=0) for n in machine.nodes)
        machine = replace(machine, nodes=tuple(nodes))
        return cls(machine, allowed, isolated, frozenset(cpu["tickless"]) & (allowed | isolated))

    @property
    def measured(self) -> frozenset[int]:
        """The CPUs for measured instances: the isolated ones, else the tickless, else all allowed.

        Of these only the ones near the GPU, if instances are placed near one.
        """
        cpus = _measured(self.isolated, self.tickless, self.allowed)
        return cpus & self.near if self.near else cpus

    def near_card(self, address: str) -> Topology:
        """Return this topology with instances placed near a GPU.

        Nothing changes if hwloc does not report which CPUs are near it.

        Args:
            address: The GPU's PCI address.
        """
        return replace(self, near=self.machine.cards.get(address, frozenset()), card=address)

    @property
    def why_measured(self) -> str:
        """Why these are the CPUs for measured instances; empty if they are all allowed ones."""
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
        PlacementError: hwloc's output is missing or unreadable.
    """
    topology = facts["hwloc"]
    if topology["xml"] is None:
        raise PlacementError(
            f"{topology['problem']}; hwloc, which reports the CPUs that share caches and nodes, is "
            f"needed: {setup()}, or install Debian's hwloc-nox on the host"
        )
    parts = {int(cpu): part for cpu, part in facts["cpu"]["parts"].items()}
    try:
        return hwloc.read(topology["xml"], facts["nodes_with_cpus"], parts)
    except hwloc.TopologyError as error:
        raise PlacementError(f"{error}; run virtbed doctor again") from error


@dataclass(frozen=True)
class Placement:
    """The CPUs and memory nodes of an instance, as kernel lists ("0-2,5").

    Attributes:
        cpus: CPUs of the instance.
        mems: Memory nodes of the instance.
        housekeeping: CPUs for emulator threads and daemons. They overlap `cpus` only if the
            instance takes every CPU of the host.
        kind: The kind of core, 1 for the fastest.
        caches: The caches and clusters that its CPUs share, in words.
        reasons: Why these CPUs and nodes were chosen, in words.
    """

    cpus: str
    mems: str
    housekeeping: str
    kind: int = 1
    caches: str = ""
    reasons: tuple[str, ...] = field(default=())


def choose_kind(topology: Topology, cores: int, wanted: int | None = None) -> int:
    """Return the kind of core, 1 for the fastest, for instances of up to `cores` cores.

    Args:
        topology: The host.
        cores: The largest size of the plan; all sizes use the same kind.
        wanted: The plan's `core_kind`; None for the fastest kind with enough CPUs.

    Raises:
        PlacementError: no kind has enough CPUs, or `wanted` does not exist.
    """
    if cores < 1:
        raise PlacementError(f"{cores} cores found, at least 1 needed; raise `cores` in the plan")
    offers = [kind.cpus & topology.measured for kind in topology.machine.kinds]
    if wanted is not None and not 1 <= wanted <= len(offers):
        raise PlacementError(
            f"core_kind {wanted} requested, this host has {len(offers)}: {_kinds(topology)}; "
            "change `core_kind` in the plan"
        )
    candidates = range(1, len(offers) + 1) if wanted is None else [wanted]
    kind = next((number for number in candidates if len(offers[number - 1]) >= cores), None)
    if kind is not None:
        return kind
    if len(offers) == 1:
        _check_size(cores, topology.measured, topology.why_measured)
    raise PlacementError(
        f"{count(cores, 'core')} of one kind requested, this host has {_kinds(topology)}; kinds of "
        f"core are not mixed in one instance: {_LARGER}, or change `core_kind`"
    )


def check_cores(cores: int, cpu: Mapping[str, Any]) -> None:
    """Raise PlacementError if a host has too few CPUs, by what its kernel reports.

    It needs no description of the host by hwloc, so set-up can call it before it installs anything.

    Args:
        cores: The largest size of the plan.
        cpu: The CPU part of the facts in the host's report.
    """
    online = frozenset(cpu["online"])
    isolated, tickless, allowed = (
        frozenset(cpu[name]) & online for name in ("isolated", "tickless", "allowed")
    )
    _check_size(cores, _measured(isolated, tickless & (allowed | isolated), allowed))


def _measured(
    isolated: frozenset[int], tickless: frozenset[int], allowed: frozenset[int]
) -> frozenset[int]:
    return isolated or tickless or allowed


def _check_size(cores: int, offered: Collection[int], why: str = "") -> None:
    """Raise PlacementError if a host offers fewer CPUs than an instance needs."""
    if cores > len(offered):
        raise PlacementError(
            f"{count(cores, 'core')} requested, this host offers "
            f"{count(len(offered), 'such CPU' if why else 'allowed CPU')} "
            f"({format_cpu_list(offered)}){why and f': {why}'}; {_LARGER}"
        )


def place(
    topology: Topology, cores: int, memory_mib: int = 0, kind: int | None = None
) -> Placement:
    """Choose `cores` CPUs of a host for one instance.

    All CPUs are of one kind of core. The core of the lowest CPU is reserved for housekeeping as
    long as another CPU of the kind is left. Exceptions: if threads would otherwise have to share
    cores, and housekeeping can have CPUs of another kind, or if only the node of that core has the
    memory, that core is not reserved.

    Of the other CPUs, the choice spans the fewest packages, nodes, dies, cache domains and
    clusters, in this order, because communication across them is slower. Among choices that are
    equal in this, the order of preference is:

    1. memory of the CPUs' own node, in which the instance fits;
    2. no cache shared with the housekeeping CPUs;
    3. the fewest SMT siblings;
    4. cores of which all threads are measured ones, so that nothing else runs on them;
    5. a node that a GPU is attached to;
    6. the fewest domains shared with the housekeeping CPUs;
    7. the lowest CPU.

    Within the choice, one thread of every core comes before any second thread.

    Args:
        topology: The host.
        cores: Number of CPUs of the instance.
        memory_mib: Its memory, which must fit into the nodes that it is bound to.
        kind: The kind of core, 1 for the fastest; None for the fastest kind with enough CPUs.

    Raises:
        PlacementError: the host has too few such CPUs, or their nodes have too little memory.
    """
    number = choose_kind(topology, cores, kind)
    offered = topology.machine.kinds[number - 1].cpus & topology.measured
    others = topology.allowed - topology.isolated
    lowest = min(others - topology.measured or others or offered)
    core = _core(topology.machine, lowest)
    kept = [cpu for cpu in core if cpu in topology.allowed or cpu in offered]
    free = offered.difference(kept)
    if others - offered and _cores(topology, free) < cores <= _cores(topology, offered):
        # With one core reserved, threads would share cores; housekeeping has CPUs of another kind.
        free = offered
    search = Search(topology.machine, frozenset(kept), memory_mib)
    if cores <= len(free):
        chosen = search.best(free, cores)
        if not search.holds(chosen):
            chosen = max([chosen, search.best(offered, cores)], key=search.holds)
    else:
        # All other CPUs are taken, so the reserved core is used too, its lowest CPU last.
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
    """Choose the `cores` CPUs that stay online when all others are taken offline.

    These are the CPUs nearest to the lowest one, which cannot be taken offline on most hosts: those
    that share its caches, then its die, its node, its package. One thread of every core comes
    before any second thread. If the lowest CPU is of another kind of core than `kind`, the choice
    mixes kinds, which the caller must detect. The host must have enough CPUs (see `place`).

    Returns:
        A kernel list of CPUs.
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
    """Raise PlacementError if memory nodes are too small for an instance."""
    if not fits(nodes, memory_mib):
        each = ", ".join(f"node {node.node}: {node.memory_mib} MiB" for node in nodes)
        raise PlacementError(
            f"memory_mib {memory_mib} requested for {count(cores, 'core')}, "
            f"{memory_mib + HEADROOM_MIB} MiB needed together with the emulator and the kernel; "
            f"the memory nodes of these cores have {each}: lower `memory_mib` in the plan, or "
            "raise `cores` beyond one node"
        )


def _housekeeping(
    topology: Topology, taken: frozenset[int], kept: Collection[int]
) -> frozenset[int]:
    """Return the CPUs for housekeeping.

    In order of preference: the reserved core if it shares no cache with the instance, another core
    that shares none, the reserved core, any core without a CPU of the instance, any other CPUs;
    the instance's own CPUs if it takes all.
    """
    machine = topology.machine
    allowed = topology.allowed - topology.isolated or topology.allowed
    caches = [d.cpus for d in machine.domains if d.cache and d.cpus & taken]
    shared = frozenset[int]().union(*(core for core in machine.cores if taken & {*core}), *caches)
    own = frozenset(kept) & allowed
    apart = allowed - shared
    free = allowed - taken
    untouched = [frozenset(c) & free for c in machine.cores if not taken & {*c} and free & {*c}]
    if own and not own & shared:
        return own
    if apart:
        return frozenset(_core(machine, min(apart))) & apart
    if own in untouched:
        return own
    return next(iter(untouched), own - taken) or free or taken


def _kinds(topology: Topology) -> str:
    """Return the host's kinds of core in words, each with its CPUs."""
    return "; ".join(
        f"kind {number}: CPUs {format_cpu_list(kind.cpus & topology.measured) or 'none'}"
        + (f" ({kind.words})" if kind.words else "")
        for number, kind in enumerate(topology.machine.kinds, 1)
    )
