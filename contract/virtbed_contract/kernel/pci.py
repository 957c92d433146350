"""Reader of PCI devices and their IOMMU groups in /sys.

Some links are read but not followed, since their target may be missing: recorded trees have links
to drivers that were not recorded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Optional

from . import topology
from .files import read

DEVICES = Path("sys/bus/pci/devices")
GROUPS = Path("sys/kernel/iommu_groups")
IOMMUS = Path("sys/class/iommu")
NO_IOMMU = "vfio-noiommu"
"""Name of the groups that VFIO creates if there is no IOMMU; the host is not protected then."""
BRIDGE, DISPLAY = "06", "03"
"""First two digits of a PCI class."""
PORT_DRIVERS = frozenset({None, "pcieport"})
"""Drivers of a bridge that VFIO accepts in a group."""
_CLASSES = {
    "01": "storage controller", "02": "network controller", "03": "display controller",
    "04": "multimedia device", "05": "memory controller", "06": "bridge",
    "07": "communication controller", "08": "system peripheral", "0b": "processor",
    "0c": "serial bus controller", "0d": "wireless controller", "10": "encryption controller",
    "12": "accelerator",
}  # fmt: skip
_ADDRESS = re.compile(r"(?:([0-9a-f]{1,8}):)?([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])")
_BARS = 6
# Flags of a resource, from the kernel's include/linux/ioport.h.
_MEMORY, _WIDE, _UNSET = 0x200, 0x100000, 0x20000000
# Offset in configuration space at which PCI Express's extended capabilities begin (each has its
# number, its version and the offset of the next), number of ACS, and offset of its control word.
_EXTENDED, _ACS, _ACS_CONTROL = 0x100, 0x0D, 6
# Source validation, redirection of requests and completions, and forwarding upstream: the kernel's
# REQ_ACS_FLAGS. Without all of them, the kernel keeps devices in one group.
_ACS_ISOLATES = 0x1D


@dataclass(frozen=True)
class Bar:
    """One base address register (BAR): a window of a device's memory.

    Attributes:
        size: Size of the window, in bytes.
        wide: Whether its address may be above 4 GiB (64-bit).
        placed: Whether the firmware or the kernel has assigned an address.
    """

    size: int
    wide: bool
    placed: bool


@dataclass(frozen=True)
class Device:
    """One function of a PCI device.

    Attributes:
        address: PCI address, such as ``0000:41:00.0``.
        kind: PCI class, six hexadecimal digits.
        vendor: PCI id of the vendor, four hexadecimal digits; empty if unknown.
        model: PCI id of the device, four hexadecimal digits; empty if unknown.
        driver: Driver that it is bound to; None for none.
        group: Its IOMMU group; None for none.
        nodes: NUMA nodes near the device; () if they are unknown.
        boot_vga: Whether the firmware uses it as its display.
        bars: Its windows of memory.
        above: PCI addresses of the bridges between the root and the device, the nearest last.
        parent: For a virtual function (SR-IOV), its physical function; else None.
        resets: Whether the kernel can reset this function alone.
    """

    address: str
    kind: str
    vendor: str
    model: str
    driver: Optional[str]
    group: Optional[str]
    nodes: tuple[int, ...]
    boot_vga: bool
    bars: tuple[Bar, ...]
    above: tuple[str, ...]
    parent: Optional[str]
    resets: bool

    @property
    def slot(self) -> str:
        """The address without the function: equal for all functions of a card."""
        return self.address.partition(".")[0]

    @property
    def words(self) -> str:
        """Address, kind, ids and driver, for messages."""
        what = _CLASSES.get(self.kind[:2], f"device of class {self.kind or 'unknown'}")
        maker = f" {self.vendor}:{self.model}" if self.vendor else ""
        return f"{self.address} ({what}{maker}{f', driver {self.driver}' if self.driver else ''})"


def address(text: str) -> Optional[str]:
    """Return a PCI address in the form that /sys uses; None if the text is not an address.

    >>> address("00000000:41:00.0"), address("41:00.0"), address("GPU-0")
    ('0000:41:00.0', '0000:41:00.0', None)
    """
    match = _ADDRESS.fullmatch(text.strip().lower())
    if match is None:
        return None
    domain, bus, slot, function = match.groups()
    return f"{int(domain or '0', 16):04x}:{bus}:{slot}.{function}"


def devices(root: Path) -> dict[str, Device]:
    """Return every function on the PCI buses by its address, in order of address."""
    groups = _groups(root)
    names = [path.name for path in _inside(root / DEVICES) if address(path.name) == path.name]
    return {name: _device(root, name, groups.get(name)) for name in names}


def answers(root: Path, name: str) -> bool:
    """Return whether a function answers: its configuration space does not read as all ones."""
    return _config(root, name, 0, 2) != b"\xff\xff"


def keeps_apart(root: Path, name: str) -> Optional[bool]:
    """Return whether a bridge isolates the devices below it (access control services, ACS).

    Returns:
        Whether ACS is on; None if the bridge lacks ACS, or without root, who alone can read it.
    """
    place, seen = _EXTENDED, set[int]()
    while place and place not in seen:
        seen.add(place)
        capability = _config(root, name, place, 8)
        head = int.from_bytes(capability[:4], "little")
        if len(capability) == 8 and head & 0xFFFF == _ACS:
            control = int.from_bytes(capability[_ACS_CONTROL:], "little")
            return control & _ACS_ISOLATES == _ACS_ISOLATES
        place = head >> 20
    return None


def has_iommu(root: Path) -> bool:
    """Return whether the kernel drives an IOMMU."""
    return any(_inside(root / IOMMUS))


def members(root: Path, group: str) -> tuple[str, ...]:
    """Return the names of the devices in an IOMMU group: PCI addresses, or names of others."""
    return tuple(sorted(name for name, its in _groups(root).items() if its == group))


def made_up(root: Path, group: str) -> bool:
    """Return whether VFIO created a group although there is no IOMMU."""
    return read(root / GROUPS / group / "name") == NO_IOMMU


def addresses(path: PurePath) -> tuple[str, ...]:
    """Return the PCI addresses among the parts of a path in /sys, the outermost first."""
    return tuple(part for part in path.parts if address(part) == part)


def _device(root: Path, name: str, group: Optional[str]) -> Device:
    folder = root / DEVICES / name
    return Device(
        address=name,
        kind=(read(folder / "class") or "").removeprefix("0x"),
        vendor=(read(folder / "vendor") or "").removeprefix("0x"),
        model=(read(folder / "device") or "").removeprefix("0x"),
        driver=link(folder / "driver"),
        group=group,
        nodes=topology.nodes_near(root, folder),
        boot_vga=read(folder / "boot_vga") == "1",
        bars=tuple(_bars(read(folder / "resource") or "")),
        above=addresses(folder.resolve())[:-1],
        parent=link(folder / "physfn"),
        # Either file exists only if the kernel can reset the device; reset_method may be empty.
        resets=bool(read(folder / "reset_method")) if (folder / "reset_method").exists()
        else (folder / "reset").exists(),
    )  # fmt: skip


def link(path: Path) -> Optional[str]:
    """Return the last part of a link's target, which need not exist; None if it is not a link."""
    try:
        return path.readlink().name
    except OSError:
        return None


