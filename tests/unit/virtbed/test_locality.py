"""The search for CPUs that are near each other, and for their nearest memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from virtbed.hwloc import Machine, Node
from virtbed.locality import HEADROOM_MIB, Search, fits

from .test_placement import host


def search(machine: Machine, kept: set[int], memory_mib: int = 4096, **more: int) -> Search:
    return Search(machine, frozenset(kept), memory_mib, **more)


def best(machine: Machine, kept: set[int], cores: int, **more: int) -> list[int]:
    """Return the best CPUs of those that are not reserved for housekeeping."""
    return search(machine, kept, **more).best(machine.cpus - kept, cores)


def test_cpus_of_one_node_without_the_housekeeping_cpus_are_chosen() -> None:
    machine = host(nodes=2, cores_per_node=4).machine
    assert best(machine, {0}, 4) == [4, 5, 6, 7]
    assert best(machine, {7}, 4) == [0, 1, 2, 3]
    assert set(best(machine, {0}, 3)) < {4, 5, 6, 7}  # not next to the host's own


def test_a_size_larger_than_a_node_takes_a_whole_node_and_part_of_another() -> None:
    machine = host(nodes=2, cores_per_node=4).machine
    taken = best(machine, {0}, 6)
    assert set(taken) >= {4, 5, 6, 7} and len(set(taken)) == 6


def test_second_threads_come_after_every_core() -> None:
    machine = host(nodes=1, cores_per_node=4, threads=2).machine
    assert best(machine, {0, 4}, 3) == [1, 2, 3]
    assert set(best(machine, {0, 4}, 5)) >= {1, 2, 3}


def test_cores_whose_other_threads_are_outside_the_pool_come_last() -> None:
    """Outside our cpuset, others may run on them; outside the isolated CPUs, anyone."""
    machine = host(nodes=1, cores_per_node=4, threads=2).machine
    assert search(machine, {0, 4}).best(frozenset({1, 2, 6}), 1) == [2]
    assert search(machine, {0, 4}).best(frozenset({1, 2, 6}), 2) == [2, 1]
    two = host(nodes=2, cores_per_node=2, threads=2).machine
    assert search(two, set()).best(frozenset({0, 1, 2, 3, 6, 7}), 2) == [2, 3]
    # A core fewer is more than a strange thread.
    assert set(search(two, set()).best(frozenset({0, 1, 2, 6}), 2)) == {0, 1}


def test_a_node_with_too_little_memory_is_avoided() -> None:
    machine = host(nodes=2, cores_per_node=2).machine
    small, large = machine.nodes
    uneven = replace(machine, nodes=(small, replace(large, memory_mib=1000)))
    assert set(best(uneven, set(), 2)) == {0, 1}
    assert set(best(uneven, {0}, 2, memory_mib=400)) == {2, 3}


def test_a_cpu_of_a_node_without_memory_uses_the_nearest_memory() -> None:
    machine = host(nodes=3, cores_per_node=1).machine
    empty = replace(
        machine,
        nodes=(replace(machine.nodes[0], memory_mib=0), *machine.nodes[1:]),
        distances={(0, 1): 32, (0, 2): 21, (0, 0): 10},
    )
    assert [node.node for node in search(empty, set()).nodes([0])] == [2]
    assert [node.node for node in search(empty, set()).nodes([0, 1])] == [1, 2]


@pytest.mark.parametrize(
    ("memory_mib", "asked_mib", "enough"),
    [
        ([4096 + HEADROOM_MIB], 4096, True),
        ([4095 + HEADROOM_MIB], 4096, False),
        ([3000, 3000], 4096, True),
        ([None], 4096, True),
        ([100], 0, True),
    ],
)
def test_memory_for_the_emulator_and_the_kernel_is_included(
    memory_mib: list[int | None], asked_mib: int, enough: bool
) -> None:
    nodes = [Node(number, frozenset({number}), mib) for number, mib in enumerate(memory_mib)]
    assert fits(nodes, asked_mib) is enough
