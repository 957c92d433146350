"""Whether a guest runs the kernel and has the shape that were asked for: readings of it, judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .documents import Instance

SHAPE = ("packages", "cores", "nodes", "caches")


def guest_mismatches(instance: Instance, machine: Mapping[str, Any]) -> list[str]:
    """Return what differs between a guest and what was asked for, a sentence each.

    Args:
        instance: As it was asked for.
        machine: The reading of its machine, with what the guest's kernel said (``guest``) and, of
            the CPUs that it is pinned to, the host's (``host``): see `kernel.shape.parse`.
    """
    return [*_kernel(instance, machine), *_shape(instance, machine)]


def _kernel(instance: Instance, machine: Mapping[str, Any]) -> Iterator[str]:
    asked = instance.kernel
    if asked is None:
        return
    found = (machine.get("guest") or {}).get("kernel")
    needed = {"release": asked.release, "version": asked.version}
    if found != needed:
        own = f"{found['release']} {found['version']}" if found else "none"
        yield (
            f"the guest's kernel is {own}, the host's, {asked.release} {asked.version}, is needed "
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
    # What an emulated processor says of its caches is its emulator's.
    for part in SHAPE[:-1] if instance.accelerator == "tcg" else SHAPE:
        if guest.get(part) is None or guest.get(part) != host.get(part):
            yield (
                f"the guest sees {part} {guest.get(part)}, the CPUs {list(instance.cpu_ids)} that "
                f"it is pinned to have {host.get(part)}; both alike are needed (guest_topology "
                "host): a hypervisor below may tell of other caches than it has"
            )
