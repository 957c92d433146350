"""Placement on hosts of many shapes: properties that hold on all, and the choice on some."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtbed import hwloc
from virtbed.hwloc import Domain, Kind, Machine, Node
from virtbed.placement import (
    Placement,
    PlacementError,
    Topology,
    choose_kind,
    format_cpu_list,
    keep_online,
    parse_cpu_list,
    place,
)

from . import machines


def host(nodes: int, cores_per_node: int, threads: int = 1, memory_mib: int = 32000) -> Topology:
    """Number CPUs as Linux does: first threads of all cores, then second threads."""
    cores = nodes * cores_per_node
    return of(
        [tuple(range(core, cores * threads, cores)) for core in range(cores)],
        [range(n * cores_per_node, (n + 1) * cores_per_node) for n in range(nodes)],
        memory_mib,
    )


def of(cores: list[tuple[int, ...]], nodes: list[range], memory_mib: int = 32000) -> Topology:
    """Return a host of nodes, each with a last-level cache, from its cores by position."""
    domains, found = [], []
    for number, places in enumerate(nodes):
        cpus = frozenset(cpu for place in places for cpu in cores[place])
        domains += [Domain(cpus, "node"), Domain(cpus, "L3", True, 32768)]
        found.append(Node(number, cpus, memory_mib))
    every = frozenset(cpu for core in cores for cpu in core)
    machine = Machine(
        tuple(sorted(cores)), (Kind(every, ""),), tuple(domains), tuple(found), {}, {}
    )
    return Topology(machine, every)


def without(topology: Topology, offline: set[int]) -> Topology:
    """Return a host with CPUs offline, which the kernel no longer lists."""
    old = topology.machine
    machine = Machine(
        tuple(c for core in old.cores if (c := tuple(n for n in core if n not in offline))),
        tuple(Kind(kind.cpus - offline, kind.words) for kind in old.kinds),
        tuple(Domain(d.cpus - offline, d.name, d.cache, d.size_kib) for d in old.domains),
        tuple(Node(n.node, n.cpus - offline, n.memory_mib) for n in old.nodes),
        {},
        {},
    )
    return Topology(machine, machine.cpus)


HOSTS = {
    "two cores": host(1, 2),
    "one core": host(1, 1),
    "laptop": host(1, 4, 2),
    "2x14 SMT": host(2, 14, 2),
    "4 sockets": host(4, 28),
    "8 nodes": host(8, 6, 2),
    # As some two-socket servers number CPUs: even ones on one socket, odd ones on the other.
    "sockets in turn": of(
        [(n, n + 28) for n in (*range(0, 28, 2), *range(1, 28, 2))], [range(14), range(14, 28)]
    ),
    # As some firmware does: both threads of a core, then those of the next.
    "side by side": of([(n, n + 1) for n in range(0, 64, 2)], [range(16), range(16, 32)]),
    "SMT off in part": without(host(2, 14, 2), set(range(40, 56))),
    "node 0 almost offline": without(host(2, 4), {1, 2, 3}),
}


@st.composite
def questions(draw: st.DrawFn) -> tuple[Topology, int]:
    """Generate a host with some CPUs not allowed, and a size that fits it."""
    whole = HOSTS[draw(st.sampled_from(sorted(HOSTS)))]
    numbers = sorted(whole.machine.cpus)
    allowed = draw(st.sets(st.sampled_from(numbers), min_size=1) | st.just(set(numbers)))
    return Topology(whole.machine, frozenset(allowed)), draw(st.integers(1, len(allowed)))


def sets(placement: Placement) -> tuple[set[int], set[int], set[int]]:
    lists = placement.cpus, placement.mems, placement.housekeeping
    cpus, mems, housekeeping = (set(parse_cpu_list(each)) for each in lists)
    return cpus, mems, housekeeping


def node_of(topology: Topology, cpu: int) -> int:
    return next(node.node for node in topology.machine.nodes if cpu in node.cpus)


@given(questions())
def test_a_placement_has_the_requested_number_of_allowed_cpus(
    question: tuple[Topology, int],
) -> None:
    topology, cores = question
    cpus, mems, housekeeping = sets(place(topology, cores))
    assert len(cpus) == cores
    assert cpus <= topology.allowed
    assert housekeeping and housekeeping <= topology.allowed
    assert mems == {node_of(topology, cpu) for cpu in cpus}


@given(questions())
def test_housekeeping_has_its_own_cpus_unless_the_instance_takes_all(
    question: tuple[Topology, int],
) -> None:
    topology, cores = question
    cpus, _, housekeeping = sets(place(topology, cores))
    if cores < len(topology.allowed):
        assert not cpus & housekeeping
        assert min(topology.allowed) not in cpus
    else:
        assert cpus == housekeeping


@given(questions())
def test_housekeeping_shares_a_cache_only_if_no_other_cpu_is_left(
    question: tuple[Topology, int],
) -> None:
    topology, cores = question
    cpus, _, housekeeping = sets(place(topology, cores))
    nodes = {node_of(topology, cpu) for cpu in cpus}
    if nodes & {node_of(topology, cpu) for cpu in housekeeping}:
        assert {node_of(topology, cpu) for cpu in topology.allowed - cpus} <= nodes


@given(questions())
def test_one_node_is_used_if_it_has_enough_cpus(question: tuple[Topology, int]) -> None:
    topology, cores = question
    lowest = min(topology.allowed)
    core = next(core for core in topology.machine.cores if lowest in core)
    free = topology.allowed.difference(core)
    _, mems, _ = sets(place(topology, cores))
    if max(len(node.cpus & free) for node in topology.machine.nodes) >= cores:
        assert len(mems) == 1


@given(questions())
def test_no_core_is_shared_while_a_core_of_the_same_nodes_is_free(
    question: tuple[Topology, int],
) -> None:
    topology, cores = question
    cpus, mems, housekeeping = sets(place(topology, cores))
    lowest = min(topology.allowed)
    used = []
    for core in topology.machine.cores:
        usable = topology.allowed.intersection(core) - housekeeping
        if usable and node_of(topology, core[0]) in mems and lowest not in core:
            used.append(len(cpus.intersection(core)))
    if max(used, default=0) > 1:
        assert 0 not in used


@given(questions(), st.randoms())
def test_the_order_of_the_facts_does_not_matter(question: tuple[Topology, int], random) -> None:
    topology, cores = question
    old, lists = topology.machine, {}
    for name in ("kinds", "domains", "nodes"):
        lists[name] = list(getattr(old, name))
        random.shuffle(lists[name])
    machine = Machine(old.cores, distances={}, cards={}, **lists)
    assert place(Topology(machine, topology.allowed), cores).cpus == place(topology, cores).cpus


@pytest.mark.parametrize(
    ("name", "cores", "expected"),
    [
        ("two cores", 1, ("1", "0", "0")),
        ("two cores", 2, ("0-1", "0", "0-1")),
        ("one core", 1, ("0", "0", "0")),
        ("laptop", 3, ("1-3", "0", "0,4")),
        ("laptop", 4, ("1-3,5", "0", "0,4")),
        ("laptop", 7, ("1-7", "0", "0")),
        # The other node's cache is apart from the housekeeping's.
        ("2x14 SMT", 13, ("14-26", "1", "0,28")),
        ("2x14 SMT", 14, ("14-27", "1", "0,28")),
        ("2x14 SMT", 20, ("14-27,42-47", "1", "0,28")),
        ("4 sockets", 27, ("28-54", "1", "0")),
        ("4 sockets", 56, ("28-83", "1-2", "0")),
        ("8 nodes", 6, ("6-11", "1", "0,48")),
        ("8 nodes", 12, ("6-11,54-59", "1", "0,48")),
        ("side by side", 4, ("32,34,36,38", "1", "0-1")),
        ("side by side", 16, ("32,34,36,38,40,42,44,46,48,50,52,54,56,58,60,62", "1", "0-1")),
        ("sockets in turn", 14, ("1,3,5,7,9,11,13,15,17,19,21,23,25,27", "1", "0,28")),
        ("SMT off in part", 14, ("14-27", "1", "0,28")),
        ("node 0 almost offline", 1, ("4", "1", "0")),
    ],
)
def test_the_chosen_cpus(name: str, cores: int, expected: tuple[str, str, str]) -> None:
    placement = place(HOSTS[name], cores)
    assert (placement.cpus, placement.mems, placement.housekeeping) == expected


@pytest.mark.parametrize(
    ("name", "cores", "expected"),
    [
        ("two cores", 1, "0"),
        ("laptop", 4, "0-3"),
        ("laptop", 5, "0-4"),
        ("2x14 SMT", 14, "0-13"),
        ("2x14 SMT", 30, "0-15,28-41"),
        ("side by side", 2, "0,2"),
    ],
)
def test_the_cpus_that_stay_online(name: str, cores: int, expected: str) -> None:
    assert keep_online(HOSTS[name], cores) == expected


def test_the_message_for_too_many_cores_names_found_needed_and_the_remedy() -> None:
    with pytest.raises(PlacementError, match=r"3 cores requested, .* allowed CPUs \(0-1\); lower"):
        place(HOSTS["two cores"], 3)
    with pytest.raises(PlacementError, match="at least 1 needed"):
        place(HOSTS["two cores"], 0)


def two_nodes(*memory: str, outside: str = "", cards: str = "") -> Topology:
    """Return a host of two nodes of four cores, with more of hwloc's objects."""
    halves = range(4), range(4, 8)
    inside = [
        machines.thing("Package", cpus, machines.thing("L3Cache", cpus, machines.cores(cpus)))
        for cpus in halves
    ]
    xml = machines.machine(range(8), *inside, *memory, cards, outside=outside)
    machine = hwloc.read(xml, with_cpus=(0, 1))
    return Topology(machine, machine.cpus)


