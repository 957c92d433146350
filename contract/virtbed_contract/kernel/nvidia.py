"""Reader of NVIDIA GPUs from the files of the kernel and of NVIDIA's module, without NVML."""

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
"""Device nodes for computing that all GPUs share."""
NEEDED = ("libcuda.so.1", "libnvidia-ml.so.1", "libnvidia-ptxjitcompiler.so.1")
"""Libraries of the driver that computing needs, by the names that are loaded."""
USEFUL = ("libnvidia-nvvm.so.", "libnvidia-gpucomp.so.")
"""Prefixes of further libraries, which only some versions of the driver have."""
UUID = re.compile(r"GPU(-[0-9a-f]+){5}")
"""UUID of a whole GPU; the module shows question marks until the GPU has been used."""


def listed(root: Path) -> tuple[str, ...]:
    """Return the PCI addresses of the GPUs that NVIDIA's module drives, sorted."""
    return tuple(sorted(path.name for path in (root / PROC / "gpus").glob("*:*")))


def name(root: Path, address: str) -> Optional[str]:
    """Return the product name of a GPU; None if NVIDIA's module does not drive it."""
    return _information(root, address).get("Model")


def uuid(root: Path, address: str) -> Optional[str]:
    """Return the UUID of a GPU; None if the module does not drive it, or has not read it yet."""
    text = _information(root, address).get("GPU UUID", "")
    return text if UUID.fullmatch(text) else None


def minor(root: Path, address: str) -> str:
    """Return the number in the name of a GPU's device node; empty if the module reports none."""
    text = _information(root, address).get("Device Minor", "")
    return text if text.isdigit() else ""


def is_divided(root: Path, address: str) -> bool:
    """Return whether a GPU has MIG instances; only NVML reports whether MIG mode is on."""
    number = minor(root, address)
    instances = root / PROC / "capabilities" / f"gpu{number}" / "mig"
    return bool(number) and any(instances.glob("gi*"))


def nodes(root: Path, address: str) -> tuple[str, ...]:
    """Return the device nodes through which a process uses a GPU; shared ones first."""
    number = minor(root, address)
    return (*SHARED_NODES, f"/dev/nvidia{number}") if number else ()


def libraries(printed: str) -> dict[str, str]:
    """Return the paths of the driver's libraries for computing, by the names that are loaded.

    Args:
        printed: Output of ``ldconfig -p``: the cache of the loader.

    Returns:
        By name, the first 64-bit library of this machine's architecture, which the loader takes.
    """
    # "libcuda.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/libcuda.so.1"
    paths: dict[str, str] = {}
    for line in printed.splitlines():
        head, arrow, path = line.strip().partition(" => ")
        name, _, kind = head.partition(" ")
        wide = "x86-64" in kind or "AArch64" in kind
        if arrow and wide and (name in NEEDED or name.startswith(USEFUL)):
            paths.setdefault(name, path)
    return paths


def library_versions(root: Path, paths: Mapping[str, str]) -> tuple[str, ...]:
    """Return the distinct versions of libraries, from the names of the files behind their links.

    Args:
        root: Root of the file system.
        paths: Paths of the libraries, as `libraries` returns them.
    """
    files = (PurePath(os.path.realpath(root / path.lstrip("/"))).name for path in paths.values())
    versions = (re.search(r"\.so\.(\d+\.\d[\d.]*)$", name) for name in files)
    return tuple(sorted({version.group(1) for version in versions if version}))


def module_version(root: Path) -> Optional[str]:
    """Return the version of the loaded NVIDIA module; None if none is loaded."""
    # "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.261.03  Tue …", or "… Open Kernel Module
    # for x86_64  535.261.03  Release Build …".
    head = fields(read(root / PROC / "version")).get("NVRM version", "")
    match = re.search(r"\s(\d+(?:\.\d+)+)\s", f"{head} ")
    return match.group(1) if match else None


def module_built(root: Path) -> Optional[bool]:
    """Return whether NVIDIA's module is installed for the running kernel; None if unknown."""
    release = read(root / "proc/sys/kernel/osrelease")
    listed_modules = read(root / "lib/modules" / release / "modules.dep") if release else None
    if listed_modules is None:
        return None
    return re.search(r"(^|/)nvidia(-current)?\.ko", listed_modules, re.MULTILINE) is not None


def secure_boot(root: Path) -> bool:
    """Return whether Secure Boot is on, so that the kernel refuses unsigned modules."""
    try:
        # The variable's file has four bytes of attributes before the value.
        return (root / SECURE_BOOT).read_bytes()[4:5] == b"\1"
    except OSError:
        return False


def shows(root: Path, address: str) -> Optional[str]:
    """Return which display a GPU drives, in words: the console or a screen; None for neither."""
    for folder in sorted((root / SCREENS).glob("card*-*")):
        if read(folder / "enabled") == "enabled" and address in addresses(folder.resolve()):
            return f"the screen at {folder.name}"
    bound = [
        read(console / "bind") == "1"
        for console in (root / CONSOLES).glob("vtcon*")
        if "frame buffer" in (read(console / "name") or "")
    ]
    for folder in sorted((root / GRAPHICS).glob("fb[0-9]*")):
        ours = {*addresses(folder.resolve()), *addresses((folder / "device").resolve())}
        # A frame buffer shows the console only if the console is bound to frame buffers.
        if address in ours and (any(bound) or not bound):
            return f"the console, by {folder.name}"
    return None


def _information(root: Path, address: str) -> dict[str, str]:
    return fields(read(root / PROC / "gpus" / address / "information"))
