"""Tests of the reader of instruction-set extensions, on x86-64 and Arm."""

from __future__ import annotations

from pathlib import Path

import pytest

from virtbed_contract.kernel.isa import ISA, TCG_ISA, read_flags, read_isa

from .conftest import lay

X86 = "processor\t: 0\nflags\t\t: fpu avx2 avx sse4_1 hypervisor\n\nprocessor\t: 1\nflags\t\t: fpu"
ARM = "processor\t: 0\nFeatures\t: fp asimd sve"


@pytest.mark.parametrize(
    ("cpuinfo", "isa"), [(X86, ["sse4_1", "avx", "avx2"]), (ARM, ["asimd", "sve"]), ("", [])]
)
def test_extensions_are_those_of_the_first_cpu_in_one_order(
    tmp_path: Path, cpuinfo: str, isa: list[str]
) -> None:
    lay(tmp_path, {"proc/cpuinfo": cpuinfo})
    assert read_isa(tmp_path) == isa


def test_every_flag_is_read_and_none_if_the_kernel_reports_none(tmp_path: Path) -> None:
    assert read_flags(tmp_path) == frozenset()
    lay(tmp_path, {"proc/cpuinfo": X86})
    assert read_flags(tmp_path) == {"fpu", "avx2", "avx", "sse4_1", "hypervisor"}


def test_instruction_sets_of_the_emulator_are_in_the_list() -> None:
    assert set(TCG_ISA) < set(ISA) and len(set(ISA)) == len(ISA)