FAR = machines.distances({0: (10, 21, 17), 1: (21, 10, 28), 2: (17, 28, 10)})
FIRST, SECOND = range(4), range(4, 8)


def test_memory_is_bound_to_dram_only() -> None:
    """High-bandwidth, far and GPU memory are nodes without CPUs, near those of another."""
    more = (
        machines.node(2, FIRST, 64000, subtype="HBM"),
        machines.node(3, range(8), 64000),
        machines.node(4, SECOND, 96000, subtype="GPUMemory"),
    )
    both = (machines.node(0, FIRST, 9000), machines.node(1, SECOND, 9000))
    topology = two_nodes(*both, *more)
    assert [(n.node, n.own, n.dram) for n in topology.machine.nodes] == [
        (0, True, True), (1, True, True), (2, False, False), (3, False, True), (4, False, False),
    ]  # fmt: skip
    assert (place(topology, 4, 4096).mems, place(topology, 8, 4096).mems) == ("1", "0-1")
    # Not even where it would fit there and nowhere else.
    with pytest.raises(PlacementError, match=r"memory_mib 16000.*16512 MiB.*node 1: 9000 MiB"):
        place(topology, 4, 16000)


def test_cpus_of_a_node_without_memory_use_the_nearest_memory() -> None:
    nodes = machines.node(0, FIRST, 9000), machines.node(1, SECOND, 0)
    placement = place(two_nodes(*nodes, machines.node(2, FIRST, 9000), outside=FAR), 4)
    assert (placement.cpus, placement.mems) == ("4-7", "0")
    assert "memory of node 0, the nearest that has any" in placement.reasons


