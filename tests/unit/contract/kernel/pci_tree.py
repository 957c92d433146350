"""Synthetic trees of PCI devices, with folders and links like the kernel's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .conftest import lay

PCI = "sys/bus/pci/devices"
SIZES = "address sizes\t: 46 bits physical, 48 bits virtual"
MIB, GIB = 2**20, 2**30
ACS_ON, ACS_OFF = 0x1D, 0x00
H100 = (16 * MIB, 128 * GIB, 32 * MIB)
"""Windows of memory of one: registers, memory, more registers."""


def bars(sizes: Sequence[int], placed: bool = True) -> str:
    """Return the content of the file ``resource``: one window below 4 GiB, then 64-bit ones."""
    lines = []
    for place, size in enumerate(sizes):
        start = 0x4000000000 * (place + 1) if placed else 0
        flags = 0x40200 if place == 0 else 0x14220C
        lines.append(f"0x{start:016x} 0x{start + size - 1:016x} 0x{flags:016x}")
    nothing = " ".join(["0x0000000000000000"] * 3)
    return "\n".join([*lines, *[nothing] * (13 - len(lines))])


def config(acs: int | None = None, extended: bool = True) -> bytes:
    """Return a configuration space of 4 KiB, or its first 64 bytes, which is all users can read."""
    if not extended:
        return b"\xde\x10" + bytes(62)
    space = bytearray(b"\xde\x10" + bytes(4094))
    # The first capability is advanced error reporting, so that the reader must follow the list.
    space[0x100:0x104] = (0x0001 | 1 << 16 | (0x140 if acs is not None else 0) << 20).to_bytes(
        4, "little"
    )
    if acs is not None:
        space[0x140:0x144] = (0x000D | 1 << 16).to_bytes(4, "little")
        space[0x144:0x148] = (0x1F | acs << 16).to_bytes(4, "little")
    return bytes(space)


class Tree:
    """The file system of a host with an IOMMU; `gpu` and `add` put devices into it."""

    def __init__(self, root: Path, nodes: Sequence[str] = ("0-3",), iommu: bool = True) -> None:
        self.root = root
        lay(root, {"sys/devices/system/node/has_cpu": f"0-{len(nodes) - 1}" if nodes[1:] else "0"})
        lay(root, {f"sys/devices/system/node/node{n}/cpulist": c for n, c in enumerate(nodes)})
        lay(root, {"proc/cpuinfo": f"processor\t: 0\n{SIZES}"})
        (root / PCI).mkdir(parents=True)
        if iommu:
            (root / "sys/class/iommu/dmar0").mkdir(parents=True)

    def add(
        self, address: str, kind: str = "020000", *, above: Sequence[str] = (),
        vendor: str = "8086", model: str = "1528", driver: str | None = None,
        group: int | None = None, acs: int | None = None, files: Mapping[str, str] | None = None,
        parent: str | None = None,
    ) -> Path:  # fmt: skip
        """Create one function below some bridges (the nearest last), with its links."""
        folder = self.root.joinpath("sys/devices", f"pci{address[:7]}", *above, address)
        lay(
            folder,
            {
                "class": f"0x{kind}",
                "vendor": f"0x{vendor}",
                "device": f"0x{model}",
                "numa_node": "0",
                "resource": bars(()),
                "reset_method": "flr bus",
                **(files or {}),
            },
        )
        (folder / "config").write_bytes(config(acs))
        (self.root / PCI / address).symlink_to(folder)
        if driver:
            (folder / "driver").symlink_to(self.root / "sys/bus/pci/drivers" / driver)
        if parent:
            (folder / "physfn").symlink_to(Path("..") / parent)
        if group is not None:
            members = self.root / f"sys/kernel/iommu_groups/{group}/devices"
            members.mkdir(parents=True, exist_ok=True)
            (members / address).symlink_to(folder)
            (folder / "iommu_group").symlink_to(members.parent)
        return folder

    def port(
        self, address: str, group: int | None = None, acs: int | None = ACS_ON,
        driver: str | None = "pcieport", above: Sequence[str] = (),
    ) -> Path:  # fmt: skip
        return self.add(
            address, "060400", driver=driver, group=group, acs=acs, model="3420", above=above
        )

    def gpu(
        self, address: str = "0000:41:00.0", group: int | None = 12, *, kind: str = "030200",
        driver: str | None = "nvidia", above: Sequence[str] = ("0000:40:00.0",),
        files: Mapping[str, str] | None = None, uuid: str | None = None,
    ) -> Path:  # fmt: skip
        """Create an H100; if a UUID is given, NVIDIA's driver reports the GPU, too."""
        whole = {"resource": bars(H100), **(files or {})}
        if uuid:
            text = f"Model: \t\t NVIDIA H100 PCIe\nGPU UUID: \t {uuid}\nDevice Minor: \t 0"
            lay(self.root, {f"proc/driver/nvidia/gpus/{address}/information": text})
        return self.add(
            address, kind, vendor="10de", model="2331", driver=driver, group=group, above=above,
            files=whole,
        )  # fmt: skip
