"""Why nobody, no process on the host or no guest may have a GPU, and what would change that.

Each function gives every reason, in the order in which a person would mend them.
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
"""Drivers of Linux's own for NVIDIA's GPUs, which run no CUDA."""
LEAST_WINDOW_MIB = 32 * 1024
"""Of a guest's addresses for wide BARs: what QEMU gives to its q35."""
EXTRA_LOCKED_MIB = 1024
"""What libvirt lets a guest with a passed device lock above its memory."""
OF_MEMORY = frozenset({"window", "memory"})
"""The kinds of refusal that depend on how large a guest is."""
_BELOW_MIB = 4096  # addresses below 4 GiB, of which devices take a part


@dataclass(frozen=True)
class Refusal:
    """Why a GPU cannot be used, and what would change that."""

    kind: str = described("The reason in one word, for programs.")
    reason: str = described("Why.")
    remedy: str = described("What would change that.")


@dataclass(frozen=True)
class GuestLimits:
    """What limits the memory of a guest with a GPU."""

    address_bits: Optional[int] = described("Of the processor's addresses; null if unknown.")
    lockable_mib: Optional[int] = described("Memory that may be locked; null for any.")


def limits(root: Path) -> GuestLimits:
    """Return the limits of a host."""
    return GuestLimits(topology.address_bits(root), processes.lockable_mib(proc=root / "proc"))


@dataclass(frozen=True)
class Host:
    """What is read of a host before its GPUs are judged."""

    root: Path
    devices: dict[str, pci.Device]
    guest_mib: int
    libraries: Optional[dict[str, str]]
    """Of the driver, by `nvidia.libraries`; None where nobody asked."""


def window_needed(bars: Iterable[pci.Bar]) -> int:
    """Return the addresses that wide BARs take: a bridge's window is aligned to its largest BAR."""
    total = sum(bar.size for bar in bars if bar.wide) / 2**20
    window = LEAST_WINDOW_MIB
    while window < total:
        window *= 2
    return window


def for_any(root: Path, device: pci.Device, parts: Sequence[str]) -> Iterator[Refusal]:
    """Give what keeps everybody from a GPU, of which virtual functions may have been made."""
    at = device.address
    if not pci.answers(root, at):
        yield Refusal(
            "gone", f"{at} does not answer: it has fallen off the bus",
            "power the host off and on again; if it stays away, look for its power and its seat",
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
    shown = nvidia.shows(root, at)
    if shown or device.boot_vga:
        yield Refusal(
            "display", f"{at} drives the display: {shown or 'the firmware starts on it'}",
            "make another card, such as the management controller's, the first display in the "
            "firmware, and end what draws on this one",
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
    """Give what keeps a process on the host from a GPU, in a container or not."""
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
            "end the guest that has it, and give it back: virsh nodedev-reattach "
            f"{node_device(at)}",
        )  # fmt: skip
    else:
        yield Refusal(
            "driver", f"{at} is bound to {device.driver}, {DRIVER} needed",
            f"unbind it from {device.driver}, and load the NVIDIA driver",
        )  # fmt: skip


def _unbound(root: Path, at: str) -> Refusal:
    """Return why no driver may be bound to a GPU."""
    built = nvidia.module_built(root)
    if built and nvidia.secure_boot(root):
        return Refusal(
            "secure_boot",
            f"no driver is bound to {at}, whose module is there: Secure Boot is on, and refuses "
            "one that nobody signed",
            "let the firmware know the key that it was signed with (mokutil --import "
            "/var/lib/dkms/mok.pub), or turn Secure Boot off",
        )
    if built:
        return Refusal(
            "driver", f"no driver is bound to {at}, whose module is there",
            "modprobe nvidia; if that fails, dmesg says why",
        )  # fmt: skip
    missing = "" if built is None else ", and the running kernel has no module for it"
    return Refusal(
        "driver", f"no driver is bound to {at}{missing}",
        "install and load the NVIDIA driver (Debian: nvidia-driver, built for the running kernel)",
    )  # fmt: skip


def _incomplete(host: Host, at: str, libraries: dict[str, str]) -> Iterator[Refusal]:
    """Give what of the driver is missing besides its module."""
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
            "start the host again, which loads the driver that was installed last, or install "
            f"the libraries of {module}",
        )  # fmt: skip
    nodes = nvidia.nodes(host.root, at)
    absent = [node for node in nodes if not (host.root / node.lstrip("/")).exists()]
    if absent or not nodes:
        yield Refusal(
            "nodes", f"{at} has no device node {', '.join(absent) or 'that its driver names'}",
            "make them: nvidia-modprobe --unified-memory --create-nvidia-device-file="
            f"{nvidia.minor(host.root, at) or 0}, or start nvidia-persistenced",
        )  # fmt: skip


