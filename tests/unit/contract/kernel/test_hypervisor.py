"""Tests of the detection of a hypervisor by CPUID, or by DMI if CPUID does not show it."""

from __future__ import annotations

import mmap
import platform
from pathlib import Path
from typing import Any

import pytest

from virtbed_contract.kernel import hypervisor
from virtbed_contract.kernel.hypervisor import Below, below

from .conftest import lay


def machine(root: Path, flags: str, vendor: str = "Dell Inc.") -> Path:
    return lay(
        root,
        {
            "proc/cpuinfo": f"processor\t: 0\nflags\t\t: {flags}",
            "sys/class/dmi/id/sys_vendor": vendor,
        },
    )


@pytest.mark.parametrize(
    ("flags", "signature", "vendor", "expected"),
    [
        ("fpu", "rubbish", "Dell Inc.", Below(None, False)),  # no CPU flag, no signature
        ("fpu hypervisor", "KVMKVMKVM", "QEMU", Below("KVM", False)),
        ("fpu hypervisor", "TCGTCGTCGTCG", "QEMU", Below("QEMU TCG", True)),
        ("fpu hypervisor", "TCGTCGTCGTCG", "Dell Inc.", Below("QEMU TCG", True)),
        ("fpu hypervisor", "Microsoft Hv", "Microsoft", Below("Hyper-V", False)),
        ("fpu hypervisor", "bhyve bhyve ", "BHYVE", Below("bhyve bhyve ", False)),
    ],
)
def test_the_hypervisor_is_read_from_cpuid_and_dmi(
    tmp_path: Path, flags: str, signature: str, vendor: str, expected: Below
) -> None:
    assert below(machine(tmp_path, flags, vendor), lambda: signature) == expected


@pytest.mark.parametrize(
    ("flags", "signature"),
    [("fpu hypervisor", ""), ("fpu hypervisor", None), ("fpu", "TCGTCGTCGTCG")],
)
@pytest.mark.parametrize("vendor", ["QEMU", "Bochs"])
def test_a_qemu_machine_without_a_signature_counts_as_emulated(
    tmp_path: Path, flags: str, signature: str | None, vendor: str
) -> None:
    found = below(machine(tmp_path, flags, vendor), lambda: signature)
    assert found.emulated and vendor in str(found.name)


def test_a_hypervisor_whose_name_cannot_be_read_is_no_emulator(tmp_path: Path) -> None:
    found = below(machine(tmp_path, "fpu hypervisor", "Amazon EC2"), lambda: None)
    assert not found.emulated and found.name


@pytest.mark.skipif(platform.machine() != "x86_64", reason="CPUID is x86's")
def test_cpuid_is_executed_and_its_memory_is_unmapped() -> None:
    for _ in range(3):
        assert isinstance(hypervisor.signature(), str)


def test_without_executable_memory_there_is_no_signature(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(mmap, "mmap", refused)
    assert hypervisor.signature() is None
