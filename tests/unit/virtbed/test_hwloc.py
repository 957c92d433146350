"""Parsing hwloc's XML: kinds of core, domains, and input that is refused."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtbed import hwloc
from virtbed.hwloc import TopologyError, parse_set

from . import machines


@given(st.sets(st.integers(0, 300)))
def test_a_formatted_set_is_parsed_back_to_the_same_set(numbers: set[int]) -> None:
    assert parse_set(machines.mask(numbers)) == numbers


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0x00000f00,,0x0", {72, 73, 74, 75}), ("0x0", set()), (None, set()), ("0x1,,", {64})],
)
def test_empty_words_of_a_bitmap_are_zero(text: str | None, numbers: set[int]) -> None:
    assert parse_set(text) == numbers


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("", "no XML"),
        ("<topology", "no XML"),
        ("<root/>", "<root> of version None found"),
        ("<topology><object type='Machine'/></topology>", "version None found, hwloc's <topolog"),
        ("<topology version='2.0'/>", "names no CPU"),
        ("<!DOCTYPE t [<!ENTITY a 'b'>]><topology version='2.0'>&a;</topology>", "entities"),
        (machines.flat(2).replace('os_index="1"', 'os_index="x"'), "os_index='x' found"),
        (
            machines.flat(2).replace("0x00000003", "0xzz"),
            "'0xzz' found, hwloc's set of CPUs needed",
        ),
        ("<topology version='2.0'>" + "<object>" * 300 + "</object>" * 300 + "</topology>", "deep"),
    ],
)
def test_contradictory_xml_is_refused_with_a_message(xml: str, message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        hwloc.read(xml)


def test_xml_above_the_size_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hwloc, "MOST_HWLOC_BYTES", 100)
    with pytest.raises(TopologyError, match="at most 100 are read"):
        hwloc.read(machines.flat(2))


def test_offline_threads_and_private_caches_are_no_domains() -> None:
    every = range(4)
    private = machines.thing("L2Cache", [0, 1], machines.core(0, 1), cache_size=2**20)
    shared = machines.thing("L2Cache", [2, 3], machines.cores([2, 3]), cache_size=2**20)
    machine = hwloc.read(machines.machine(every, private, shared))
    assert machine.cores == ((0, 1), (2,), (3,)) and machine.smt
    assert [(d.name, set(d.cpus), d.size_kib) for d in machine.domains] == [("L2", {2, 3}, 1024)]


def test_reserved_huge_pages_are_no_memory_of_a_node() -> None:
    """An instance that is bound to the node cannot use them, and would be killed."""
    pages = '<page_type size="4096" count="1000"/><page_type size="2097152" count="4000"/>'
    node = machines.thing("NUMANode", range(2), pages, os_index=0, local_memory=9000 * 2**20)
    xml = machines.machine(range(2), node, machines.cores(range(2)))
    assert [node.memory_mib for node in hwloc.read(xml).nodes] == [1000]


def test_the_output_of_this_machines_hwloc_is_parsed() -> None:
    program = shutil.which("lstopo-no-graphics")
    if program is None:
        pytest.skip("no lstopo-no-graphics here (Debian: hwloc-nox)")
    command = [program, "--disallowed", "--of", "xml", "-"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert hwloc.read(done.stdout).cpus >= os.sched_getaffinity(0)
