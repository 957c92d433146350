"""Reasons why a GPU cannot be used, by processes on the host or by guests, with remedies.

Each ``for_*`` function yields every reason, the one to remedy first at the beginning. `gpus` calls
them and keeps the first reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from .codec import described
from .gpu_state import GpuState
from .kernel import nvidia, pci, processes, topology

DRIVER = "nvidia"
KERNELS_OWN = frozenset({"nouveau", "nova_core", "nova-core"})
"""Linux's own drivers for NVIDIA's GPUs, which do not support CUDA."""
LEAST_WINDOW_MIB = 32 * 1024
"""Smallest window of a guest's address space for 64-bit BARs: that of QEMU's machine type q35."""
EXTRA_LOCKED_MIB = 1024
"""Memory in addition to its own that libvirt lets a guest with a passed device lock."""
OF_MEMORY = frozenset({"window", "memory"})
"""Kinds of refusal that depend on the memory of the guest."""
_BELOW_MIB = 4096  # addresses below 4 GiB, some of which belong to devices


@dataclass(frozen=True)
class Refusal:
    """A reason why a GPU cannot be used, with a remedy."""

    kind: str = described("The reason in one word, for programs.")
    reason: str = described("Why the GPU cannot be used.")
    remedy: str = described("What to change so that it can.")


@dataclass(frozen=True)
class GuestLimits:
    """Limits on the memory of a guest with a GPU."""

    address_bits: Optional[int] = described(
        "Width of the processor's physical addresses, in bits; null if unknown."
    )
    lockable_mib: Optional[int] = described(
        "Memory that may be locked, in MiB; null if there is no limit."
    )


def limits(root: Path) -> GuestLimits:
    """Return the limits that a host sets on guests with a GPU."""
    return GuestLimits(topology.address_bits(root), processes.lockable_mib(proc=root / "proc"))


@dataclass(frozen=True)
class Host:
    """Readings of a host on which the refusals of its GPUs are based."""

    root: Path
    devices: dict[str, pci.Device]
    guest_mib: int
    libraries: Optional[dict[str, str]]
    """Libraries of the driver, from `nvidia.libraries`; None: do not check them."""


def window_needed(bars: Iterable[pci.Bar]) -> int:
    """Return the window of addresses for 64-bit BARs, in MiB: a power of two from the least on.

    A bridge's window is aligned to its largest BAR, so it is rounded up to a power of two.
    """
    total = sum(bar.size for bar in bars if bar.wide) / 2**20
    window = LEAST_WINDOW_MIB
    while window < total:
        window *= 2
    return window


def for_any(root: Path, device: pci.Device, parts: Sequence[str]) -> Iterator[Refusal]:
    """Yield the reasons why neither the host nor a guest can use a GPU.

    Args:
        root: Root of the host's file system.
        device: The GPU.
        parts: PCI addresses of its virtual functions.
    """
    at = device.address
    if not pci.answers(root, at):
        yield Refusal(
            "gone", f"{at} does not answer: it has fallen off the bus",
            "power the host off and on again; if it stays away, check its power and its slot",
        )  # fmt: skip
    if parts:
        yield Refusal(
            "divided", f"{len(parts)} virtual functions (SR-IOV) were made of {at}",
            f"remove them: echo 0 > /{pci.DEVICES}/{at}/sriov_numvfs",
        )  # fmt: skip
    if nvidia.is_divided(root, at):
        yield Refusal(
            "mig", f"{at} is divided by MIG",
            "remove its instances and turn MIG off: nvidia-smi mig -dci, nvidia-smi mig -dgi, "
            f"nvidia-smi -i {at} --multi-instance-gpu=0",
        )  # fmt: skip
    display = nvidia.shows(root, at)
    if display or device.boot_vga:
        yield Refusal(
            "display", f"{at} drives the display: {display or 'the firmware starts on it'}",
            "make another card, such as the management controller's, the first display in the "
            "firmware, and end the programs that draw on this one",
        )  # fmt: skip
    if device.driver in KERNELS_OWN:
        yield Refusal(
            "nouveau", f"{at} is bound to {device.driver}, which runs no CUDA",
            f"keep it from loading (blacklist {device.driver} in /etc/modprobe.d, update-initramfs "
            "-u), install NVIDIA's driver, and start the host again",
        )  # fmt: skip
    if any(not bar.placed for bar in device.bars):
        sizes = ", ".join(f"{bar.size // 2**20} MiB" for bar in device.bars if not bar.placed)
        yield Refusal(
            "unplaced", f"the firmware has found no addresses for memory of {at} ({sizes})",
            "turn Above 4G Decoding on in the firmware",
        )  # fmt: skip


def for_host(host: Host, device: pci.Device) -> Iterator[Refusal]:
    """Yield the reasons why no process on the host, in a container or not, can use a GPU."""
    at = device.address
    if device.driver == DRIVER:
        if host.libraries is not None:
            yield from _incomplete(host, at, host.libraries)
        return
    if device.driver is None:
        yield _unbound(host.root, at)
    elif "vfio" in device.driver:
        yield Refusal(
            "kept", f"{at} is kept for guests by {device.driver}",
            "end the guest that has it, and return it to the host: virsh nodedev-reattach "
            f"{node_device(at)}",
        )  # fmt: skip
    else:
        yield Refusal(
            "driver", f"{at} is bound to {device.driver}, {DRIVER} needed",
            f"unbind it from {device.driver}, and load the NVIDIA driver",
        )  # fmt: skip


def _unbound(root: Path, at: str) -> Refusal:
    """Return the likely reason why no driver is bound to a GPU."""
    built = nvidia.module_built(root)
    if built and nvidia.secure_boot(root):
        return Refusal(
            "secure_boot",
            f"no driver is bound to {at}, though its module is installed: Secure Boot is on, and "
            "refuses a module with an unknown signature",
            "enroll the key that it was signed with (mokutil --import /var/lib/dkms/mok.pub), or "
            "turn Secure Boot off",
        )
    if built:
        return Refusal(
            "driver", f"no driver is bound to {at}, though its module is installed",
            "modprobe nvidia; if that fails, dmesg shows why",
        )  # fmt: skip
    missing = "" if built is None else ", and the running kernel has no module for it"
    return Refusal(
        "driver", f"no driver is bound to {at}{missing}",
        "install and load the NVIDIA driver (Debian: nvidia-driver, built for the running kernel)",
    )  # fmt: skip


def _incomplete(host: Host, at: str, libraries: dict[str, str]) -> Iterator[Refusal]:
    """Yield the parts of the driver, besides its module, that are missing or do not match."""
    module = nvidia.module_version(host.root) or "of unknown version"
    missing = [name for name in nvidia.NEEDED if name not in libraries]
    if missing:
        yield Refusal(
            "libraries", f"driver {module} loaded but no {', '.join(missing)} found",
            "install the driver's libraries of the same version (Debian: libcuda1, libnvidia-ml1, "
            "libnvidia-ptxjitcompiler1)",
        )  # fmt: skip
    versions = nvidia.library_versions(host.root, libraries)
    if versions and versions != (module,):
        yield Refusal(
            "mismatch", f"driver {module} loaded but libraries {' and '.join(versions)}",
            "reboot the host, which loads the driver that was installed last, or install the "
            f"libraries of {module}",
        )  # fmt: skip
    nodes = nvidia.nodes(host.root, at)
    absent = [node for node in nodes if not (host.root / node.lstrip("/")).exists()]
    if absent or not nodes:
        yield Refusal(
            "nodes", f"{at} has no device node {', '.join(absent) or 'that its driver names'}",
            "create them: nvidia-modprobe --unified-memory --create-nvidia-device-file="
            f"{nvidia.minor(host.root, at) or 0}, or start nvidia-persistenced",
        )  # fmt: skip


def for_state(state: GpuState) -> Iterator[Refusal]:
    """Yield the reasons, known only from NVML, why neither the host nor a guest can use a GPU."""
    at = state.address
    if state.mig:
        yield Refusal(
            "mig", f"MIG is on at {at}",
            f"turn it off: nvidia-smi -i {at} --multi-instance-gpu=0",
        )  # fmt: skip
    if state.compute_mode == "prohibited":
        yield Refusal(
            "prohibited", f"the compute mode of {at} is prohibited",
            f"nvidia-smi -i {at} --compute-mode=DEFAULT",
        )  # fmt: skip
    if state.processes:
        named = ", ".join(f"{each.pid} ({each.kind})" for each in state.processes)
        yield Refusal("busy", f"processes use {at}: {named}", "end them, or wait until they end")


def node_device(address: str) -> str:
    """Return libvirt's name of a PCI device.

    >>> node_device("0000:41:00.0")
    'pci_0000_41_00_0'
    """
    return "pci_" + address.replace(":", "_").replace(".", "_")


def for_guest(
    host: Host, device: pci.Device, card: Sequence[pci.Device], window_mib: int
) -> Iterator[Refusal]:
    """Yield the reasons why a guest cannot use a GPU.

    Args:
        host: Readings of the host.
        device: The GPU.
        card: All functions of the GPU's card, the GPU included.
        window_mib: Window of addresses that the card needs, from `window_needed`.
    """
    at = device.address
    if not pci.has_iommu(host.root):
        yield Refusal(
            "iommu", "no IOMMU",
            "turn VT-d or AMD-Vi on in the firmware, put intel_iommu=on on the kernel's command "
            "line of an Intel host, and reboot it",
        )  # fmt: skip
        return
    if device.group is None or pci.made_up(host.root, device.group):
        yield Refusal(
            "group", f"{at} is in no IOMMU group, though there is an IOMMU",
            "remove iommu=off and intel_iommu=off from the kernel's command line, turn VFIO's "
            "enable_unsafe_noiommu_mode off, and reboot the host",
        )  # fmt: skip
        return
    yield from _shared(host, device, card)
    on_its_bus = (other for other in host.devices.values() if other.above == device.above)
    alone = all(other.slot == device.slot for other in on_its_bus)
    # VFIO can also reset the bus below a bridge, if the guest has all devices on that bus.
    if not device.resets and not (device.above and alone):
        yield Refusal(
            "reset", f"the kernel has no way to reset {at} between two guests",
            "put the card into a slot of its own, below a bridge, or use another card",
        )  # fmt: skip
    yield from for_memory(at, window_mib, host.guest_mib, limits(host.root))


def _shared(host: Host, device: pci.Device, card: Sequence[pci.Device]) -> Iterator[Refusal]:
    """Yield a refusal per foreign device in the IOMMU groups of the card's functions."""
    for group in dict.fromkeys(each.group for each in card if each.group):
        for name in pci.members(host.root, group):
            other = host.devices.get(name)
            if other in card or (other and _is_port(other)):
                continue
            words = other.words if other else f"{name} (not on the PCI bus)"
            reason = f"IOMMU group {group} of {device.address} is shared with {words}"
            ports = _ports_between(host, device, other)
            off = [at for at in ports if pci.keeps_apart(host.root, at) is False]
            if off:
                yield Refusal(
                    "acs", f"{reason}: ACS is off at the bridge {off[0]}",
                    "turn ACS on in the firmware, or put one of the two into another slot",
                )  # fmt: skip
            else:
                yield Refusal(
                    "shared", reason,
                    "put one of the two into another slot, such as one that belongs to another "
                    "CPU, or turn the other off in the firmware",
                )  # fmt: skip


