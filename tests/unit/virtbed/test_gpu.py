"""The GPU of a plan: its choice, the placement of cells near it, and its identity.

No plan can have a GPU yet, so these plans are built without that check.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from virtbed import hwloc
from virtbed.design import Design, design
from virtbed.gpu import gpu_of
from virtbed.placement import PlacementError, Topology, place
from virtbed.plan import Plan, PlanError
from virtbed.sweep.admission import Admitted, identity
from virtbed_contract.codec import encode
from virtbed_contract.documents import InstanceGpu
from virtbed_contract.gpu_refusals import Refusal
from virtbed_contract.gpus import Gpu
from virtbed_contract.sweep import HostReport

from . import machines
from .conftest import DIGEST, PLATFORMS, report

AT, OTHER = "0000:41:00.0", "0000:01:00.0"
FIRST, SECOND = range(4), range(4, 8)
H100 = Gpu(
    address=AT, name="H100", uuid="GPU-1", driver="nvidia", nodes=(1,), along=(), parts=(),
    device_nodes=("/dev/nvidia0",), window_mib=256 * 1024, on_host=None, to_guest=None,
)  # fmt: skip
REFUSED = Refusal("x", "why", "do that")


def two_sockets(*on: int) -> str:
    """Return a machine of two sockets, and a GPU on some of them."""
    parts = []
    for socket, cpus in enumerate((FIRST, SECOND)):
        shared = machines.thing("L3Cache", cpus, machines.cores(cpus))
        address = AT if socket else OTHER
        card = f'<object type="PCIDev" pci_busid="{address}" pci_type="0302 [10de:2331] [] a1"/>'
        node = machines.node(socket, cpus, 9000)
        parts.append(machines.thing("Package", cpus, node, shared, card if socket in on else ""))
    return machines.machine(range(8), *parts)


def host(
    *gpus: Gpu,
    on: tuple[int, ...] = (1,),
    lockable_mib: int | None = None,
    ecc: bool = True,
    **cpu: Any,
) -> HostReport:
    known = report(guests="available")
    facts = {
        **known.facts,
        **machines.facts(two_sockets(*on), 8, isa=["avx"], **cpu),
        "gpu": [encode(gpu) for gpu in gpus],
        "gpu_driver": "535.261.03",
        "gpu_states": {AT: {"cuda": "12.2", "ecc": ecc, "mig": False}},
        "gpu_libraries": {"libcuda.so.1": "/lib/libcuda.so.1"},
        "gpu_limits": {"address_bits": 46, "lockable_mib": lockable_mib},
    }
    return replace(known, facts=facts)


def asking(plan: Plan, **more: Any) -> Plan:
    return plan.model_copy(update={"processors": ["cpu", "gpu"], **more})


def cpus_of(designed: Design) -> set[tuple[str, str]]:
    return {
        (trial.factors["processor"], trial.instance.cpus)
        for trial in designed.trials
        if trial.instance.mode == "pinned"
    }


def test_cells_with_a_gpu_and_without_run_near_it_on_every_platform(plan: Plan) -> None:
    designed = design(asking(plan), host(H100), PLATFORMS)
    assert cpus_of(designed) == {(kind, cpus) for kind in ("cpu", "gpu") for cpus in ("4", "4-5")}
    assert {row.housekeeping for row in designed.placements} == {"0"}
    assert all("CPUs 4-7 are near 0000:41:00.0" in row.reasons for row in designed.placements)
    names = {trial.id for trial in designed.trials}
    assert {
        "cn-pinned-c02-image_classification-gpu-r01",
        "cn-pinned-c02-image_classification-r01",
    } <= names
    for platform in plan.platforms:
        of_each = {
            t.factors["processor"] for t in designed.trials if t.instance.platform == platform
        }
        assert of_each == {"cpu", "gpu"}


def test_instances_are_given_the_whole_card_and_the_drivers_libraries(plan: Plan) -> None:
    card = replace(H100, along=("0000:41:00.1",))
    whole = InstanceGpu(
        uuid="GPU-1", functions=(AT, "0000:41:00.1"), window_mib=256 * 1024,
        nodes=("/dev/nvidia0",), libraries={"libcuda.so.1": "/lib/libcuda.so.1"},
    )  # fmt: skip
    trials = design(asking(plan), host(card), PLATFORMS).trials
    assert trials and all(trial.instance.gpu == whole for trial in trials)
    without = design(plan, host(card), PLATFORMS).trials
    assert all(trial.instance.gpu is None for trial in without)


def test_of_two_gpus_the_named_one_determines_the_placement(plan: Plan) -> None:
    first = replace(H100, address=OTHER, uuid="GPU-0", nodes=(0,))
    here = host(first, H100, on=(0, 1))
    assert cpus_of(design(asking(plan, cores=[1], gpu="GPU-1"), here, PLATFORMS)) == {
        ("cpu", "4"), ("gpu", "4"),
    }  # fmt: skip
    assert cpus_of(design(asking(plan, cores=[1], gpu="01:00.0"), here, PLATFORMS)) == {
        ("cpu", "0"), ("gpu", "0"),
    }  # fmt: skip


def test_a_plan_without_a_gpu_ignores_the_hosts_gpu(plan: Plan) -> None:
    assert gpu_of(plan, host(), PLATFORMS) is None
    without = design(plan, host(H100), PLATFORMS)
    assert {kind for kind, _ in cpus_of(without)} == {"cpu"}
    assert not any("are near" in why for row in without.placements for why in row.reasons)


@pytest.mark.parametrize(
    ("gpus", "named", "message"),
    [
        ((), None, "bench: no NVIDIA GPU on the PCI bus; use a host that has one"),
        ((H100, replace(H100, address=OTHER)), None, "bench: 2 GPUs and none named"),
        ((H100,), "GPU-2", "bench: no GPU 'GPU-2' here; there are: H100 at"),
        ((replace(H100, on_host=REFUSED),), None,
         "bench: H100 at 0000:41:00.0 cannot be used by processes and containers: why; do that"),
        ((replace(H100, to_guest=REFUSED),), None, "cannot be used by guests: why; do that"),
    ],
)  # fmt: skip
def test_an_unusable_gpu_is_refused_when_the_design_is_made(
    plan: Plan, gpus: tuple[Gpu, ...], named: str | None, message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        design(asking(plan, gpu=named), host(*gpus), PLATFORMS)


def test_a_gpu_that_guests_cannot_use_is_refused_only_for_plans_with_guests(plan: Plan) -> None:
    metal = asking(plan, platforms={"bm": ["pinned"], "cn": ["pinned"]})
    refused = host(replace(H100, to_guest=REFUSED))
    assert gpu_of(metal, refused, PLATFORMS) is not None
    assert design(metal, refused, PLATFORMS).trials


@pytest.mark.parametrize("to_guest", [None, Refusal("memory", "of the doctor's size", "no")])
def test_the_limit_of_locked_memory_is_checked_with_the_plans_guests(
    plan: Plan, to_guest: Refusal | None
) -> None:
    """Whatever size the host's report assumed."""
    here = host(replace(H100, to_guest=to_guest), lockable_mib=5120)
    assert gpu_of(asking(plan), here, PLATFORMS) is not None  # 4 GiB, and what libvirt adds
    with pytest.raises(PlanError, match="guests: 5120 MiB may be locked, 5121 MiB needed"):
        design(asking(plan, memory_mib=4097), here, PLATFORMS)
    metal = asking(plan, memory_mib=4097, platforms={"bm": ["pinned"]})
    assert gpu_of(metal, here, PLATFORMS) is not None