def test_memory_outside_of_our_cpuset_is_never_bound() -> None:
    nodes = machines.node(0, FIRST, 9000), machines.node(1, SECOND, 9000)
    parts = [machines.thing("L3Cache", cpus, machines.cores(cpus)) for cpus in (FIRST, SECOND)]
    facts = machines.facts(machines.machine(range(8), *parts, *nodes), 8)
    assert place(Topology.from_doctor(facts), 2).mems == "1"
    facts["nodes_allowed"] = [0]
    placement = place(Topology.from_doctor(facts), 2)
    assert (placement.cpus, placement.mems, placement.housekeeping) == ("1-2", "0", "4")


def test_cpus_are_chosen_where_the_memory_suffices() -> None:
    """Enough memory is more important than distance from the housekeeping CPUs."""
    topology = two_nodes(machines.node(0, FIRST, 9000), machines.node(1, SECOND, 4000))
    assert (place(topology, 2, 2000).cpus, place(topology, 2, 2000).mems) == ("4-5", "1")
    assert (place(topology, 2, 8000).cpus, place(topology, 2, 8000).mems) == ("1-2", "0")
    assert place(topology, 8, 12000).mems == "0-1"
    # Only the whole first node holds it, so housekeeping leaves it.
    whole = place(topology, 4, 8000)
    assert (whole.cpus, whole.mems, whole.housekeeping) == ("0-3", "0", "4")
    with pytest.raises(PlacementError, match="raise `cores` beyond one node"):
        place(topology, 2, 12000)


