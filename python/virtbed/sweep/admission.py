"""Admission of a host to a sweep: host, image and platforms are checked before anything is made.

Also the sweep's identity: what must not change between two calls that continue one sweep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from virtbed.bench import Bench
from virtbed.checkout import REPOSITORY
from virtbed.design import Design, design
from virtbed.gpu import gpu_of
from virtbed.gpu import identity as gpu_identity
from virtbed.image import image_key
from virtbed.locality import HEADROOM_MIB
from virtbed.placement import check_cores
from virtbed.plan import Plan
from virtbed.platforms import Platforms
from virtbed.sweep.interruption import Interruption, SweepError
from virtbed_contract.codec import decode, encode
from virtbed_contract.limits import DiskFree
from virtbed_contract.remedies import setup
from virtbed_contract.sweep import HostReport, PlannedPlacement


@dataclass(frozen=True)
class Admitted:
    """The admission of a plan to a host that can carry it out.

    Attributes:
        report: The host's report.
        image: Digest of the image that every instance must run.
        design: The plan's trials in order.
        restored: Whether the examination restored something that an interrupted sweep had changed.
    """

    report: HostReport
    image: str
    design: Design
    restored: bool


Designer = Callable[[Plan, HostReport, Platforms], Design]


def admit(
    plan: Plan,
    bench: Bench,
    platforms: Platforms,
    interruption: Interruption,
    designer: Designer = design,
) -> Admitted:
    """Examine the host and lay the plan out on it, with `designer`.

    Raises:
        Interrupted: The user ended the sweep.
        SweepError: The image is missing or was built from other sources, a platform is
            unavailable, or no cell can run.
        BenchError: The host cannot be examined, there is none, or there are several.
        PlacementError: The plan needs more than the host offers.
    """
    if plan.precision is not None and not find_spec("virtbed_analysis"):
        raise SweepError(
            "precision found in the plan, but virtbed-analysis is not installed, which computes "
            "when a cell is known precisely enough; install virtbed[report], or remove `precision` "
            "from the plan"
        )
    # Only plans with guests need the boot probe, which takes long where the guest's boot hangs.
    guests = has_guests(plan, platforms)
    try:
        report, restored = bench.examine(
            restore=True,
            probe_kvm=guests,
            image=plan.image,
            cancelled=lambda: interruption.wanted,
        )
    finally:
        interruption.check()
    image = _image(report, plan)
    for row in report.platforms:
        # Refuse it now: a platform that is left out would be noticed only in the report.
        if row.platform in plan.platforms and row.status == "unavailable":
            raise SweepError(
                f"{row.platform} is unavailable: {row.reason}; {row.remedy}, or remove "
                f"{row.platform} from the plan"
            )
    designed = designer(plan, report, platforms)
    check_cells(plan, designed)
    check_memory(plan, report, guests=guests)
    return Admitted(report, image, designed, restored)


def check_cells(plan: Plan, designed: Design) -> None:
    """Raise SweepError if the host can run no cell of the plan.

    Otherwise the sweep would end successfully without a trial, for example with only guests whose
    kernel cannot be booted here.
    """
    if not designed.trials:
        reasons = dict.fromkeys(
            f"{row.platform}: {row.reason}; {row.remedy}" for row in designed.not_run
        )
        raise SweepError(f"this host can run no cell of the plan {plan.name}. {'. '.join(reasons)}")


def check_facts(plan: Plan, report: HostReport, platforms: Platforms) -> None:
    """Refuse a host that can never carry a plan out, before anything is installed on it.

    Raises:
        PlacementError: The plan's largest size has more cores than the host offers.
        SweepError: The host has too little memory, or a disk is too full.
    """
    check_cores(max(plan.cores), report.facts["cpu"])
    check_memory(plan, report, guests=has_guests(plan, platforms))
    disks = (decode(DiskFree, disk, "disks") for disk in report.facts.get("disks", ()))
    if lack := next((disk.lack for disk in disks if disk.lack), ""):
        raise SweepError(lack)


def has_guests(plan: Plan, platforms: Platforms) -> bool:
    """Return whether a platform of a plan runs a kernel of its own."""
    return any(platforms.parts(name)[0].own_kernel for name in plan.platforms)


def check_memory(plan: Plan, report: HostReport, *, guests: bool) -> None:
    """Raise SweepError if the host has too little memory for an instance.

    Placement compares the memory of each NUMA node, but not every kernel reports it. A guest
    needs its memory available, not only installed: its kernel cannot reclaim what others use.
    """
    memory, needed = report.facts["memory_mib"], plan.memory_mib + HEADROOM_MIB
    which = "available" if guests else "total"
    if needed > memory[which]:
        raise SweepError(
            f"memory_mib {plan.memory_mib} requested, {needed} MiB needed with the emulator's and "
            f"the kernel's; {report.host} has {memory[which]} MiB {which}: lower `memory_mib` in "
            "the plan, or stop other programs"
        )


def identity(plan: Plan, admitted: Admitted, platforms: Platforms) -> dict[str, str]:
    """Return the identity of a sweep on one host: label and value of what must stay the same.

    If one of these changed between two calls, one cell would mix results of two platforms.
    """
    return common_identity(plan, admitted) | host_identity(plan, admitted, platforms)


def common_identity(plan: Plan, admitted: Admitted) -> dict[str, str]:
    """Return the part of a sweep's identity that all of its hosts share."""
    return {
        "plan": plan.digest(),
        "image variant": plan.image,
        "image": admitted.image,
        "accelerator": str(admitted.design.accelerator),
    }


