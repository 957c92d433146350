"""Kinds of core: which CPUs are alike, by all that hwloc, the kernel and the processor report."""

from __future__ import annotations

import pytest

from virtbed import hwloc
from virtbed.placement import PlacementError, Topology, place

from . import machines


def kinds(*kinds_xml: str, parts: dict[int, str] | None = None) -> list[set[int]]:
    every = range(6)
    xml = machines.machine(every, machines.cores(every), outside="".join(kinds_xml))
    return [set(kind.cpus) for kind in hwloc.read(xml, parts=parts).kinds]


def test_cores_with_a_slightly_higher_boost_are_of_the_same_kind() -> None:
    assert kinds(
        machines.kind([0, 1], FrequencyMaxMHz=5200, FrequencyBaseMHz=2000),
        machines.kind([2], FrequencyMaxMHz=5500, FrequencyBaseMHz=2000),
        machines.kind([3, 4, 5], FrequencyMaxMHz=3900, FrequencyBaseMHz=1500),
    ) == [{0, 1, 2}, {3, 4, 5}]
    # In steps, of which none is a tenth.
    steps = [machines.kind([n], LinuxCapacity=1024 - 60 * n) for n in range(6)]
    assert kinds(*steps) == [{0, 1, 2, 3, 4, 5}]


def test_core_types_and_part_numbers_count_more_than_clock_rates() -> None:
    assert kinds(
        machines.kind([0, 1], CoreType="IntelAtom", FrequencyMaxMHz=4000),
        machines.kind([2, 3, 4, 5], CoreType="IntelCore", FrequencyMaxMHz=4000),
    ) == [{2, 3, 4, 5}, {0, 1}]
    like = machines.kind(range(6), LinuxCapacity=800)
    assert kinds(like, parts={0: "a", 1: "a", 2: "b", 3: "b", 4: "b", 5: "b"}) == [
        {0, 1}, {2, 3, 4, 5},
    ]  # fmt: skip
    assert kinds() == [{0, 1, 2, 3, 4, 5}]


CORE, ATOM, LOW = "IntelCore", "IntelAtom", "IntelLowPower"


def test_the_kernels_monitors_tell_intels_kinds_where_hwloc_reports_no_type() -> None:
    reported = {0: CORE, 1: ATOM, 2: ATOM, 3: CORE, 4: LOW, 5: LOW}
    assert kinds(parts=reported) == [{0, 3}, {1, 2}, {4, 5}]
    # The kernel knows more kinds than the processor's two types.
    typed = (
        machines.kind([0, 3], CoreType=CORE, FrequencyMaxMHz=4800),
        machines.kind([1, 2, 4, 5], CoreType=ATOM, FrequencyMaxMHz=5000),
    )
    assert kinds(*typed, parts=reported) == [{0, 3}, {1, 2}, {4, 5}]
    assert kinds(*typed, parts=dict.fromkeys((1, 2, 4, 5), ATOM)) == [{0, 3}, {1, 2, 4, 5}]


def test_cores_outside_of_the_last_cache_of_others_are_another_kind() -> None:
    """Low-power efficient cores have no L3; without clock rates nothing else tells them apart."""
    small = [
        machines.thing("L2Cache", cpus, machines.cores(cpus)) for cpus in ([4, 5, 6, 7], [8, 9])
    ]
    big = machines.thing("L3Cache", range(8), machines.cores(range(4)), small[0])
    xml = machines.machine(range(10), big, small[1], outside=machines.kind(range(4), CoreType=CORE))
    found = hwloc.read(xml, parts=dict.fromkeys(range(4, 10), ATOM))
    assert [set(kind.cpus) for kind in found.kinds] == [
        {0, 1, 2, 3}, {4, 5, 6, 7}, {8, 9},
    ]  # fmt: skip
    topology = Topology(found, found.cpus)
    assert place(topology, 4, kind=2).cpus == "4-7"
    with pytest.raises(PlacementError, match="not mixed"):
        place(topology, 5)
