"""Instruction-set extensions of the first CPU, as the kernel names them."""

from __future__ import annotations

from pathlib import Path

from .files import fields, read

# oneDNN and Eigen choose kernels by these extensions, so hosts that differ in them
# are not comparable. First those of x86-64, then those of 64-bit Arm.
ISA = ("sse4_1", "sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw",
       "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16",
       "asimd", "asimddp", "bf16", "sve")  # fmt: skip

# The extensions of `ISA` that QEMU 7.2 emulates (TCG).
TCG_ISA = ("sse4_1", "sse4_2", "avx", "avx2", "fma", "f16c")


def read_flags(root: Path) -> frozenset[str]:
    """Return the feature flags of the first CPU; empty if the kernel does not report them."""
    cpu = fields(read(root / "proc/cpuinfo"))
    return frozenset(cpu.get("flags", cpu.get("Features", "")).split())


def read_isa(root: Path) -> list[str]:
    """Return the extensions of `ISA` that the first CPU has, in the order of `ISA`."""
    flags = read_flags(root)
    return [name for name in ISA if name in flags]
