"""The hardware of a server of the lab, and QEMU's command line for it."""

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
"""Address of the servers' SSH ports: this machine's loopback only."""
LEAST_MIB = 1024

# EPYC's family and model: Linux accepts a topology of threads (topoext) of that family only;
# without xlevel the CPUID leaf of the topology cannot be read. With plain `max`, systemd 252 does
# not boot on QEMU 7.2: mounts fail with "Invalid argument". Without la57 page tables have four
# levels instead of five; emulation walks each of them, for a guest inside once per level of the
# host's. KVM inside does not notice when a guest sets XCR0 (QEMU 7.2): the guest's kernel then sees
# a wrong size of its XSAVE area and hides AVX. So the server has no AVX either: otherwise no guest
# would be attested.
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
        sockets: Number of sockets.
        cores: Cores per socket.
        threads: Threads per core, 1 or 2.
        nodes: Number of NUMA nodes: several sockets per node, or several nodes per socket.
        memory_mib: Memory in MiB, in equal parts on the nodes.
        svm: Whether the processor has hardware virtualization, for KVM inside.
        iommu: Whether there is an IOMMU (Intel's).
        spare: Whether there is an unused PCI device, in its own IOMMU group.
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
                f"nodes {self.nodes} found for sockets {self.sockets}: one number must divide the "
                "other"
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
        """The number of CPUs that the server's kernel sees."""
        return self.sockets * self.cores * self.threads

    @property
    def _parts(self) -> int:
        """The number of nodes per socket, at least 1."""
        return max(1, self.nodes // self.sockets)

    def node(self, socket: int, core: int) -> int:
        """Return the NUMA node of a core."""
        if self._parts > 1:
            return socket * self._parts + core * self._parts // self.cores
        return socket * self.nodes // self.sockets

    def hardware(self, accelerator: Accelerator = "tcg") -> tuple[str, ...]:
        """Return the part of QEMU's command line that defines the hardware.

        A snapshot only starts with the same hardware.

        Args:
            accelerator: QEMU's accelerator; `kvm` needs hardware virtualization on this machine.
        """
        kvm = accelerator != "tcg"
        return (
            "-accel", "kvm" if kvm else "tcg,thread=multi",
            "-machine", "q35,kernel-irqchip=split" if kvm and self.iommu else "q35",
            "-cpu", self._processor(kvm),
            "-m", str(self.memory_mib),
            "-smp", f"{self.cpus},sockets={self.sockets},cores={self.cores},threads={self.threads}",
            *self._numa(),
            # The IOMMU must be before the devices that it translates for.
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
            kernel: The kernel, which is booted directly.
            ramdisk: The kernel's initial ramdisk.
            folder: Folder of the server: its disk is there, console log and monitor are made there.
            port: Port of its SSH on ADDRESS.
            accelerator: QEMU's accelerator.
            snapshot: Name of a snapshot in its disk to start from; empty to boot.
            online: Whether the server can reach the network beyond this machine.
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
    """Return the accelerator for servers on this machine: `kvm` if it is usable, else `tcg`.

    KVM is not usable if the processor shows neither VT-x nor AMD-V, even if /dev/kvm exists.
    """
    virtual = {"vmx", "svm"} & read_flags(root)
    return "kvm" if virtual and (root / "dev/kvm").exists() else "tcg"
