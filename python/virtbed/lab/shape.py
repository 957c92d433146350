"""What a server looks like from inside, and QEMU's command line for it, as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from virtbed.lab import LabError
from virtbed_contract.kernel.isa import read_flags

Accelerator = Literal["tcg", "kvm"]
SPARE = "8086:10d3"
"""Vendor and device of the spare PCI device, an Intel 82574L (e1000e), as lspci prints them."""
ADDRESS = "127.0.0.1"
"""Where a server's SSH port is found: on this machine's loopback, and nowhere else."""
LEAST_MIB = 1024

# EPYC's family and model: Linux believes a topology of threads (topoext) of that family only, and
# without xlevel the leaf that holds it cannot be read. Under plain `max` systemd 252 does not get
# through its boot on QEMU 7.2: mounts fail with "Invalid argument". Without la57 page tables have
# four levels, not five; software walks each, and for a guest inside once per level of the host's.
# KVM inside does not see a guest set XCR0 (QEMU 7.2): a guest's kernel finds the size of its XSAVE
# area wrong, and hides AVX. A server has none either, or no guest would be attested.
_PROCESSOR = (
    "max,family=23,model=49,stepping=0,model-id=LabCPU,+topoext,x-force-features=on,"
    "xlevel=0x8000001e,-la57,-xsave,-avx,-avx2,-fma,-f16c"
)
_BOOT = "root=/dev/vda rw console=ttyS0 quiet mitigations=off"
_IOMMU = "intel_iommu=on iommu=pt"


@dataclass(frozen=True)
class Shape:
    """A server's hardware.

    Attributes:
        sockets: Processors.
        cores: Cores per socket.
        threads: Threads per core.
        nodes: NUMA nodes; sockets are divided among them, or each socket into them.
        memory_mib: Memory, in equal parts on the nodes.
        svm: Whether the processor has hardware virtualization, for KVM inside.
        iommu: Whether there is an IOMMU (Intel's).
        spare: Whether there is a PCI device that nothing uses, in an IOMMU group of its own.
    """

    sockets: int = 1
    cores: int = 2
    threads: int = 1
    nodes: int = 1
    memory_mib: int = 2560
    svm: bool = True
    iommu: bool = False
    spare: bool = False

    def __post_init__(self) -> None:
        for name in ("sockets", "cores", "threads", "nodes"):
            if (found := getattr(self, name)) < 1:
                raise LabError(f"{name} {found} found, at least 1 needed")
        if self.threads > 2:
            raise LabError(f"threads {self.threads} found, 1 or 2 needed: x86 has two per core")
        if self.sockets % self.nodes and self.nodes % self.sockets:
            raise LabError(
                f"nodes {self.nodes} found for sockets {self.sockets}: one must divide the other"
            )
        if self.cores % self._parts:
            raise LabError(
                f"nodes {self.nodes} found for {self.sockets} sockets of {self.cores} cores: each "
                f"socket has {self._parts} nodes, which must divide its cores"
            )
        if self.memory_mib < LEAST_MIB or self.memory_mib % self.nodes:
            raise LabError(
                f"memory_mib {self.memory_mib} found, at least {LEAST_MIB} and a multiple of the "
                f"{self.nodes} nodes needed"
            )

    @property
    def cpus(self) -> int:
        """Return how many CPUs the server's kernel sees."""
        return self.sockets * self.cores * self.threads

    @property
    def _parts(self) -> int:
        return max(1, self.nodes // self.sockets)

    def node(self, socket: int, core: int) -> int:
        """Return the NUMA node of a core."""
        if self._parts > 1:
            return socket * self._parts + core * self._parts // self.cores
        return socket * self.nodes // self.sockets

    def hardware(self, accelerator: Accelerator = "tcg") -> tuple[str, ...]:
        """Return the part of QEMU's command line that the server's kernel sees.

        A snapshot only starts with the same.

        Args:
            accelerator: What runs the server; `kvm` where this machine has hardware virtualization.
        """
        kvm = accelerator != "tcg"
        return (
            "-accel", "kvm" if kvm else "tcg,thread=multi",
            "-machine", "q35,kernel-irqchip=split" if kvm and self.iommu else "q35",
            "-cpu", self._processor(kvm),
            "-m", str(self.memory_mib),
            "-smp", f"{self.cpus},sockets={self.sockets},cores={self.cores},threads={self.threads}",
            *self._numa(),
            # It must come before the devices that it translates for.
            *(("-device", "intel-iommu,intremap=on,caching-mode=on") if self.iommu else ()),
            *(("-device", "pcie-root-port,id=spare,chassis=1,slot=1", "-device", "e1000e,bus=spare")
              if self.spare else ()),
        )  # fmt: skip

    def _processor(self, kvm: bool) -> str:
        if kvm:
            return "host" if self.svm else "host,-svm,-vmx"
        return _PROCESSOR + ("" if self.svm else ",-svm")

    def _numa(self) -> Iterator[str]:
        if self.nodes == 1:
            return
        for node in range(self.nodes):
            size = self.memory_mib // self.nodes
            yield from ("-object", f"memory-backend-ram,id=node{node},size={size}M")
            yield from ("-numa", f"node,nodeid={node},memdev=node{node}")
        for first in range(self.nodes):
            for second in range(first + 1, self.nodes):
                yield from ("-numa", f"dist,src={first},dst={second},val=21")
        for socket in range(self.sockets):
            for core in range(self.cores):
                for thread in range(self.threads):
                    yield from (
                        "-numa",
                        f"cpu,node-id={self.node(socket, core)},socket-id={socket},"
                        f"core-id={core},thread-id={thread}",
                    )

    def command(
        self, kernel: Path, ramdisk: Path, folder: Path, port: int,
        accelerator: Accelerator = "tcg", snapshot: str = "", online: bool = True,
    ) -> tuple[str, ...]:  # fmt: skip
        """Return QEMU's command line.

        Args:
            kernel: Booted directly.
            ramdisk: The kernel's initial ramdisk.
            folder: The server's: its disk is there, and console and monitor are made there.
            port: Of ADDRESS, where its SSH is found.
            accelerator: What runs the server.
            snapshot: Of its disk; started instead of booting.
            online: Whether the server reaches the network beyond this machine.
        """
        restrict = "" if online else ",restrict=on"
        return (
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
            *self.hardware(accelerator),
            "-kernel", str(kernel), "-initrd", str(ramdisk),
            "-append", f"{_BOOT} {_IOMMU}" if self.iommu else _BOOT,
            "-drive", f"if=none,id=disk,file={folder / 'disk.qcow2'},format=qcow2,cache=unsafe,"
            "discard=unmap",
            "-device", "virtio-blk-pci,drive=disk",
            "-netdev", f"user,id=net,hostfwd=tcp:{ADDRESS}:{port}-:22{restrict}",
            "-device", "virtio-net-pci,netdev=net",
            "-device", "virtio-rng-pci",
            "-serial", f"file:{folder / 'console.log'}",
            "-qmp", f"unix:{folder / 'qmp'},server=on,wait=off",
            *(("-loadvm", snapshot) if snapshot else ()),
        )  # fmt: skip


def accelerator_here(root: Path = Path("/")) -> Accelerator:
    """Return what runs servers on this machine.

    A processor that shows neither VT-x nor AMD-V has no usable KVM, whatever /dev/kvm there is.
    """
    virtual = {"vmx", "svm"} & read_flags(root)
    return "kvm" if virtual and (root / "dev/kvm").exists() else "tcg"
