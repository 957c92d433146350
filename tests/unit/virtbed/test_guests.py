"""The topology and kernel of guests, on made-up hosts and on recorded ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from virtbed.design import design
from virtbed.guests import ShapeError, shape
from virtbed.hwloc import read
from virtbed.plan import Plan
from virtbed_contract.documents import GuestShape, Instance
from virtbed_contract.kernel.cpus import parse_cpu_list
from virtbed_contract.sweep import HostReport

from . import machines
from .conftest import PLATFORMS, report

KERNEL = {
    "release": "6.1.0-1-amd64",
    "version": "#1 SMP",
    "file": "/boot/vmlinuz-6.1.0-1-amd64",
    "digest": "sha256:" + "b" * 64,
    "modules": "/usr/lib/modules/6.1.0-1-amd64",
    "config": "/boot/config-6.1.0-1-amd64",
}


def host_with(**changes: Any) -> HostReport:
    """Return a host whose kernel guests can boot, with some facts about the kernel changed."""
    found = {"kernel": KERNEL, "missing": [], "problem": None, "remedy": "", **changes}
    real = report(guests="available")
    return replace(real, facts={**real.facts, "host_kernel": found})


def plan_with(**keys: Any) -> Plan:
    return Plan.model_validate(
        {
            "name": "demo",
            "replicates": 2,
            "applications": [{"name": "image_classification"}],
            "platforms": {"bm": ["pinned"], "vm": ["vanilla", "pinned"], "microvm": ["pinned"]},
            "cores": [2],
            **keys,
        }
    )


def guests(plan: Plan, host: HostReport) -> dict[tuple[str, str, str, str], Instance]:
    designed = design(plan, host, PLATFORMS)
    found = (trial.instance for trial in designed.trials)
    return {
        (i.platform, i.mode, i.factors["guest_kernel"], i.factors["guest_topology"]): i
        for i in found
    }


def refused(plan: Plan, host: HostReport) -> dict[tuple[str, str | None], str]:
    """Return why each cell is left out, by its guest's kernel and topology."""
    rows = design(plan, host, PLATFORMS).not_run
    return {(r.platform, r.mode): f"{r.reason}; {r.remedy}" for r in rows if "guest_" in r.reason}


def test_the_default_is_the_images_kernel_and_a_flat_guest() -> None:
    found = guests(plan_with(), report(guests="available"))
    assert {key[2:] for key in found} == {("image", "flat")}
    assert all(i.kernel is None and i.shape is None for i in found.values())


def test_guests_boot_the_hosts_kernel_next_to_the_images_and_bare_metal_once() -> None:
    plan = plan_with(guest_kernel=["image", "host"])
    found = guests(plan, host_with())
    assert {key[:3] for key in found} == {
        ("bm", "pinned", "image"),
        *((p, m, k) for p, m in (("vm", "vanilla"), ("vm", "pinned"), ("microvm", "pinned"))
          for k in ("image", "host")),
    }  # fmt: skip
    for key, instance in found.items():
        assert (instance.kernel is not None) == (key[2] == "host")
    ids = {trial.id for trial in design(plan, host_with(), PLATFORMS).trials}
    assert "vm-pinned-c02-host_kernel-image_classification-r01" in ids
    assert not refused(plan, host_with())


@pytest.mark.parametrize(
    ("message", "reason", "cells"),
    [
        ({"kernel": None, "problem": "the file is not found", "remedy": "install it"},
         "guest_kernel host: the file is not found; install it, or keep to guest_kernel: [image]",
         {("vm", "vanilla"), ("vm", "pinned"), ("microvm", "pinned")}),
        ({"missing": ["virtio_blk", "virtio_mmio"]},
         "guest_kernel host: the host's kernel 6.1.0-1-amd64 has no virtio_blk, virtio_mmio",
         {("microvm", "pinned")}),
        ({"missing": ["virtio_pci"]}, "has no virtio_pci", {("vm", "vanilla"), ("vm", "pinned")}),
        ({"missing": ["zfs"]}, "", set()),
    ],
)  # fmt: skip
def test_a_kernel_that_guests_cannot_boot_is_refused_cell_by_cell(
    message: dict[str, Any], reason: str, cells: set[tuple[str, str]]
) -> None:
    plan, host = plan_with(guest_kernel=["image", "host"]), host_with(**message)
    why = refused(plan, host)
    assert cells <= set(why)
    assert all(reason in why[cell] for cell in cells)
    ran = {key[:2] for key in guests(plan, host) if key[2] == "host"}
    assert ran == {("vm", "vanilla"), ("vm", "pinned"), ("microvm", "pinned")} - set(why)


def test_only_pinned_guests_of_machines_that_can_get_the_hosts_topology() -> None:
    plan = plan_with(guest_topology=["flat", "host"])
    found, why = guests(plan, report(guests="available")), refused(plan, report(guests="available"))
    guest = found["vm", "pinned", "image", "host"]
    assert guest.shape == GuestShape(1, 2, 1, (0, 1), ())
    assert guest.cpu_ids == (0, 1)
    assert set(why) == {("vm", "vanilla"), ("microvm", "pinned")}
    assert "float" in why["vm", "vanilla"] and "microvm" in why["microvm", "pinned"]
    assert {key[3] for key in found if key[0] == "bm"} == {"flat"}