def _groups(root: Path) -> dict[str, str]:
    """Return the IOMMU groups by the names of their devices."""
    groups = {
        device.name: group.name
        for group in _inside(root / GROUPS)
        for device in _inside(group / "devices")
    }
    for device in _inside(root / DEVICES):
        group_name = link(device / "iommu_group")
        if group_name:
            groups.setdefault(device.name, group_name)
    return groups


def _inside(folder: Path) -> Iterable[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return ()


def _bars(resource: str) -> Iterator[Bar]:
    for line in resource.splitlines()[:_BARS]:
        try:
            start, end, flags = (int(word, 16) for word in line.split())
        except ValueError:
            continue
        if flags & _MEMORY and end > start:
            # On old kernels the flag may be missing, but a window without an address starts at 0.
            yield Bar(end - start + 1, bool(flags & _WIDE), bool(start) and not flags & _UNSET)


def _config(root: Path, name: str, at: int, size: int) -> bytes:
    """Return some bytes of a function's configuration space; empty if it cannot be read.

    It reads only these bytes: reading wakes a sleeping device, and some devices hang if undefined
    registers are read.
    """
    try:
        with (root / DEVICES / name / "config").open("rb", buffering=0) as space:
            space.seek(at)
            return space.read(size)
    except OSError:
        return b""