def for_state(state: GpuState) -> Iterator[Refusal]:
    """Give what NVML alone tells that keeps everybody from a GPU."""
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
    """Return libvirt's name of a PCI device: ``pci_0000_41_00_0``."""
    return "pci_" + address.replace(":", "_").replace(".", "_")


def for_guest(
    host: Host, device: pci.Device, card: Sequence[pci.Device], window_mib: int
) -> Iterator[Refusal]:
    """Give what keeps a guest from a GPU."""
    at = device.address
    if not pci.has_iommu(host.root):
        yield Refusal(
            "iommu", "no IOMMU",
            "turn VT-d or AMD-Vi on in the firmware, put intel_iommu=on on the kernel's command "
            "line of an Intel host, and start it again",
        )  # fmt: skip
        return
    if device.group is None or pci.made_up(host.root, device.group):
        yield Refusal(
            "group", f"{at} is in no IOMMU group, though there is an IOMMU",
            "take iommu=off and intel_iommu=off off the kernel's command line, turn VFIO's "
            "enable_unsafe_noiommu_mode off, and start the host again",
        )  # fmt: skip
        return
    yield from _shared(host, device, card)
    on_its_bus = (other for other in host.devices.values() if other.above == device.above)
    alone = all(other.slot == device.slot for other in on_its_bus)
    # VFIO resets the bus below a bridge, too, if all on it is the guest's.
    if not device.resets and not (device.above and alone):
        yield Refusal(
            "reset", f"the kernel has no way to reset {at} between two guests",
            "put the card into a slot of its own, below a bridge, or use another card",
        )  # fmt: skip
    yield from for_memory(at, window_mib, host.guest_mib, limits(host.root))


def _shared(host: Host, device: pci.Device, card: Sequence[pci.Device]) -> Iterator[Refusal]:
    """Give the devices of others in the groups that the card's functions are in."""
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
                    "put one of the two into another slot, such as one of another CPU's own, or "
                    "turn the other off in the firmware",
                )  # fmt: skip


def _ports_between(host: Host, one: pci.Device, other: Optional[pci.Device]) -> list[str]:
    """Return the bridges by which the ways to two devices differ, those of the first one first."""
    if other is None:
        return []
    ways = [*reversed(one.above), *reversed(other.above)]
    shared = set(one.above) & set(other.above)
    return [at for at in ways if at not in shared and at in host.devices]


def _is_port(device: pci.Device) -> bool:
    return device.kind.startswith(pci.BRIDGE) and device.driver in pci.PORT_DRIVERS


def for_memory(at: str, window_mib: int, guest_mib: int, limits: GuestLimits) -> Iterator[Refusal]:
    """Give what keeps a guest of some memory from a GPU.

    Args:
        at: The GPU's address.
        window_mib: What `window_needed` gives of its card.
        guest_mib: The guest's memory.
        limits: The host's.
    """
    bits = limits.address_bits
    # RAM goes first; the window behind it is aligned to its size.
    needed_mib = (-(-(_BELOW_MIB + guest_mib) // window_mib) + 1) * window_mib
    if bits is not None and needed_mib > 2 ** (bits - 20):
        yield Refusal(
            "window",
            f"{at} needs a window of {window_mib // 1024} GiB behind a guest's memory, and the "
            f"processor's addresses have {bits} bits, {(needed_mib - 1).bit_length() + 20} needed",
            "use a host whose processor has wider addresses, or a GPU of less memory",
        )
    needed_mib = guest_mib + EXTRA_LOCKED_MIB
    if limits.lockable_mib is not None and needed_mib > limits.lockable_mib:
        yield Refusal(
            "memory",
            f"{limits.lockable_mib} MiB may be locked, {needed_mib} MiB needed: all of a guest "
            "with a GPU, and what its emulator maps",
            "lower memory_mib, or raise the limit of locked memory of libvirt's daemon "
            "(LimitMEMLOCK of its unit, or CAP_SYS_RESOURCE of the container that it runs in)",
        )