def host_identity(plan: Plan, admitted: Admitted, platforms: Platforms) -> dict[str, str]:
    """Return the part of a sweep's identity that belongs to one host."""
    return identity_from_report(plan, admitted.report, admitted.design.placements, platforms)


def identity_from_report(
    plan: Plan, report: HostReport, placements: Iterable[PlannedPlacement], platforms: Platforms
) -> dict[str, str]:
    """Return the part of a sweep's identity that belongs to one host, from the host's report.

    Args:
        plan: The plan.
        report: The host's report.
        placements: Where instances of each size run on the host.
        platforms: The known platforms.

    Raises:
        KeyError, TypeError, DocumentError, PlanError: The report lacks a fact that is needed.
    """
    facts = report.facts
    gpu = gpu_of(plan, report, platforms)
    engines = {
        engine: None
        for platform in plan.platforms
        for role in platforms.host_roles(platform)
        for engine in platforms.roles[role].engines
    }
    return {
        "host": report.host,
        "kernel": facts["kernel"],
        "cpus": ",".join(map(str, facts["cpu"]["allowed"])),
        "placement": placement_words(encode(size) for size in placements),
        **({} if gpu is None else gpu_identity(gpu, report)),
        **{engine: str(facts["engines"][engine]["version"]) for engine in engines},
    }


def placement_words(placements: Iterable[Mapping[str, Any]]) -> str:
    """Return in words where instances of each size run, from a design's placements as JSON."""
    return "; ".join(
        "{cores}: {cpus} of node {mems} next to {housekeeping}".format_map(size)
        + "".join(
            ", neighbour on {cpus} of node {mems}".format_map(each)
            for each in size.get("neighbours", ())
        )
        for size in placements
    )


def _image(report: HostReport, plan: Plan) -> str:
    """Return the digest of the plan's image, which must be built from these sources.

    Raises:
        SweepError: The host has no such image, or one that was built from other sources.
    """
    image, needed = report.facts["image"], image_key(plan.image, REPOSITORY)
    remedy = f"{setup(plan.name)} (or the path of the plan), which builds it"
    if not image["digest"]:
        raise SweepError(f"no image {plan.image} found on this host, one is needed; {remedy}")
    if image["key"] != needed:
        raise SweepError(
            f"the image {plan.image} {image['digest'][:23]} was built from other sources than "
            f"these (key {str(image['key'])[:12]} found, {needed[:12]} needed); {remedy}"
        )
    return str(image["digest"])
