"""The search for CPUs that are near each other (caches, dies, nodes), and their nearest memory.

Used by `virtbed.placement` and `virtbed.neighbours`. Domains are CPUs that share something; see
`hwloc.Domain`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from virtbed.hwloc import Machine, Node

HEADROOM_MIB = 512
"""Memory that a node needs besides the instance's own: for a guest's emulator, and the kernel."""


class Search:
    """A search for the nearest CPUs in the tree of domains.

    Args:
        machine: The host's machine.
        kept: CPUs reserved for housekeeping, which the result should share no cache with.
        memory_mib: Memory that the instance needs from the CPUs' nodes.
        must: A CPU that must be in the result, if the pool has it.
    """

    def __init__(
        self, machine: Machine, kept: frozenset[int], memory_mib: int, must: int | None = None
    ) -> None:
        self._machine, self._kept, self._memory_mib, self._must = machine, kept, memory_mib, must
        self._core = {cpu: core for core in machine.cores for cpu in core}
        self._memory: dict[int, tuple[Node, ...]] = {}
        self._near_kept = frozenset[int]().union(
            kept, *(d.cpus for d in machine.domains if d.cache and d.cpus & kept)
        )
        self._cards = frozenset[int]().union(*machine.cards.values())
        by_set = {domain.cpus: domain for domain in machine.domains}
        self._tree = sorted(by_set.values(), key=lambda d: (-len(d.cpus), min(d.cpus)))

    def best(self, pool: frozenset[int], cores: int) -> list[int]:
        """Return the best `cores` CPUs of a pool, which must have at least as many."""
        return self._select(pool, cores, [d.cpus for d in self._tree])

    def holds(self, cpus: Iterable[int]) -> bool:
        """Return whether the memory fits the nodes of some CPUs."""
        return fits(self.nodes(cpus), self._memory_mib)

    def nodes(self, cpus: Iterable[int]) -> tuple[Node, ...]:
        """Return the nodes whose memory is nearest to some CPUs, in order of their numbers."""
        found = {node.node: node for cpu in cpus for node in self._nearest(cpu)}
        return tuple(found[number] for number in sorted(found))

    def _nearest(self, cpu: int) -> tuple[Node, ...]:
        if cpu not in self._memory:
            self._memory[cpu] = _nearest_memory(self._machine, cpu)
        return self._memory[cpu]

    def _select(
        self, pool: frozenset[int], cores: int, domains: Sequence[frozenset[int]]
    ) -> list[int]:
        """Return the best `cores` CPUs of a pool, given the domains within it.

        Each domain with enough CPUs is searched recursively, and the best result is taken. If none
        has enough, domains are combined, the largest first, so that they are as few as possible.
        """
        parts, below = self._parts(pool, domains)
        if not below:
            order = sorted(pool, key=lambda cpu: (self._foreign([cpu], pool), cpu))
            return self._in_turn(pool, order)[:cores]
        holding = [n for n, part in enumerate(parts) if len(part) >= cores]
        if self._must in pool:
            holding = [n for n in holding if self._must in parts[n]]
        if holding:
            answers = [self._select(parts[n], cores, below[n]) for n in holding]
            return min(answers, key=lambda cpus: self._score(cpus, pool))
        together: list[int] = []
        left = set(range(len(parts)))
        while len(together) < cores:
            taken = frozenset(together)
            first = min(left, key=lambda n: self._next(parts[n], taken))
            left.remove(first)
            missing = cores - len(together)
            inner = self._select(parts[first], min(missing, len(parts[first])), below[first])
            together += [*inner, *sorted(parts[first].difference(inner))]
        if self._must in pool and len(self.nodes(together)) > 1:
            return together[:cores]  # fill the node of the required CPU first
        return self._in_turn(frozenset(together), together)[:cores]

    def _parts(
        self, pool: frozenset[int], domains: Sequence[frozenset[int]]
    ) -> tuple[list[frozenset[int]], dict[int, list[frozenset[int]]]]:
        """Split a pool by its largest domains; CPUs outside of them are split by core.

        Returns:
            The parts, and the smaller domains within each part by its index. No domains if none
            splits the pool.
        """
        parts: list[frozenset[int]] = []
        left, inside = set(pool), []
        for domain in domains:
            part = domain & pool
            inside.append(part)
            if part and part != pool and part <= left:
                parts.append(part)
                left -= part
        if not parts:
            return [pool], {}
        parts += {frozenset(self._core[cpu]) & pool for cpu in left}
        parts.sort(key=min)
        return parts, {n: [d for d in inside if d < part] for n, part in enumerate(parts)}

    def _next(self, part: frozenset[int], taken: frozenset[int]) -> tuple[object, ...]:
        """Return the sort key of the next part to combine with CPUs already taken; least first.

        In order: has the required CPU, larger, shares no cache with housekeeping, nearer, lower.
        """
        near = {node.node for node in self.nodes(taken)}
        own = {node.node for node in self.nodes(part)}
        apart = [self._machine.distances.get((a, b), 0) for a in near for b in own]
        return (
            self._must not in part,
            -len(part),
            bool(part & self._near_kept),
            sum(apart) / max(1, len(apart)),
            min(part),
        )

    def _foreign(self, cpus: Iterable[int], pool: frozenset[int]) -> int:
        """Return the number of other threads of CPUs' cores outside a pool: others may run there.

        They are outside our cpuset, or not isolated.
        """
        return sum(thread not in pool for cpu in cpus for thread in self._core[cpu])

    def _score(self, cpus: Sequence[int], pool: frozenset[int]) -> tuple[object, ...]:
        """Return the sort key of a result from a pool; the least is the best.

        In order: memory fits, memory of the CPUs' own nodes, fewest domains, no cache shared with
        housekeeping, fewest SMT siblings, fewest threads of their cores outside the pool, near a
        GPU, fewest domains shared with housekeeping, lowest CPU.
        """
        taken = frozenset(cpus)
        touched = Counter(d.name for d in self._tree if d.cpus & taken)
        cores = {self._core[cpu] for cpu in cpus}
        return (
            not self.holds(taken),
            any(cpu not in node.cpus for cpu in cpus for node in self._nearest(cpu)),
            touched.total() - len(touched),
            bool(taken & self._near_kept),
            len(cpus) - len(cores),
            self._foreign(cpus, pool),
            not taken & self._cards,
            sum(bool(d.cpus & taken and d.cpus & self._kept) for d in self._tree),
            min(cpus),
        )

    def _in_turn(self, pool: frozenset[int], order: Iterable[int]) -> list[int]:
        """Order CPUs: the first thread of every core, then the second of every core, and so on."""
        return sorted(order, key=lambda cpu: sum(s < cpu for s in self._core[cpu] if s in pool))


def _nearest_memory(machine: Machine, cpu: int) -> tuple[Node, ...]:
    """Return the node of a CPU if it has memory, else the nearest nodes that have memory.

    Memory of nodes without CPUs (HBM, CXL, GPUs, persistent memory) is used only if no node with
    CPUs has any.
    """
    home = [node for node in machine.nodes if node.own and cpu in node.cpus]
    with_memory = [node for node in machine.nodes if node.memory_mib != 0]
    own = [node for node in with_memory if node.own]
    usable = own or [node for node in with_memory if node.dram]
    if any(node in usable for node in home):
        return tuple(node for node in home if node in usable)
    far = {n.node: min((_distance(machine, h, n) for h in home), default=0) for n in usable}
    return tuple(node for node in usable if far[node.node] == min(far.values()))


def _distance(machine: Machine, one: Node, other: Node) -> int:
    return machine.distances.get((one.node, other.node), 0)


def fits(nodes: Collection[Node], memory_mib: int) -> bool:
    """Return whether nodes have enough memory for an instance; True if their sizes are unknown."""
    known = [node.memory_mib for node in nodes if node.memory_mib is not None]
    return not memory_mib or not known or sum(known) >= memory_mib + HEADROOM_MIB
