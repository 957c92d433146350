"""GPUs of a host, and whether processes on the host and guests can use them.

A GPU that cannot be used has one `Refusal`: of all reasons, the one to remedy first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional, Union

from .codec import described
from .gpu_refusals import (
    Host,
    Refusal,
    for_any,
    for_guest,
    for_host,
    for_state,
    window_needed,
)
from .gpu_state import GpuState
from .kernel import nvidia, pci

VENDOR = "10de"
NONE_HERE = "no NVIDIA GPU on the PCI bus; use a host that has one, or keep to the processor cpu"


class GpuError(ValueError):
    """No GPU can be chosen; the message has what was found and what is needed."""


@dataclass(frozen=True)
class Gpu:
    """One GPU of a host, and whether processes and guests can use it."""

    address: str = described("PCI address, such as 0000:41:00.0.")
    name: str = described("Product name, or the PCI ids of vendor and device.")
    uuid: Optional[str] = described("UUID of the GPU; null if its driver does not report it.")
    driver: Optional[str] = described("Driver that the GPU is bound to; null for none.")
    nodes: tuple[int, ...] = described("NUMA nodes near the GPU; empty if they are unknown.")
    along: tuple[str, ...] = described(
        "PCI addresses of the card's other functions, which are passed to a guest together with it."
    )
    parts: tuple[str, ...] = described("PCI addresses of the GPU's virtual functions (SR-IOV).")
    device_nodes: tuple[str, ...] = described(
        "Device nodes of the GPU; empty if its driver reports none."
    )
    window_mib: int = described("Address space that a guest needs to map its memory, in MiB.")
    on_host: Optional[Refusal] = described(
        "Why no process on the host can use the GPU; null if one can."
    )
    to_guest: Optional[Refusal] = described("Why no guest can use the GPU; null if one can.")

    @property
    def words(self) -> str:
        """Name and address, for messages."""
        return f"{self.name} at {self.address}"


def read(root: Path, guest_mib: int = 0, printed: Optional[str] = None) -> tuple[Gpu, ...]:
    """Return the NVIDIA GPUs of a host in order of address, without virtual functions (SR-IOV).

    Args:
        root: Root of the host's file system.
        guest_mib: Memory of the guest that is to get a GPU, in MiB.
        printed: Output of ``ldconfig -p`` on the host; None: do not check the driver's libraries.
    """
    libraries = None if printed is None else nvidia.libraries(printed)
    host = Host(root, pci.devices(root), guest_mib, libraries)
    known = nvidia.listed(root)
    return tuple(
        _gpu(host, device)
        for device in host.devices.values()
        if device.kind.startswith(pci.DISPLAY) and device.parent is None
        and (device.vendor == VENDOR or device.address in known)
    )  # fmt: skip


def with_states(
    gpus: Iterable[Gpu], states: Mapping[str, Union[GpuState, Refusal]]
) -> tuple[Gpu, ...]:
    """Return GPUs with refusals that follow from their states added.

    Args:
        gpus: GPUs, as `read` returns them.
        states: By address, the state of a GPU, or why NVML cannot read it. The latter keeps the GPU
            from the host's processes only, since a guest uses a driver of its own.
    """
    return tuple(_with_state(gpu, states.get(gpu.address)) for gpu in gpus)


def _with_state(gpu: Gpu, state: Union[GpuState, Refusal, None]) -> Gpu:
    if isinstance(state, Refusal):
        return replace(gpu, on_host=gpu.on_host or state)
    why = next(for_state(state), None) if state else None
    return replace(gpu, on_host=gpu.on_host or why, to_guest=gpu.to_guest or why)


def choose(gpus: Sequence[Gpu], named: Optional[str] = None) -> Gpu:
    """Return the GPU with a UUID or PCI address, or the only one.

    Args:
        gpus: GPUs, as `read` returns them.
        named: UUID or PCI address; None for the only GPU.

    Raises:
        GpuError: There is no GPU, there are several and `named` is None, or none has that name.
    """
    known = "; ".join(f"{gpu.words}{f' ({gpu.uuid})' if gpu.uuid else ''}" for gpu in gpus)
    if not gpus:
        raise GpuError(NONE_HERE)
    if named is None:
        if len(gpus) > 1:
            raise GpuError(
                f"{len(gpus)} GPUs and none named; name one by its UUID or PCI address: {known}"
            )
        return gpus[0]
    if named.upper().startswith("MIG-"):
        raise GpuError(
            f"{named} is a part of a GPU (MIG), a whole one needed; turn MIG off "
            f"(nvidia-smi --multi-instance-gpu=0) and name one of: {known}"
        )
    at, uuid = pci.address(named), named.lower()
    for gpu in gpus:
        if at in gpu.parts:
            raise GpuError(
                f"{at} is a virtual function (SR-IOV) of {gpu.words}, a whole GPU needed; remove "
                f"it: echo 0 > /{pci.DEVICES}/{gpu.address}/sriov_numvfs"
            )
        if gpu.address == at or (gpu.uuid and gpu.uuid.lower() == uuid):
            return gpu
    silent = [gpu.address for gpu in gpus if gpu.uuid is None]
    hint = f"; no UUID is known of {', '.join(silent)}: name it by address" if silent else ""
    raise GpuError(f"no GPU {named!r} here; there are: {known}{hint}")


def _gpu(host: Host, device: pci.Device) -> Gpu:
    card = [
        other for other in host.devices.values()
        if other.slot == device.slot and other.parent is None
    ]  # fmt: skip
    window = window_needed(bar for function in card for bar in function.bars)
    parts = tuple(d.address for d in host.devices.values() if d.parent == device.address)
    either = list(for_any(host.root, device, parts))
    on_host = [*either, *for_host(host, device)]
    to_guest = either or for_guest(host, device, card, window)
    return Gpu(
        address=device.address,
        name=nvidia.name(host.root, device.address)
        or f"device {device.vendor or VENDOR}:{device.model or 'unknown'}",
        uuid=nvidia.uuid(host.root, device.address),
        driver=device.driver,
        nodes=device.nodes,
        along=tuple(each.address for each in card if each is not device),
        parts=parts,
        device_nodes=nvidia.nodes(host.root, device.address),
        window_mib=window,
        on_host=next(iter(on_host), None),
        to_guest=next(iter(to_guest), None),
    )
