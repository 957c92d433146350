"""Placement on hosts of many shapes: what must hold on all of them, and what is chosen on some."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtbed.placement import (
    Cpu,
    PlacementError,
    Topology,
    keep_online,
    parse_cpu_list,
    place,
)


def host(nodes: int, cores_per_node: int, threads: int = 1) -> Topology:
    """Number CPUs as Linux does: first threads of all cores, then second threads."""
    cores = nodes * cores_per_node
    return Topology(
        cpus=tuple(
            Cpu(
                cpu,
                cpu % cores // cores_per_node,
                tuple(range(cpu % cores, cores * threads, cores)),
            )
            for cpu in range(cores * threads)
        ),
        memory_nodes=tuple(range(nodes)),
    )


def with_siblings_side_by_side(nodes: int, cores_per_node: int) -> Topology:
    """Number CPUs as some firmware does: both threads of a core, then those of the next."""
    return Topology(
        cpus=tuple(
            Cpu(cpu, cpu // 2 // cores_per_node, (cpu & ~1, cpu | 1))
            for cpu in range(2 * nodes * cores_per_node)
        ),
        memory_nodes=tuple(range(nodes)),
    )


def with_sockets_in_turn(cores_per_node: int) -> Topology:
    """Number CPUs as some two-socket servers do: even ones on one socket, odd ones on the other."""
    cores = 2 * cores_per_node
    return Topology(
        cpus=tuple(
            Cpu(cpu, cpu % 2, (cpu % cores, cpu % cores + cores)) for cpu in range(2 * cores)
        ),
        memory_nodes=(0, 1),
    )


def without(topology: Topology, offline: set[int]) -> Topology:
    """Take CPUs offline: the kernel then names them in no list of siblings either."""
    return Topology(
        tuple(
            Cpu(cpu.cpu, cpu.node, tuple(s for s in cpu.siblings if s not in offline))
            for cpu in topology.cpus
            if cpu.cpu not in offline
        ),
        topology.memory_nodes,
    )


HOSTS = {
    "two cores": host(1, 2),
    "one core": host(1, 1),
    "laptop": host(1, 4, 2),
    "2x14 SMT": host(2, 14, 2),
    "4 sockets": host(4, 28),
    "8 nodes": host(8, 6, 2),
    "sockets in turn": with_sockets_in_turn(14),
    "side by side": with_siblings_side_by_side(2, 16),
    "SMT off in part": without(host(2, 14, 2), set(range(40, 56))),
    "node 0 almost offline": without(host(2, 4), {1, 2, 3}),
}


@st.composite
def questions(draw: st.DrawFn) -> tuple[Topology, int]:
    """A host with some CPUs not allowed, and a size that fits it."""
    whole = HOSTS[draw(st.sampled_from(sorted(HOSTS)))]
    numbers = [cpu.cpu for cpu in whole.cpus]
    allowed = draw(st.sets(st.sampled_from(numbers), min_size=1) | st.just(set(numbers)))
    cpus = tuple(cpu for cpu in whole.cpus if cpu.cpu in allowed)
    return Topology(cpus, whole.memory_nodes), draw(st.integers(1, len(cpus)))


def sets(topology: Topology, cores: int) -> tuple[set[int], set[int], set[int]]:
    placement = place(topology, cores)
    cpus, mems, housekeeping = map(
        parse_cpu_list, (placement.cpus, placement.mems, placement.housekeeping)
    )
    return set(cpus), set(mems), set(housekeeping)


@given(questions())
def test_it_gives_the_count_asked_within_what_is_allowed(question: tuple[Topology, int]) -> None:
    topology, cores = question
    cpus, mems, housekeeping = sets(topology, cores)
    allowed = {cpu.cpu for cpu in topology.cpus}
    assert len(cpus) == cores
    assert cpus <= allowed
    assert housekeeping and housekeeping <= allowed
    assert mems == {cpu.node for cpu in topology.cpus if cpu.cpu in cpus}


@given(questions())
def test_housekeeping_is_apart_until_every_cpu_is_taken(question: tuple[Topology, int]) -> None:
    topology, cores = question
    cpus, _, housekeeping = sets(topology, cores)
    if cores < len(topology.cpus):
        assert not cpus & housekeeping
        assert min(cpu.cpu for cpu in topology.cpus) in housekeeping
    else:
        assert cpus == housekeeping


@given(questions())
def test_one_node_is_used_where_one_is_enough(question: tuple[Topology, int]) -> None:
    topology, cores = question
    lowest = min(topology.cpus, key=lambda cpu: cpu.cpu)
    free = [cpu for cpu in topology.cpus if cpu.cpu not in lowest.siblings]
    per_node = [sum(cpu.node == node for cpu in free) for node in topology.memory_nodes]
    _, mems, _ = sets(topology, cores)
    if max(per_node) >= cores:
        assert len(mems) == 1


@given(questions())
def test_no_core_is_shared_while_a_core_of_the_same_nodes_is_free(
    question: tuple[Topology, int],
) -> None:
    topology, cores = question
    cpus, mems, housekeeping = sets(topology, cores)
    by_core: dict[tuple[int, ...], int] = {}
    for cpu in topology.cpus:
        if cpu.node in mems and cpu.cpu not in housekeeping:
            by_core[cpu.siblings] = by_core.get(cpu.siblings, 0) + (cpu.cpu in cpus)
    lowest = min(topology.cpus, key=lambda cpu: cpu.cpu)
    by_core.pop(lowest.siblings, None)  # gives way last, even half taken
    if max(by_core.values(), default=0) > 1:
        assert 0 not in by_core.values()


@given(questions(), st.randoms())
def test_the_order_of_the_facts_does_not_matter(question: tuple[Topology, int], random) -> None:
    topology, cores = question
    shuffled = list(topology.cpus)
    random.shuffle(shuffled)
    assert place(Topology(tuple(shuffled), topology.memory_nodes), cores) == place(topology, cores)


@pytest.mark.parametrize(
    ("name", "cores", "expected"),
    [
        ("two cores", 1, ("1", "0", "0")),
        ("two cores", 2, ("0-1", "0", "0-1")),
        ("one core", 1, ("0", "0", "0")),
        ("laptop", 3, ("1-3", "0", "0,4")),
        ("laptop", 4, ("1-3,5", "0", "0,4")),
        ("laptop", 7, ("1-7", "0", "0")),
        ("2x14 SMT", 13, ("1-13", "0", "0,28")),
        # Node 1 has fourteen whole cores free, node 0 only thirteen.
        ("2x14 SMT", 14, ("14-27", "1", "0,28")),
        ("4 sockets", 27, ("1-27", "0", "0")),
        ("4 sockets", 28, ("28-55", "1", "0")),
        ("4 sockets", 56, ("28-83", "1-2", "0")),
        ("8 nodes", 6, ("6-11", "1", "0,48")),
        ("8 nodes", 12, ("6-11,54-59", "1", "0,48")),
        ("side by side", 4, ("2,4,6,8", "0", "0-1")),
        ("side by side", 16, ("32,34,36,38,40,42,44,46,48,50,52,54,56,58,60,62", "1", "0-1")),
        ("sockets in turn", 13, ("2,4,6,8,10,12,14,16,18,20,22,24,26", "0", "0,28")),
        ("sockets in turn", 14, ("1,3,5,7,9,11,13,15,17,19,21,23,25,27", "1", "0,28")),
        ("SMT off in part", 14, ("14-27", "1", "0,28")),
        ("node 0 almost offline", 1, ("4", "1", "0")),
    ],
)
def test_what_is_chosen(name: str, cores: int, expected: tuple[str, str, str]) -> None:
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
def test_what_stays_online(name: str, cores: int, expected: str) -> None:
    assert keep_online(HOSTS[name], cores) == expected


def test_a_node_without_memory_is_not_named() -> None:
    bare = Topology(host(2, 2).cpus, memory_nodes=(0,))
    assert place(bare, 2).cpus == "2-3"
    assert place(bare, 2).mems == "0"


def test_too_many_cores_names_found_needed_and_where_to_change() -> None:
    with pytest.raises(PlacementError, match=r"3 cores asked, .* 2 allowed CPUs \(0-1\); lower"):
        place(HOSTS["two cores"], 3)
    with pytest.raises(PlacementError, match="at least 1 needed"):
        place(HOSTS["two cores"], 0)


def test_from_doctor_drops_what_is_not_allowed() -> None:
    rows = [{"cpu": n, "core": n, "socket": 0, "node": 0, "siblings": [n]} for n in range(4)]
    facts = {"cpu": {"allowed": [1, 2], "cpus": rows}, "numa": []}
    topology = Topology.from_doctor({"facts": facts})
    assert [cpu.cpu for cpu in topology.cpus] == [1, 2]
    assert topology.memory_nodes == (0,)
