"""CPUs, nodes and instruction sets of machines that were recorded, and of made-up ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from virtbed_contract.kernel import isa, topology

from .conftest import lay

Recorded = Callable[[str], Path]


@pytest.mark.parametrize(
    ("name", "cpus", "first", "nodes", "threads_per_core"),
    [
        ("128arm", 128, 0, 4, {1}),
        ("16amd64-8n2c", 15, 0, 8, {1}),
        ("20em64t-hybrid", 20, 0, 1, {1, 2}),
        ("48amd64", 48, 0, 8, {1}),
        ("nvidia-dgx", 20, 0, 1, {1}),
        ("offline-cpu0-node0", 17, 4, 1, {1}),
        ("s390-lpar", 17, 1, 0, {1}),
        ("x86_64-epyc_7451", 96, 0, 8, {2}),
    ],
)
def test_recorded_machines(
    recorded: Recorded, name: str, cpus: int, first: int, nodes: int, threads_per_core: set[int]
) -> None:
    root = recorded(name)
    found = topology.cpus(root, topology.online(root))
    assert (len(found), found[0].cpu) == (cpus, first)
    assert len(topology.nodes(root)) == nodes
    online = {cpu.cpu for cpu in found}
    assert {len(online & set(cpu.siblings)) for cpu in found} == threads_per_core
    assert all(cpu.cpu in cpu.siblings for cpu in found)


def test_nodes_have_any_number_and_perhaps_no_cpus(recorded: Recorded) -> None:
    sparse = topology.nodes(recorded("48amd64"))
    assert [node.node for node in sparse] == [0, 1, 2, 33, 34, 45, 72, 73]
    gpus = [node for node in topology.nodes(recorded("nvidiagpunumanodes")) if not node.cpus]
    assert [node.node for node in gpus] == [250, 251, 252, 253, 254, 255]
    assert {node.memory_mib for node in gpus} == {15360}


def test_a_node_is_known_by_its_mask_alone(recorded: Recorded) -> None:
    node = topology.nodes(recorded("x86_64-epyc_7451"))[0]
    assert node.cpus == (*range(6), *range(48, 54))


def test_cpus_that_are_offline_are_present(recorded: Recorded) -> None:
    root = recorded("offline-cpu0-node0")
    assert {0, 1, 2, 3} <= set(topology.present(root)) - set(topology.online(root))


def test_a_kernel_that_tells_nothing(tmp_path: Path) -> None:
    assert topology.online(tmp_path) == topology.present(tmp_path) == topology.nodes(tmp_path) == ()
    assert topology.cpus(tmp_path, (1,)) == (topology.Cpu(1, 1, 0, 0, (1,)),)
    assert topology.clocksource(tmp_path) is None
    assert isa.read_isa(tmp_path) == []


def test_instruction_sets_of_the_first_cpu(tmp_path: Path, recorded: Recorded) -> None:
    cpuinfo = (
        "processor\t: 0\nflags\t\t: fpu fma avx2 sse4_2 vmx\n\nprocessor\t: 1\nflags : avx512f"
    )
    lay(tmp_path, {"proc/cpuinfo": cpuinfo})
    assert isa.read_isa(tmp_path) == ["sse4_2", "avx2", "fma"]
    assert "vmx" in isa.read_flags(tmp_path)
    assert isa.read_isa(recorded("nvidia-dgx")) == ["asimd", "asimddp", "bf16", "sve"]


def test_what_tcg_emulates_is_of_the_list() -> None:
    assert set(isa.TCG_ISA) < set(isa.ISA) and len(set(isa.ISA)) == len(isa.ISA)


def test_what_decides_speed_beside_the_topology(tmp_path: Path) -> None:
    cpu = "sys/devices/system/cpu"
    lay(
        tmp_path,
        {
            "proc/cpuinfo": "processor\t: 0\nmodel name\t: Xeon 6\n\nmodel name\t: X",
            f"{cpu}/vulnerabilities/meltdown": "Mitigation: PTI",
            f"{cpu}/vulnerabilities/l1tf": "Not affected",
            f"{cpu}/cpufreq/boost": "0",
        },
    )
    assert topology.cpu_model(tmp_path) == "Xeon 6"
    assert topology.mitigations(tmp_path) == {"l1tf": "Not affected", "meltdown": "Mitigation: PTI"}
    assert topology.turbo(tmp_path) is False
    lay(tmp_path, {f"{cpu}/intel_pstate/no_turbo": "0"})
    assert topology.turbo(tmp_path) is True  # where there is the driver, boost is not its


def test_a_kernel_that_does_not_tell_what_decides_speed(tmp_path: Path) -> None:
    """As gVisor's does: its /sys has no such files."""
    assert topology.cpu_model(tmp_path) is None
    assert topology.mitigations(tmp_path) is None
    assert topology.turbo(tmp_path) is None
