"""What a machine runs on: hardware, a hypervisor, or an emulator, whose times are no figures."""

from __future__ import annotations

import ctypes
import mmap
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from .files import read
from .isa import read_flags

VENDOR = Path("sys/class/dmi/id/sys_vendor")
_LEAF = 0x40000000  # where a hypervisor says what it is, in 12 characters
_NAMES = {
    "KVMKVMKVM": "KVM",
    "Microsoft Hv": "Hyper-V",
    "TCGTCGTCGTCG": "QEMU TCG",
    "VMwareVMware": "VMware",
    "XenVMMXenVMM": "Xen",
}
_EMULATORS = frozenset({"QEMU TCG"})
# Makers of machines that QEMU and Bochs pretend to be.
_EMULATED_VENDORS = frozenset({"Bochs", "QEMU"})
_ANY = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
# mov eax, edi; xor ecx, ecx; cpuid; store eax, ebx, ecx, edx to [rsi]; rbx is the caller's.
_CPUID = bytes.fromhex("53 89f8 31c9 0fa2 8906 895e04 894e08 89560c 5b c3")


@dataclass(frozen=True)
class Below:
    """What is below a machine's kernel.

    Attributes:
        name: Of the hypervisor or emulator; None for hardware.
        emulated: Whether it is an emulator, or hides whether it is one.
    """

    name: Optional[str]
    emulated: bool


def signature() -> Optional[str]:
    """Return what CPUID tells of a hypervisor: 12 characters, perhaps none.

    Returns:
        None where CPUID cannot be asked: another processor, or memory must not be executed.
    """
    if platform.machine() != "x86_64":
        return None
    try:
        with mmap.mmap(-1, mmap.PAGESIZE, prot=_ANY) as memory:
            memory.write(_CPUID)
            code = ctypes.c_char.from_buffer(memory)
            call = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_void_p)(ctypes.addressof(code))
            registers = (ctypes.c_uint32 * 4)()
            call(_LEAF, ctypes.byref(registers))
            del call, code  # else the memory cannot be given back
    except (OSError, ValueError):
        return None
    return bytes(registers)[4:].strip(b"\0").decode("ascii", "replace")


def below(root: Path, ask: Callable[[], Optional[str]] = signature) -> Below:
    """Return what a machine runs on.

    A machine that is QEMU's by its DMI and does not say by CPUID what runs it counts as emulated:
    an emulator's times taken for real ones do the greater harm.

    Args:
        root: Of its file system.
        ask: Asks CPUID.
    """
    # Without the flag the leaf is another's.
    said = ask() if "hypervisor" in read_flags(root) else ""
    if said:
        name = _NAMES.get(said, said)
        return Below(name, name in _EMULATORS)
    vendor = read(root / VENDOR)
    if vendor in _EMULATED_VENDORS:
        return Below(f"{vendor} that does not say whether it emulates", True)
    return Below(None if said == "" else "a hypervisor that cannot be asked for its name", False)
