"""Which GPUs a host has, and whether a process on it and a guest may have one; if not, why.

A refusal has one reason, the first in the order in which a person would mend them.
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
    """A GPU that cannot be chosen; the message says what was found and what is needed."""


@dataclass(frozen=True)
class Gpu:
    """One GPU of a host, and who may use it."""

    address: str = described("Where it is on the PCI bus, such as 0000:41:00.0.")
    name: str = described("What its maker calls it, or the number of its model.")
    uuid: Optional[str] = described("Its UUID; null where its driver does not tell.")
    driver: Optional[str] = described("The driver that has it; null for none.")
    nodes: tuple[int, ...] = described("The NUMA nodes that it is near; none where nobody tells.")
    along: tuple[str, ...] = described("The other functions of its card, which go along.")
    parts: tuple[str, ...] = described("The virtual functions (SR-IOV) that were made of it.")
    device_nodes: tuple[str, ...] = described("Its device nodes; none where its driver names none.")
    window_mib: int = described("Addresses that a guest must have for its memory.")
    on_host: Optional[Refusal] = described(
        "Why no process on the host may have it; null if one may."
    )
    to_guest: Optional[Refusal] = described("Why no guest may have it; null if one may.")

    @property
    def words(self) -> str:
        """What it is and where, for a message."""
        return f"{self.name} at {self.address}"


def read(root: Path, guest_mib: int = 0, printed: Optional[str] = None) -> tuple[Gpu, ...]:
    """Return the NVIDIA GPUs of a host, by address; parts of a GPU (SR-IOV) are none.

    Args:
        root: Of the host's file system.
        guest_mib: Memory of the guest that is to have one.
        printed: What ``ldconfig -p`` printed there; None judges no libraries.
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
    """Return GPUs judged by their states, too.

    Args:
        gpus: What `read` gives.
        states: By address, the state, or why NVML tells none: no reason against a guest, whose own
            driver will drive the GPU.
    """
    return tuple(_with_state(gpu, states.get(gpu.address)) for gpu in gpus)


def _with_state(gpu: Gpu, state: Union[GpuState, Refusal, None]) -> Gpu:
    if isinstance(state, Refusal):
        return replace(gpu, on_host=gpu.on_host or state)
    why = next(for_state(state), None) if state else None
    return replace(gpu, on_host=gpu.on_host or why, to_guest=gpu.to_guest or why)


def choose(gpus: Sequence[Gpu], named: Optional[str] = None) -> Gpu:
    """Return the GPU that is meant.

    Args:
        gpus: What `read` gives.
        named: UUID or PCI address; None for the only one.

    Raises:
        GpuError: there is none, there are several and none was named, or none is named so.
    """
    there = "; ".join(f"{gpu.words}{f' ({gpu.uuid})' if gpu.uuid else ''}" for gpu in gpus)
    if not gpus:
        raise GpuError(NONE_HERE)
    if named is None:
        if len(gpus) > 1:
            raise GpuError(
                f"{len(gpus)} GPUs and none named; name one by its UUID or PCI address: {there}"
            )
        return gpus[0]
    if named.upper().startswith("MIG-"):
        raise GpuError(
            f"{named} is a part of a GPU (MIG), a whole one needed; turn MIG off "
            f"(nvidia-smi --multi-instance-gpu=0) and name one of: {there}"
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
    raise GpuError(f"no GPU {named!r} here; there are: {there}{hint}")


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
