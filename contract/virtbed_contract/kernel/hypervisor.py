"""Detection of the hypervisor or emulator below a machine's kernel.

Times measured under an emulator are no figures.
"""

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
_LEAF = 0x40000000  # CPUID leaf in which a hypervisor names itself, in 12 characters
_NAMES = {
    "KVMKVMKVM": "KVM",
    "Microsoft Hv": "Hyper-V",
    "TCGTCGTCGTCG": "QEMU TCG",
    "VMwareVMware": "VMware",
    "XenVMMXenVMM": "Xen",
}
_EMULATORS = frozenset({"QEMU TCG"})
# Vendors of the machines that QEMU and Bochs emulate.
_EMULATED_VENDORS = frozenset({"Bochs", "QEMU"})
_ANY = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
# mov eax, edi; xor ecx, ecx; cpuid; store eax, ebx, ecx, edx to [rsi]; rbx is saved for the caller.
_CPUID = bytes.fromhex("53 89f8 31c9 0fa2 8906 895e04 894e08 89560c 5b c3")


@dataclass(frozen=True)
class Below:
    """The layer below a machine's kernel.

    Attributes:
        name: Name of the hypervisor or emulator; None for hardware.
        emulated: Whether it is an emulator, or does not show whether it is one.
    """

    name: Optional[str]
    emulated: bool


def signature() -> Optional[str]:
    """Return the hypervisor's signature from CPUID: up to 12 characters, empty if it has none.

    Returns:
        The signature; None if CPUID cannot be executed: the processor is not x86-64, or the kernel
        forbids executable memory.
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
            del call, code  # they refer to the memory, which could not be unmapped otherwise
    except (OSError, ValueError):
        return None
    return bytes(registers)[4:].strip(b"\0").decode("ascii", "replace")


def below(root: Path, ask: Callable[[], Optional[str]] = signature) -> Below:
    """Return the layer below a machine's kernel.

    A machine whose DMI names QEMU, but whose CPUID names no hypervisor, counts as emulated: to take
    an emulator's times for real ones would do more harm than the reverse.

    Args:
        root: Root of the machine's file system.
        ask: Function that returns the hypervisor's signature, as `signature` does.
    """
    # Without the CPU flag "hypervisor", the leaf has another meaning.
    reported = ask() if "hypervisor" in read_flags(root) else ""
    if reported:
        name = _NAMES.get(reported, reported)
        return Below(name, name in _EMULATORS)
    vendor = read(root / VENDOR)
    if vendor in _EMULATED_VENDORS:
        return Below(f"{vendor} that does not show whether it emulates", True)
    return Below(None if reported == "" else "a hypervisor of unknown name", False)
