"""Instruction-set extensions of the first CPU, as the kernel names them."""

from __future__ import annotations

from pathlib import Path

from .files import fields, read

# The extensions that change which kernels oneDNN and Eigen choose: hosts that differ here are not
# alike. x86-64, then 64-bit Arm.
ISA = ("sse4_1", "sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw",
       "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16",
       "asimd", "asimddp", "bf16", "sve")  # fmt: skip

# What QEMU 7.2's TCG emulates of `ISA`.
TCG_ISA = ("sse4_1", "sse4_2", "avx", "avx2", "fma", "f16c")


def read_flags(root: Path) -> frozenset[str]:
    """Return every feature flag of the first CPU; none where the kernel does not tell."""
    cpu = fields(read(root / "proc/cpuinfo"))
    return frozenset(cpu.get("flags", cpu.get("Features", "")).split())


def read_isa(root: Path) -> list[str]:
    """Return the extensions of `ISA` that the first CPU has, in the order of `ISA`."""
    flags = read_flags(root)
    return [name for name in ISA if name in flags]
