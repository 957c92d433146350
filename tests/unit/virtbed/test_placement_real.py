"""Placement on machines that hwloc describes: small ones in this file, and recorded ones.

Each row is the choice of a person who knows the machine, with the reason.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtbed import hwloc
from virtbed.hwloc import Machine
from virtbed.placement import Topology, choose_kind, keep_online, parse_cpu_list, place
from virtbed_contract.kernel import topology as kernel

from ..contract.kernel.conftest import RECORDED, recorded  # noqa: F401 - a fixture

KEPT = Path(__file__).parent / "topologies"
WITH_CPUS = {"cxl-and-a-bare-node": (0, 1), "snc-hbm": (0, 1), "vm-of-sockets": (0,)}
# Of every CPU allowed: machine, cores, CPUs, memory nodes, housekeeping, and why.
SMALL = [
    ("hybrid-laptop", 1, "2", "0", "8", "a fast core; a slow one outside its L3 keeps house"),
    ("hybrid-laptop", 2, "0,2", "0", "8", "two fast cores whole; slow ones apart keep house"),
    ("hybrid-laptop", 4, "0-3", "0", "8", "all threads of the fast kind rather than two kinds"),
    ("epyc-nps1", 3, "4-6", "0", "0,16", "one cache domain, not the housekeeping's"),
    ("epyc-nps1", 4, "4-7", "0", "0,16", "one thread of each core of one cache domain"),
    ("epyc-nps1", 6, "4-7,20-21", "0", "0,16", "one cache domain still holds them"),
    ("epyc-nps1", 12, "4-11,20-23", "0", "0,16", "two cache domains, threads spread over cores"),
    ("epyc-nps1", 24, "4-15,20-31", "0", "0,16", "three, and the housekeeping's still left out"),
    ("snc-hbm", 4, "8-11", "1", "0", "one node, of DRAM: high-bandwidth memory is another's"),
    ("snc-hbm", 8, "8-15", "1", "0", "a whole node"),
    ("snc-hbm", 12, "1-4,8-15", "0-1", "0", "two nodes, and still no high-bandwidth memory"),
    ("cxl-and-a-bare-node", 2, "1-2", "0", "4", "near the only DRAM; the bare socket keeps house"),
    ("cxl-and-a-bare-node", 4, "4-7", "0", "0", "one socket; the nearest DRAM, not CXL"),
    ("cxl-and-a-bare-node", 6, "1-2,4-7", "0", "0", "both sockets, the only DRAM"),
    ("phone", 1, "7", "0", "0", "the big core"),
    ("phone", 3, "4-6", "0", "0", "the middle ones: the big one is alone"),
    ("phone", 4, "0-3", "0", "4", "the small ones alone are four"),
    ("mainframe", 2, "7-8", "0", "1", "one chip, of another book than the housekeeping"),
    ("mainframe", 6, "11-16", "0", "1", "the chip that holds them"),
    ("mainframe", 10, "7-16", "0", "1", "one book"),
    ("vm-of-sockets", 2, "1-2", "1", "0", "no cache is reported; memory is where there is any"),
]
# The same of the recorded machines.
REAL = [
    ("128arm", 1, "64", "2", "0", "the other package than the housekeeping's"),
    ("128arm", 4, "64-67", "2", "0", "one cluster"),
    ("128arm", 8, "64-71", "2", "0", "two whole clusters of one L3"),
    ("128arm", 32, "64-95", "2", "0", "one node, whole"),
    ("128arm", 48, "64-111", "2-3", "0", "two nodes of one package"),
    ("16amd64-8n2c", 2, "2-3", "1", "0", "one package, which is a node"),
    ("16amd64-8n2c", 4, "2-3,6-7", "1,3", "0", "two whole packages: CPU 4 is not there"),
    ("20em64t-hybrid", 1, "2", "0", "0-1", "a P-core"),
    ("20em64t-hybrid", 4, "2,4,6,8", "0", "0-1", "four P-cores, one thread each"),
    ("20em64t-hybrid", 6, "0,2,4,6,8,10", "0", "12", "all six P-cores; an E-core keeps house"),
    ("20em64t-hybrid", 8, "2-8,10", "0", "0-1", "P-cores alone, never five P and three E"),
    ("32em64t", 8, "8-15", "1", "0", "a whole socket; DAX memory is no node here"),
    ("40intel64", 8, "1,5,9,13,17,21,25,29", "1", "0", "one socket: CPUs are numbered in turn"),
    ("48amd64", 4, "12-15", "2", "0", "one L3; nodes are numbered sparsely"),
    ("48amd64", 8, "12-19", "2,33", "0", "two nodes of one package"),
    ("64amd64", 2, "16-17", "2", "0", "one module: its L2 is shared by two cores"),
    ("64amd64", 8, "16-23", "2", "0", "one L3 of four modules"),
    ("8em64t", 2, "1,5", "0", "0", "the two that share an L2"),
    ("8em64t", 4, "1,3,5,7", "0", "0", "one package, with no cache of the housekeeping's"),
    ("arm-A510", 1, "7", "0", "0", "the X3"),
    ("arm-A510", 2, "3-4", "0", "0", "the A715 pair; A710 is of like capacity and another core"),
    ("arm-A510", 3, "0-2", "0", "3", "only the A510 are three"),
    ("memorysidecaches", 8, "1,5,9,13,17,21,25,29", "1", "0,40", "one sub-NUMA cluster"),
    ("memorysidecaches", 12, "1,5,9,13,17,21,25,29,33,37,41,45", "1", "0,40", "still one node"),
    ("nvidia-dgx", 4, "15-18", "0", "0", "X925 of the cache without the housekeeping"),
    ("nvidia-dgx", 10, "5-9,15-19", "0", "0", "every X925, no A725"),
    ("nvidiagpu", 4, "88-89,92-93", "8", "0-3", "one L3 of a CPU's node, never a GPU's"),
    ("nvidiagpu", 16, "88-103", "8", "0-3", "one socket"),
    ("offline-cpu0", 4, "5,7,9,11", "1", "4", "CPU 0 and node 0 are offline"),
    ("offline-cpu0", 8, "5,7,9,11,13,15,17,19", "1", "4", "one L3"),
    ("s390-lpar", 4, "11-14", "0", "1", "the one chip with four CPUs"),
    ("vmware", 2, "8,10", "2", "0-1", "two cores of one node, on the other socket"),
    ("vmware", 8, "8-15", "2-3", "0-1", "the other socket"),
    ("x86_64-64cpu", 3, "1-3", "0", "0,4", "whole cores next to the housekeeping's"),
    ("x86_64-epyc", 3, "24-26", "4", "0,48", "one CCX"),
    ("x86_64-epyc", 6, "24-26,72-74", "4", "0,48", "one CCX holds six threads"),
    ("x86_64-epyc", 8, "24-29,72-73", "4", "0,48", "two CCX, not three"),
    ("x86_64-epyc", 12, "24-29,72-77", "4", "0,48", "two CCX: a node"),
]  # fmt: skip


def kept(name: str) -> Machine:
    xml = (KEPT / f"{name}.xml").read_text(encoding="utf-8")
    return hwloc.read(xml, WITH_CPUS.get(name, ()))


NAMES = sorted(path.stem for path in KEPT.glob("*.xml"))


@pytest.mark.parametrize(("name", "cores", "cpus", "mems", "housekeeping", "why"), SMALL)
def test_the_choice_on_small_machines(
    name: str, cores: int, cpus: str, mems: str, housekeeping: str, why: str
) -> None:
    machine = kept(name)
    placement = place(Topology(machine, machine.cpus), cores, 4096)
    found = placement.cpus, placement.mems, placement.housekeeping
    assert found == (cpus, mems, housekeeping), why


@pytest.fixture(scope="session")
def machine(recorded: Callable[[str], Path]) -> Callable[[str], Machine]:  # noqa: F811
    """Return hwloc's XML of a recorded machine."""
    known: dict[str, Machine] = {}

    def read(name: str) -> Machine:
        root = recorded(name)
        program = shutil.which("lstopo-no-graphics")
        if program is None:
            pytest.skip(
                "no lstopo-no-graphics here (Debian: hwloc-nox), which reads recorded trees"
            )
        if name not in known:
            # Nothing of this machine's own processor may be mixed in.
            reads = {"HWLOC_FSROOT": str(root), "HWLOC_COMPONENTS": "linux,stop"}
            quiet = ["--filter", "osdev:none", "--filter", "misc:none", "--no-icaches"]
            done = subprocess.run(
                [program, "--disallowed", *quiet, "--of", "xml", "-"],
                env={**os.environ, **reads, "HWLOC_THISSYSTEM": "0"},
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            known[name] = hwloc.read(done.stdout, kernel.nodes_with_cpus(root), kernel.parts(root))
        return known[name]

    return read


@pytest.mark.parametrize(("name", "cores", "cpus", "mems", "housekeeping", "why"), REAL)
def test_the_choice_on_recorded_machines(
    machine: Callable[[str], Machine],
    name: str, cores: int, cpus: str, mems: str, housekeeping: str, why: str,
) -> None:  # fmt: skip
    found = machine(name)
    placement = place(Topology(found, found.cpus), cores)
    chosen = placement.cpus, placement.mems, placement.housekeeping
    assert chosen == (cpus, mems, housekeeping), why


def test_every_recorded_machine_is_in_the_table() -> None:
    if not RECORDED.is_dir():
        pytest.skip(f"no {RECORDED}, which holds recorded machines")
    for archive in RECORDED.glob("*.tar.*"):
        assert any(archive.name.startswith(name) for name, *_ in REAL), archive.name


def holds(machine: Machine, allowed: frozenset[int], cores: int) -> None:
    """Assert what must hold of every placement on every machine."""
    topology = Topology(machine, allowed)
    number = choose_kind(topology, cores)
    placement = place(topology, cores)
    cpus, mems, housekeeping = (
        set(parse_cpu_list(text))
        for text in (placement.cpus, placement.mems, placement.housekeeping)
    )
    kind = machine.kinds[number - 1].cpus
    assert len(cpus) == cores and cpus <= kind & allowed
    assert housekeeping and housekeeping <= allowed
    assert not cpus & housekeeping or allowed <= cpus
    for node in machine.nodes:
        if node.node in mems:
            assert node.memory_mib != 0
            assert node.own or not any(n.own and n.memory_mib for n in machine.nodes)
    # One domain of each name is enough where one of them holds the size next to the kept core.
    core = next(c for c in machine.cores if min(allowed) in c)
    free = (kind & allowed).difference(core)
    for name in {domain.name for domain in machine.domains}:
        parts = [d.cpus for d in machine.domains if d.name == name]
        covered = frozenset().union(*parts)
        if any(len(part & free) >= cores for part in parts) and free <= covered:
            assert sum(bool(part & cpus) for part in parts) == 1, name
    assert placement.reasons


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_the_properties_of_placements_hold_on_every_small_machine(data: st.DataObject) -> None:
    machine = kept(data.draw(st.sampled_from(NAMES)))
    every = machine.cpus
    allowed = data.draw(st.just(every) | st.frozensets(st.sampled_from(sorted(every)), min_size=1))
    most = max(len(kind.cpus & allowed) for kind in machine.kinds)
    holds(machine, allowed, data.draw(st.integers(1, most)))


@pytest.mark.parametrize("name", sorted({name for name, *_ in REAL}))
def test_the_properties_of_placements_hold_on_every_recorded_machine(
    machine: Callable[[str], Machine], name: str
) -> None:
    found = machine(name)
    most = max(len(kind.cpus) for kind in found.kinds)
    for cores in {*range(1, min(most, 17)), *range(16, most, 16), most - 1, most} - {0}:
        holds(found, found.cpus, cores)
        stays = set(parse_cpu_list(keep_online(Topology(found, found.cpus), cores)))
        assert len(stays) == cores and min(found.cpus) in stays
