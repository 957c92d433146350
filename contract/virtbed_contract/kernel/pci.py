"""PCI devices and their IOMMU groups, as /sys shows them.

Links are read and not followed where what they lead to may be missing: recorded trees have links to
drivers that were not recorded.
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
"""Name of the groups that VFIO makes up where there is no IOMMU; nothing protects the host then."""
BRIDGE, DISPLAY = "06", "03"
"""First digits of a class."""
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
# Flags of a resource, of the kernel's include/linux/ioport.h.
_MEMORY, _WIDE, _UNSET = 0x200, 0x100000, 0x20000000
# Of configuration space: PCI Express's extended capabilities begin here; each has its number, its
# version, and where the next one is.
_EXTENDED, _ACS, _ACS_CONTROL = 0x100, 0x0D, 6
# Source validation; redirection of requests and completions, forwarding upstream: the kernel's
# REQ_ACS_FLAGS, without which it keeps devices in one group.
_ACS_ISOLATES = 0x1D


@dataclass(frozen=True)
class Bar:
    """One window of a device's memory.

    Attributes:
        size: In bytes.
        wide: Whether it may be above 4 GiB.
        placed: Whether the firmware or the kernel gave it an address.
    """

    size: int
    wide: bool
    placed: bool


@dataclass(frozen=True)
class Device:
    """One function of a PCI device.

    Attributes:
        address: Such as ``0000:41:00.0``.
        kind: Its class, six hex digits.
        vendor: Four hex digits; empty where the kernel does not tell. `model` is alike.
        driver: The bound driver; None for none.
        group: Its IOMMU group; None for none.
        nodes: The NUMA nodes that it is near; () where nobody tells.
        boot_vga: Whether the firmware showed its messages on it.
        bars: Its windows of memory.
        above: The bridges between it and the root, the nearest last.
        parent: The physical function of a virtual one (SR-IOV); None of any other.
        resets: Whether the kernel can reset it alone.
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
        """The address without the function: alike for all functions of a card."""
        return self.address.partition(".")[0]

    @property
    def words(self) -> str:
        """What it is, for a message."""
        what = _CLASSES.get(self.kind[:2], f"device of class {self.kind or 'unknown'}")
        maker = f" {self.vendor}:{self.model}" if self.vendor else ""
        return f"{self.address} ({what}{maker}{f', driver {self.driver}' if self.driver else ''})"


def address(text: str) -> Optional[str]:
    """Return an address as /sys writes it: ``00000000:41:00.0`` gives ``0000:41:00.0``.

    Returns:
        None for what is no address.
    """
    found = _ADDRESS.fullmatch(text.strip().lower())
    if found is None:
        return None
    domain, bus, slot, function = found.groups()
    return f"{int(domain or '0', 16):04x}:{bus}:{slot}.{function}"


def devices(root: Path) -> dict[str, Device]:
    """Return every function on the PCI buses by its address, in order."""
    groups = _groups(root)
    found = [path.name for path in _inside(root / DEVICES) if address(path.name) == path.name]
    return {name: _device(root, name, groups.get(name)) for name in found}


def answers(root: Path, name: str) -> bool:
    """Return whether a function's configuration space reads as anything but ones."""
    return _config(root, name, 0, 2) != b"\xff\xff"


def keeps_apart(root: Path, name: str) -> Optional[bool]:
    """Return whether a bridge keeps what is below it apart (access control services).

    Returns:
        None where it has no such capability, or where that may not be read, as root alone may.
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
    """Return the names of the devices of an IOMMU group: PCI addresses, and any others' names."""
    return tuple(sorted(name for name, its in _groups(root).items() if its == group))


def made_up(root: Path, group: str) -> bool:
    """Return whether a group is one of VFIO's without an IOMMU."""
    return read(root / GROUPS / group / "name") == NO_IOMMU


def addresses(path: PurePath) -> tuple[str, ...]:
    """Return the PCI addresses among the parts of a path of /sys, the outermost first."""
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
        # Both exist only where the kernel knows a way; the methods may be set to none.
        resets=bool(read(folder / "reset_method")) if (folder / "reset_method").exists()
        else (folder / "reset").exists(),
    )  # fmt: skip


def link(path: Path) -> Optional[str]:
    """Return the last part of where a link leads, which need not be there; None for no link."""
    try:
        return path.readlink().name
    except OSError:
        return None


def _groups(root: Path) -> dict[str, str]:
    """Return the group of each device that has one, by the device's name."""
    found = {
        device.name: group.name
        for group in _inside(root / GROUPS)
        for device in _inside(group / "devices")
    }
    for device in _inside(root / DEVICES):
        group_name = link(device / "iommu_group")
        if group_name:
            found.setdefault(device.name, group_name)
    return found


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
            # Without an address it starts at zero, whatever the flags say on old kernels.
            yield Bar(end - start + 1, bool(flags & _WIDE), bool(start) and not flags & _UNSET)


def _config(root: Path, name: str, at: int, size: int) -> bytes:
    """Read no more than that: it wakes a device that sleeps, and some hang at what is undefined."""
    try:
        with (root / DEVICES / name / "config").open("rb", buffering=0) as space:
            space.seek(at)
            return space.read(size)
    except OSError:
        return b""
