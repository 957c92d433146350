"""Properties of a guest besides its size: the topology of its CPUs and memory, and its kernel.

Pure: the facts of a host's report and an instance in; the instance with a `GuestShape` and a
kernel, or the reason why it cannot have them, out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from virtbed.hwloc import Machine, Node
from virtbed.locality import HEADROOM_MIB, fits
from virtbed.placement import Topology, format_cpu_list
from virtbed_contract.codec import decode
from virtbed_contract.documents import GuestNode, GuestShape, HostKernel, Instance, RoleProperties

MOST_VCPUS = 255
"""Most vCPU numbers of a guest: more need an interrupt controller that our guests do not have."""
Why = tuple[str, str]
"""Why a cell cannot run, and the remedy."""


def equipped(
    instance: Instance, machine: RoleProperties, topology: Topology, facts: Mapping[str, Any]
) -> Instance | Why:
    """Return an instance with the guest kernel and topology that its factors require.

    Args:
        instance: The instance, with its `factors`.
        machine: The properties of its machine.
        topology: The host.
        facts: The facts of the host's report.

    Returns:
        The instance, or why this host cannot provide them.
    """
    if not instance.own_kernel:
        return instance
    if instance.factors.get("guest_kernel") == "host":
        kernel = facts["host_kernel"]
        if why := _unbootable(kernel, machine):
            return f"guest_kernel host: {why[0]}", why[1]
        instance = replace(instance, kernel=decode(HostKernel, kernel["kernel"]))
    if instance.factors.get("guest_topology") == "host":
        return _shaped(instance, machine, topology)
    return instance


def _unbootable(kernel: Mapping[str, Any], machine: RoleProperties) -> Why | None:
    """Return why a guest cannot boot the host's kernel; None if it can."""
    image = "keep to guest_kernel: [image]"
    if kernel["problem"]:
        return kernel["problem"], f"{kernel['remedy']}, or {image}"
    missing = [name for name in machine.drivers if name in kernel["missing"]]
    if missing:
        return (
            f"the host's kernel {kernel['kernel']['release']} has no {', '.join(missing)}, which a "
            "guest needs for its disk and network",
            f"boot the host with a kernel that has them as modules or built in, or {image}",
        )
    return None


def _shaped(instance: Instance, machine: RoleProperties, topology: Topology) -> Instance | Why:
    """Return an instance whose guest has the host's topology, or why that is not possible."""
    flat = "keep to guest_topology: [flat] on this platform"
    if not machine.host_topology:
        return (
            f"guest_topology host: a {instance.machine} cannot show cores, caches and nodes to its "
            "guest",
            flat,
        )
    if instance.mode != "pinned":
        return (
            "guest_topology host: vCPUs that float over the host's CPUs have no fixed core, cache "
            "or node that could be shown to the guest",
            "keep to mode pinned, or to guest_topology: [flat]",
        )
    try:
        found = shape(topology.machine, instance)
    except ShapeError as error:
        return f"guest_topology host: {error}", "choose other `cores`, or " + flat
    order, grid = found
    if instance.accelerator == "tcg" and len(grid.vcpus) < grid.sockets * grid.cores * grid.threads:
        return (
            f"guest_topology host: CPUs {instance.cpus} do not include all threads or cores of "
            "their domains, and an emulated guest whose vCPU numbers have gaps stalls at boot",
            f"use a host with hardware virtualization, or {flat}",
        )
    return replace(
        instance,
        cpu_ids=order,
        shape=grid,
        inner_mems=format_cpu_list(range(len(grid.nodes) or 1)),
    )


class ShapeError(ValueError):
    """The topology of some CPUs cannot be reproduced in a guest; the message says why."""