def _ports_between(host: Host, one: pci.Device, other: Optional[pci.Device]) -> list[str]:
    """Return the bridges on the way to only one of two devices, those of the first device first."""
    if other is None:
        return []
    ways = [*reversed(one.above), *reversed(other.above)]
    shared = set(one.above) & set(other.above)
    return [at for at in ways if at not in shared and at in host.devices]


def _is_port(device: pci.Device) -> bool:
    return device.kind.startswith(pci.BRIDGE) and device.driver in pci.PORT_DRIVERS


def for_memory(at: str, window_mib: int, guest_mib: int, limits: GuestLimits) -> Iterator[Refusal]:
    """Yield the reasons why a guest with some memory cannot use a GPU.

    Args:
        at: Address of the GPU.
        window_mib: Window of addresses that its card needs, from `window_needed`, in MiB.
        guest_mib: Memory of the guest, in MiB.
        limits: Limits of the host.
    """
    bits = limits.address_bits
    # The guest's RAM comes first in its address space; the window after it is aligned to its size.
    needed_mib = (-(-(_BELOW_MIB + guest_mib) // window_mib) + 1) * window_mib
    if bits is not None and needed_mib > 2 ** (bits - 20):
        yield Refusal(
            "window",
            f"{at} needs a window of {window_mib // 1024} GiB after a guest's memory, and the "
            f"processor's addresses have {bits} bits, {(needed_mib - 1).bit_length() + 20} needed",
            "use a host whose processor has wider addresses, or a GPU of less memory",
        )
    needed_mib = guest_mib + EXTRA_LOCKED_MIB
    if limits.lockable_mib is not None and needed_mib > limits.lockable_mib:
        yield Refusal(
            "memory",
            f"{limits.lockable_mib} MiB may be locked, {needed_mib} MiB needed: all memory of a "
            "guest with a GPU, and what its emulator maps",
            "lower memory_mib, or raise the limit of locked memory of libvirt's daemon "
            "(LimitMEMLOCK of its unit, or CAP_SYS_RESOURCE of the container that it runs in)",
        )