def test_an_emulated_guest_whose_vcpu_numbers_have_gaps_is_refused() -> None:
    plan = plan_with(guest_topology=["flat", "host"], cores=[1], platforms={"vm": ["pinned"]})
    threads = machines.facts(smt(1, 2), 4, isa=[])
    for guest, why in (("available", ""), ("emulated", "vCPU numbers have gaps stalls at boot")):
        host = report(guests=guest)
        host = replace(host, facts={**host.facts, **threads})
        reason = refused(plan, host).get(("vm", "pinned"), "")
        assert why in reason and bool(why) == bool(reason)


def shaped(xml: str, cpus: str, mems: str = "0", memory_mib: int = 4096) -> tuple[Any, GuestShape]:
    """Return the order of the CPUs and the guest's topology, on a machine that hwloc describes."""
    machine = read(xml)
    some = design(plan_with(cores=[1]), report(guests="available"), PLATFORMS).trials[0].instance
    ids = parse_cpu_list(cpus)
    some = replace(some, cpus=cpus, cpu_ids=ids, cores=len(ids), mems=mems, memory_mib=memory_mib)
    return shape(machine, some)


def smt(sockets: int = 1, cores: int = 4, nodes: bool = False) -> str:
    """Return a machine of cores with two threads; second threads have the higher numbers."""
    count = sockets * cores
    packages = []
    for socket in range(sockets):
        first = range(socket * cores, (socket + 1) * cores)
        every = [*first, *(cpu + count for cpu in first)]
        cache = machines.thing("L3Cache", every, machines.cores(first, 2, count), cache_size=2**25)
        own = [machines.node(socket, every, 9000)] if nodes else []
        packages.append(machines.thing("Package", every, *own, cache))
    outside = machines.distances({0: (10, 21), 1: (21, 10)}) if nodes and sockets == 2 else ""
    return machines.machine([*range(2 * count)], *packages, outside=outside)


def test_threads_of_one_core_have_adjacent_numbers_in_the_guest() -> None:
    assert shaped(smt(), "1-2,5-6") == ((1, 5, 2, 6), GuestShape(1, 2, 2, (0, 1, 2, 3), ()))


def test_a_core_with_one_thread_in_the_guest_keeps_a_number_for_the_other() -> None:
    """Otherwise the guest's cores 0 and 1 would look like two threads of one core."""
    assert shaped(smt(), "1-2") == ((1, 2), GuestShape(1, 2, 2, (0, 2), ()))
    assert shaped(smt(), "1-2,6") == ((1, 2, 6), GuestShape(1, 2, 2, (0, 2, 3), ()))
    assert shaped(smt(), "5-6") == ((5, 6), GuestShape(1, 2, 2, (0, 2), ()))


def test_the_first_core_of_a_cache_has_a_multiple_of_the_caches_size() -> None:
    """Two caches of three cores: a guest derives a cache's cores from the bits of their numbers."""
    caches = [
        machines.thing("L3Cache", each, machines.cores(each), cache_size=2**24)
        for each in (range(3), range(3, 6))
    ]
    xml = machines.machine(
        [*range(6)],
        machines.thing("Package", range(6), machines.node(0, range(6), 9000), *caches),
    )
    assert shaped(xml, "1-4") == ((1, 2, 3, 4), GuestShape(1, 6, 1, (0, 1, 4, 5), ()))
    assert shaped(xml, "0-2") == ((0, 1, 2), GuestShape(1, 3, 1, (0, 1, 2), ()))


def test_sockets_with_one_core_each_are_sockets_of_the_guest() -> None:
    packages = [machines.thing("Package", [cpu], machines.cores([cpu])) for cpu in range(3)]
    xml = machines.machine(range(3), machines.node(0, range(3), 9000), *packages)
    assert shaped(xml, "1-2")[1] == GuestShape(2, 1, 1, (0, 1), ())


def test_cpus_of_two_nodes_give_two_nodes_with_memory_and_distances() -> None:
    order, grid = shaped(smt(2, 4, nodes=True), "2-3,4-5", "0-1", 4097)
    assert order == (2, 3, 4, 5)
    assert (grid.sockets, grid.cores, grid.threads) == (2, 2, 2)
    assert grid.vcpus == (0, 2, 4, 6)
    assert [(n.host, n.vcpus, n.memory_mib, n.distances) for n in grid.nodes] == [
        (0, "0-3", 2049, (10, 21)),
        (1, "4-7", 2048, (21, 10)),
    ]
    assert shaped(smt(2, 4, nodes=True), "4-5", "1")[1].nodes == ()


def test_memory_of_nodes_that_are_not_the_cpus_own_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"memory of nodes 0 found for CPUs 4-5, .* \(1\)"):
        shaped(smt(2, 4, nodes=True), "4-5", "0")


def test_a_guest_whose_part_of_the_memory_does_not_fit_one_of_its_nodes_is_refused() -> None:
    """Each of its nodes is bound strictly to one of the host: what fits both together is killed."""
    with pytest.raises(ShapeError, match=r"node 0 has 9000 MiB, 9012 MiB needed .* 2 nodes"):
        shaped(smt(2, 4, nodes=True), "2-3,4-5", "0-1", 17000)


def test_a_guest_that_needs_too_many_vcpu_numbers_is_refused() -> None:
    with pytest.raises(ShapeError, match="would need 256 vCPU numbers, at most 255"):
        shaped(smt(1, 128), "0-127")
