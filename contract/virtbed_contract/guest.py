"""Attestation of a guest: compare its kernel and CPU topology with the requested ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .documents import Instance

SHAPE = ("packages", "cores", "nodes", "caches")
"""Parts of a CPU topology that are compared, as `kernel.shape.parse` returns them."""


def guest_mismatches(instance: Instance, machine: Mapping[str, Any]) -> list[str]:
    """Return the differences between a guest and its request, one sentence each.

    Args:
        instance: The instance as it was requested.
        machine: Reading of its machine. ``guest`` has the kernel and topology that the guest's
            kernel reports, ``host`` those of the host CPUs that it is pinned to: see
            `kernel.shape.parse`.
    """
    return [*_kernel(instance, machine), *_shape(instance, machine)]


def _kernel(instance: Instance, machine: Mapping[str, Any]) -> Iterator[str]:
    host = instance.kernel
    if host is None:
        return
    found = (machine.get("guest") or {}).get("kernel")
    needed = {"release": host.release, "version": host.version}
    if found != needed:
        own = f"{found['release']} {found['version']}" if found else "none"
        yield (
            f"the guest's kernel is {own}, the host's, {host.release} {host.version}, is needed "
            "(guest_kernel host)"
        )


def _shape(instance: Instance, machine: Mapping[str, Any]) -> Iterator[str]:
    grid = instance.shape
    if grid is None:
        return
    defined = machine.get("topology") or {}
    needed = {"sockets": grid.sockets, "cores": grid.cores, "threads": grid.threads}
    if {name: defined.get(name) for name in needed} != needed:
        yield f"the machine was defined with the topology {defined or 'flat'}, {needed} is needed"
    elif defined.get("cache") != "passthrough":
        yield f"the machine was defined with caches {defined.get('cache')}, passthrough is needed"
    elif tuple(defined.get("cells", ())) != tuple(node.vcpus for node in grid.nodes):
        yield (
            f"the machine was defined with vCPUs {defined.get('cells')} in nodes, "
            f"{[node.vcpus for node in grid.nodes]} is needed"
        )
    guest, host = ((machine.get(side) or {}).get("shape") or {} for side in ("guest", "host"))
    # The caches that an emulated processor reports are made up by the emulator.
    for part in SHAPE[:-1] if instance.accelerator == "tcg" else SHAPE:
        if guest.get(part) is None or guest.get(part) != host.get(part):
            yield (
                f"the guest sees {part} {guest.get(part)}, but the CPUs {list(instance.cpu_ids)} "
                f"that it is pinned to have {host.get(part)}; the same needed on both "
                "(guest_topology host); a hypervisor below the host may report caches that differ "
                "from the real ones"
            )