def shape(machine: Machine, instance: Instance) -> tuple[tuple[int, ...], GuestShape]:
    """Compute the guest topology of a pinned instance.

    A guest derives which of its CPUs share a cache from their APIC ids, which consist of bit fields
    for the socket, the core and the thread: a cache of eight threads is shared by the ids that
    differ in their last three bits only. So each core gets as many thread numbers as the host's
    cores have threads, and the first core of a cache gets a multiple of the number of cores that
    the cache has room for. Numbers for which the instance has no CPU are left out.

    Returns:
        The instance's CPUs in the order of its vCPUs, and the guest's topology.

    Raises:
        ShapeError: the memory is not that of the CPUs' own nodes, a node has too little of it, or
            there are too many numbers.
    """
    taken = frozenset(instance.cpu_ids)
    every = [core for core in machine.cores if taken & {*core}]
    threads = max(map(len, every))
    sockets = [[core for core in every if own & {*core}] for own in _packages(machine, every)]
    places: dict[int, tuple[int, int, int]] = {}
    for socket, cores in enumerate(sockets):
        for core, number in zip(cores, _numbers(machine, cores), strict=True):
            for thread, cpu in enumerate(cpu for cpu in core if cpu in taken):
                places[cpu] = (socket, number, thread)
    width = 1 + max(number for _, number, _ in places.values())
    size = len(sockets) * width * threads
    if size > MOST_VCPUS:
        raise ShapeError(
            f"CPUs {format_cpu_list(taken)} would need {size} vCPU numbers, at most {MOST_VCPUS} "
            "are available"
        )
    vcpus = {cpu: (s * width + core) * threads + t for cpu, (s, core, t) in places.items()}
    order = tuple(sorted(vcpus, key=lambda cpu: vcpus[cpu]))
    grid = GuestShape(
        sockets=len(sockets),
        cores=width,
        threads=threads,
        vcpus=tuple(vcpus[cpu] for cpu in order),
        nodes=_nodes(machine, instance, vcpus, (len(sockets), width, threads)),
    )
    return order, grid


def _power(number: int) -> int:
    """Return the smallest power of two that is at least `number`."""
    return 1 << (number - 1).bit_length()


def _packages(machine: Machine, cores: list[tuple[int, ...]]) -> list[frozenset[int]]:
    """Return the CPUs of each package that has one of these cores, in the cores' order."""
    found: dict[frozenset[int], None] = {}
    packages = [each.cpus for each in machine.domains if each.name == "package"]
    for core in cores:
        # There is no domain for a package with one core, nor for one with the same CPUs as a node.
        alone = frozenset(core) if machine.packages > 1 else machine.cpus
        found[next((own for own in packages if own & {*core}), alone)] = None
    return list(found)


def _numbers(machine: Machine, cores: list[tuple[int, ...]]) -> list[int]:
    """Return the number of each core within its socket; see `shape` for the numbering."""
    caches = [each.cpus for each in machine.domains if each.cache]
    numbers: list[int] = []
    for before, core in zip([None, *cores], cores, strict=False):
        number = numbers[-1] + 1 if numbers else 0
        for cache in caches:
            if before is not None and bool(cache & {*core}) != bool(cache & {*before}):
                room = _power(sum(bool(cache & {*other}) for other in machine.cores))
                number = -(-number // room) * room
        numbers.append(number)
    return numbers


def _apart(grid: tuple[int, int, int], one: int, other: int) -> tuple[int, ...]:
    """Return the distance of two vCPU numbers: in sockets, then cores, then threads."""
    _, cores, threads = grid
    return tuple(abs(one // size - other // size) for size in (cores * threads, threads, 1))


def _nodes(
    machine: Machine, instance: Instance, vcpus: Mapping[int, int], grid: tuple[int, int, int]
) -> tuple[GuestNode, ...]:
    """Return the guest's memory nodes; none if all memory is of one node, as in a flat guest."""
    near: list[tuple[Node, list[int]]] = []
    for node in machine.nodes:
        if node.own and node.dram and node.memory_mib != 0:
            near.append((node, sorted(vcpus[cpu] for cpu in node.cpus if cpu in vcpus)))
    near = [(node, own) for node, own in near if own]
    if len(near) < 2 and len(machine.nodes) < 2:
        return ()
    apart = set(vcpus) - {cpu for node, _ in near for cpu in node.cpus}
    mems = format_cpu_list(node.node for node, _ in near)
    if apart or mems != instance.mems:
        raise ShapeError(
            f"memory of nodes {instance.mems} found for CPUs {instance.cpus}, their own nodes "
            f"({mems or 'none'}) needed"
        )
    if len(near) < 2:
        return ()
    homes = {vcpu: place for place, (_, own) in enumerate(near) for vcpu in own}
    all_of: list[list[int]] = [[] for _ in near]
    for place in range(math.prod(grid)):  # an unused number belongs to the node of the nearest
        nearest = min(homes, key=partial(_apart, grid, place))
        all_of[homes[nearest]].append(place)
    share, left = divmod(instance.memory_mib, len(near))
    for node, _ in near:
        if not fits([node], share):
            raise ShapeError(
                f"node {node.node} has {node.memory_mib} MiB, {share + HEADROOM_MIB} MiB needed "
                f"for one of the guest's {len(near)} nodes, the emulator and the kernel"
            )
    return tuple(
        GuestNode(
            host=node.node,
            vcpus=format_cpu_list(all_of[place]),
            memory_mib=share + (1 if place < left else 0),
            distances=tuple(machine.distances.get((node.node, other.node), 0) for other, _ in near),
        )
        for place, (node, _) in enumerate(near)
    )
