"""Tests of the readers of CPUs and instruction sets, on recorded and synthetic machines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from virtbed_contract.kernel import isa, topology

from .conftest import lay

Recorded = Callable[[str], Path]


def test_offline_cpus_are_present(recorded: Recorded) -> None:
    root = recorded("offline-cpu0-node0")
    assert {0, 1, 2, 3} <= set(topology.present(root)) - set(topology.online(root))


def test_nodes_of_a_gpus_memory_have_no_cpus(recorded: Recorded) -> None:
    assert topology.nodes_with_cpus(recorded("nvidiagpunumanodes")) == (0, 8)


def test_kinds_of_cores_of_a_phone(recorded: Recorded) -> None:
    parts = topology.parts(recorded("arm-A510"))
    assert [parts[cpu] for cpu in (0, 3, 5, 7)] == [
        "0x41/0xd46", "0x41/0xd4d", "0x41/0xd47", "0x41/0xd4e",
    ]  # fmt: skip


def test_kinds_of_cores_of_a_hybrid_processor(tmp_path: Path) -> None:
    """Its performance monitors tell them, in any numbering; a processor of one kind has one."""
    lay(tmp_path, {"sys/devices/cpu/type": "4"})
    assert topology.parts(tmp_path) == {}
    lists = {"core": "0-1,6", "atom": "2-3", "lowpower": "4-5"}
    lay(tmp_path, {f"sys/devices/cpu_{name}/cpus": cpus for name, cpus in lists.items()})
    core, atom, low = "IntelCore", "IntelAtom", "IntelLowPower"
    assert topology.parts(tmp_path) == {
        0: core, 1: core, 6: core, 2: atom, 3: atom, 4: low, 5: low,
    }  # fmt: skip


def test_isolated_and_tickless_cpus(tmp_path: Path) -> None:
    cpu = "sys/devices/system/cpu"
    lay(tmp_path, {f"{cpu}/isolated": "2-3", f"{cpu}/nohz_full": "1-3"})
    assert (topology.isolated(tmp_path), topology.tickless(tmp_path)) == ((2, 3), (1, 2, 3))
    lay(tmp_path, {f"{cpu}/isolated": "", f"{cpu}/nohz_full": "(null)"})
    assert topology.isolated(tmp_path) == topology.tickless(tmp_path) == ()


def test_a_kernel_that_reports_nothing(tmp_path: Path) -> None:
    assert topology.online(tmp_path) == topology.present(tmp_path) == ()
    assert topology.isolated(tmp_path) == topology.tickless(tmp_path) == ()
    assert topology.nodes_with_cpus(tmp_path) == () and topology.parts(tmp_path) == {}
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


def test_instruction_sets_of_tcg_are_in_the_list() -> None:
    assert set(isa.TCG_ISA) < set(isa.ISA) and len(set(isa.ISA)) == len(isa.ISA)


def test_clock_source_model_turbo_and_mitigations(tmp_path: Path) -> None:
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
    assert topology.turbo(tmp_path) is True  # with intel_pstate, the file boost does not apply


def test_a_kernel_that_reports_no_clock_source_model_turbo_or_mitigations(tmp_path: Path) -> None:
    """Like gVisor, whose /sys has no such files."""
    assert topology.cpu_model(tmp_path) is None
    assert topology.mitigations(tmp_path) is None
    assert topology.turbo(tmp_path) is None