def test_instances_are_placed_near_a_gpu_but_not_near_a_servers_display() -> None:
    third = machines.thing("L3Cache", range(8, 12), machines.cores(range(8, 12)))
    nodes = [machines.node(n, range(4 * n, 4 * n + 4), 9000) for n in range(3)]
    parts = [machines.thing("L3Cache", c, machines.cores(c)) for c in (FIRST, SECOND)]

    def near(pci_type: str) -> Placement:
        card = f'<object type="PCIDev" pci_busid="0000:41:00.0" pci_type="{pci_type}"/>'
        last = machines.thing("Package", range(8, 12), third, card)
        xml = machines.machine(range(12), *parts, last, *nodes)
        return place(Topology(hwloc.read(xml), frozenset(range(12))), 2)

    assert near("0302 [10de:2330] [10de:16c1] a1").cpus == "8-9"
    assert "the node of 0000:41:00.0" in near("0300 [10de:2230] [10de:1459] a1").reasons
    assert near("0300 [1a03:2000] [1a03:2000] 52").cpus == "4-5"


def test_isolated_cpus_are_used_for_instances_and_the_others_for_housekeeping() -> None:
    machine = HOSTS["2x14 SMT"].machine
    isolated = frozenset({2, 3, 30, 31})
    topology = Topology(machine, machine.cpus - isolated, isolated)
    placement = place(topology, 2)
    # Housekeeping leaves their cache, too.
    assert (placement.cpus, placement.housekeeping) == ("2-3", "14,42")
    assert "CPUs 2-3,30-31 are isolated (isolcpus)" in placement.reasons
    with pytest.raises(PlacementError, match="isolated"):
        place(topology, 5)


def test_all_sizes_use_the_fastest_kind_that_holds_the_largest_size() -> None:
    machine = HOSTS["laptop"].machine
    kinds = (Kind(frozenset({3, 7}), "fast"), Kind(frozenset({0, 1, 2, 4, 5, 6}), "slow"))
    mixed = Machine(machine.cores, kinds, machine.domains, machine.nodes, {}, {})
    topology = Topology(mixed, mixed.cpus)
    assert [choose_kind(topology, cores) for cores in (1, 2, 3, 6)] == [1, 1, 2, 2]
    assert place(topology, 1, kind=2).cpus == "1"
    with pytest.raises(PlacementError, match=r"kind 1: CPUs 3,7 \(fast\); kind 2: .* not mixed"):
        choose_kind(topology, 7)


def test_from_doctor_reads_allowed_isolated_and_tickless_cpus() -> None:
    facts = machines.facts(machines.flat(4), 4, allowed=[1, 2], isolated=[3])
    topology = Topology.from_doctor(facts)
    assert (topology.allowed, topology.measured) == ({1, 2}, {3})
    assert format_cpu_list(topology.machine.cpus) == "0-3"