def test_a_gpu_with_unknown_nearby_cpus_allows_every_cpu(plan: Plan) -> None:
    designed = design(asking(plan), host(H100, on=()), PLATFORMS)
    assert ("gpu", "4-5") in cpus_of(designed) and len(cpus_of(designed)) == 4
    assert not any("are near" in why for row in designed.placements for why in row.reasons)


def test_more_cores_than_are_near_the_gpu_are_refused(plan: Plan) -> None:
    with pytest.raises(
        PlacementError, match=r"8 cores requested, .* 4 such CPUs \(4-7\): CPUs 4-7 are"
    ):
        design(asking(plan, cores=[8]), host(H100), PLATFORMS)
    with pytest.raises(PlacementError, match=r"are isolated .*; CPUs 4-7 are near"):
        isolated = host(H100, allowed=[0, 1, 4, 5, 6, 7], isolated=[2, 3])
        design(asking(plan, cores=[1]), isolated, PLATFORMS)


def test_every_cpu_of_the_gpus_node_may_be_taken(plan: Plan) -> None:
    machine = hwloc.read(two_sockets(1))
    near = Topology(machine, machine.cpus).near_card(AT)
    placement = place(near, 4)
    assert (placement.cpus, placement.mems, placement.housekeeping) == ("4-7", "1", "0")
    lower = Topology(hwloc.read(two_sockets(0)), machine.cpus).near_card(OTHER)
    assert (place(lower, 4).cpus, place(lower, 4).housekeeping) == ("0-3", "4")


def test_cpus_that_stay_online_far_from_the_gpu_are_left_out(plan: Plan) -> None:
    hotplug = asking(plan, scale_up="hotplug", platforms={"bm": ["vanilla"]}, cores=[2])
    (row,) = design(hotplug, host(H100), PLATFORMS).not_run
    assert row.reason == "CPUs 0-1 would stay online, but only 4-7 are near 0000:41:00.0"
    first = replace(H100, address=OTHER, nodes=(0,))
    assert design(hotplug, host(first, on=(0,)), PLATFORMS).not_run == ()


def test_a_sweep_whose_gpu_or_driver_changed_is_another_sweep(plan: Plan) -> None:
    def kept(here: HostReport, of: Plan) -> dict[str, str]:
        designed = design(of, here, PLATFORMS)
        return identity(of, Admitted(here, DIGEST, designed, False), PLATFORMS)

    found = kept(host(H100), asking(plan))
    assert found["gpu"] == "H100 GPU-1 at 0000:41:00.0" and found["gpu driver"] == "535.261.03"
    assert kept(host(replace(H100, uuid="GPU-2")), asking(plan))["gpu"] != found["gpu"]
    assert (found["gpu cuda"], found["gpu ecc"], found["gpu mig"]) == ("12.2", "True", "False")
    assert kept(host(H100, ecc=False), asking(plan))["gpu ecc"] == "False"
    assert "gpu" not in kept(host(H100), plan)
