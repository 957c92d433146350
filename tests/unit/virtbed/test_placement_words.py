"""The reasons for a choice of CPUs, in words."""

from __future__ import annotations

from virtbed.hwloc import Machine
from virtbed.placement_words import caches, count, reasons_for

from .test_placement import host


def reasons(found: Machine, taken: set[int], housekeeping: set[int]) -> list[str]:
    nodes = [node for node in found.nodes if node.cpus & taken]
    return reasons_for(found, frozenset(taken), frozenset(housekeeping), nodes, 1)


def test_on_a_machine_with_one_cache_no_smaller_domain_is_named() -> None:
    found = host(nodes=1, cores_per_node=4).machine
    assert reasons(found, {1, 2}, {0}) == [
        "one thread per core",
        "housekeeping shares L3: no CPU outside it is left",
    ]
    assert caches(found, frozenset({1})) == "L3 of CPUs 0-3 (32768 KiB)"


def test_the_reasons_name_housekeeping_that_has_no_cpu_of_its_own() -> None:
    found = host(nodes=1, cores_per_node=2).machine
    assert reasons(found, {0, 1}, {0})[-1] == "no CPU is left for housekeeping alone"


def test_the_reasons_name_housekeeping_on_a_core_of_the_instance() -> None:
    found = host(nodes=1, cores_per_node=2, threads=2).machine
    said = "housekeeping shares a core: no core without the instance is left"
    assert reasons(found, {1, 2, 3}, {0})[-1] == said
    assert reasons(found, {1}, {0, 2})[-1] == "housekeeping shares L3: no CPU outside it is left"


def test_a_cache_is_named_instead_of_a_node_with_the_same_cpus_and_siblings_are_counted() -> None:
    found = host(nodes=2, cores_per_node=2, threads=2).machine
    assert reasons(found, {2, 6}, {0}) == [
        "within one L3 (CPUs 2-3,6-7)",
        "1 core, 1 SMT sibling used",
        "housekeeping shares no cache",
    ]
    over = reasons(found, {0, 2}, {1})
    assert {"over 2 nodes, the fewest that hold them", "one thread per core"} <= {*over}
    assert caches(found, frozenset({0, 2})).startswith("L3 of CPUs 0-1,4-5 (32768 KiB) and 2-3,6-7")


def test_the_reasons_name_memory_of_another_node() -> None:
    found = host(nodes=2, cores_per_node=2).machine
    far = reasons_for(found, frozenset({0}), frozenset({3}), [found.nodes[1]], 1)
    assert "memory of node 1, the nearest that has any" in far


def test_a_count_of_one_is_singular() -> None:
    assert [count(number, "core") for number in (1, 2)] == ["1 core", "2 cores"]
