"""What NVIDIA's kernel module and the kernel's displays tell of a GPU, without NVML."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Optional

from .files import fields, read
from .pci import addresses

PROC = Path("proc/driver/nvidia")
GRAPHICS = Path("sys/class/graphics")
CONSOLES = Path("sys/class/vtconsole")
SCREENS = Path("sys/class/drm")
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


def is_divided(root: Path, address: str) -> bool:
    """Return whether instances of MIG were made of a GPU; whether MIG is on, NVML alone tells."""
    minor = _information(root, address).get("Device Minor", "")
    made = root / PROC / "capabilities" / f"gpu{minor}" / "mig"
    return bool(minor) and any(made.glob("gi*"))


def module_version(root: Path) -> Optional[str]:
    """Return the version of the module that is loaded; None for none."""
    # "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.261.03  Tue …", or "… Open Kernel Module
    # for x86_64  535.261.03  Release Build …".
    head = fields(read(root / PROC / "version")).get("NVRM version", "")
    found = re.search(r"\s(\d+(?:\.\d+)+)\s", f"{head} ")
    return found.group(1) if found else None


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
