"""What NVIDIA's kernel module and the kernel's displays tell of a GPU, without NVML."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Optional

from .files import fields, read
from .pci import addresses

PROC = Path("proc/driver/nvidia")
GRAPHICS = Path("sys/class/graphics")
CONSOLES = Path("sys/class/vtconsole")
SCREENS = Path("sys/class/drm")
SECURE_BOOT = Path("sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c")
SHARED_NODES = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")
"""Device nodes of all GPUs together, for computing."""
NEEDED = ("libcuda.so.1", "libnvidia-ml.so.1", "libnvidia-ptxjitcompiler.so.1")
"""Libraries of the driver without which nothing computes, as they are loaded."""
USEFUL = ("libnvidia-nvvm.so.", "libnvidia-gpucomp.so.")
"""How the names begin of those that some versions of the driver have, too."""
UUID = re.compile(r"GPU(-[0-9a-f]+){5}")
"""Of a whole GPU; the module says question marks as long as nothing has used the GPU."""


def listed(root: Path) -> tuple[str, ...]:
    """Return the addresses of the GPUs that the module drives."""
    return tuple(sorted(path.name for path in (root / PROC / "gpus").glob("*:*")))


def name(root: Path, address: str) -> Optional[str]:
    """Return what its maker calls a GPU; None where the module does not drive it."""
    return _information(root, address).get("Model")


def uuid(root: Path, address: str) -> Optional[str]:
    """Return a GPU's UUID; None where the module does not drive it, or has not asked it yet."""
    text = _information(root, address).get("GPU UUID", "")
    return text if UUID.fullmatch(text) else None


def minor(root: Path, address: str) -> str:
    """Return the number of a GPU's own device node; empty where the module does not tell."""
    text = _information(root, address).get("Device Minor", "")
    return text if text.isdigit() else ""


def is_divided(root: Path, address: str) -> bool:
    """Return whether instances of MIG were made of a GPU; whether MIG is on, NVML alone tells."""
    number = minor(root, address)
    made = root / PROC / "capabilities" / f"gpu{number}" / "mig"
    return bool(number) and any(made.glob("gi*"))


def nodes(root: Path, address: str) -> tuple[str, ...]:
    """Return the device nodes by which a process uses a GPU; those of all GPUs first."""
    number = minor(root, address)
    return (*SHARED_NODES, f"/dev/nvidia{number}") if number else ()


def libraries(printed: str) -> dict[str, str]:
    """Return the driver's libraries for computing, by the names that are loaded.

    Args:
        printed: What ``ldconfig -p`` printed: the loader's cache, as the loader itself sees it.

    Returns:
        The first of each name for this machine's own words of 64 bits, as the loader takes it.
    """
    # "libcuda.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/libcuda.so.1"
    found: dict[str, str] = {}
    for line in printed.splitlines():
        head, arrow, path = line.strip().partition(" => ")
        name, _, kind = head.partition(" ")
        wide = "x86-64" in kind or "AArch64" in kind
        if arrow and wide and (name in NEEDED or name.startswith(USEFUL)):
            found.setdefault(name, path)
    return found


def library_versions(root: Path, found: Mapping[str, str]) -> tuple[str, ...]:
    """Return the versions of libraries, by the files that their links end at: one if all agree."""
    files = (PurePath(os.path.realpath(root / path.lstrip("/"))).name for path in found.values())
    versions = (re.search(r"\.so\.(\d+\.\d[\d.]*)$", name) for name in files)
    return tuple(sorted({version.group(1) for version in versions if version}))


def module_version(root: Path) -> Optional[str]:
    """Return the version of the module that is loaded; None for none."""
    # "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.261.03  Tue …", or "… Open Kernel Module
    # for x86_64  535.261.03  Release Build …".
    head = fields(read(root / PROC / "version")).get("NVRM version", "")
    found = re.search(r"\s(\d+(?:\.\d+)+)\s", f"{head} ")
    return found.group(1) if found else None


def module_built(root: Path) -> Optional[bool]:
    """Return whether the running kernel has a module of the driver; None where nobody tells."""
    release = read(root / "proc/sys/kernel/osrelease")
    listed_modules = read(root / "lib/modules" / release / "modules.dep") if release else None
    if listed_modules is None:
        return None
    return re.search(r"(^|/)nvidia(-current)?\.ko", listed_modules, re.MULTILINE) is not None


def secure_boot(root: Path) -> bool:
    """Return whether the firmware lets the kernel load no module that nobody signed."""
    try:
        # Four bytes of attributes, then the value.
        return (root / SECURE_BOOT).read_bytes()[4:5] == b"\1"
    except OSError:
        return False


def shows(root: Path, address: str) -> Optional[str]:
    """Return what a GPU shows: the console, or the screen at an output; None for nothing."""
    for folder in sorted((root / SCREENS).glob("card*-*")):
        if read(folder / "enabled") == "enabled" and address in addresses(folder.resolve()):
            return f"the screen at {folder.name}"
    drawn = [
        read(console / "bind") == "1"
        for console in (root / CONSOLES).glob("vtcon*")
        if "frame buffer" in (read(console / "name") or "")
    ]
    for folder in sorted((root / GRAPHICS).glob("fb[0-9]*")):
        ours = {*addresses(folder.resolve()), *addresses((folder / "device").resolve())}
        # A console that was taken off its frame buffers draws nothing.
        if address in ours and (any(drawn) or not drawn):
            return f"the console, by {folder.name}"
    return None


def _information(root: Path, address: str) -> dict[str, str]:
    return fields(read(root / PROC / "gpus" / address / "information"))
