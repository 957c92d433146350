"""Whether a sweep may start: host, image, platforms, and what must not change between two calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
from virtbed.plan import Plan
from virtbed.platforms import Platforms
from virtbed.sweep.interruption import Interruption, SweepError
from virtbed_contract.codec import encode
from virtbed_contract.remedies import setup
from virtbed_contract.sweep import HostReport, PlannedPlacement


@dataclass(frozen=True)
class Admitted:
    """A plan on a host that can carry it out.

    Attributes:
        report: The host's report.
        image: Digest of the image that every instance is to run.
        design: The plan's trials in order.
        restored: Whether something of a sweep that was cut off was put back before.
    """

    report: HostReport
    image: str
    design: Design
    restored: bool


def admit(plan: Plan, bench: Bench, platforms: Platforms, interruption: Interruption) -> Admitted:
    """Examine the host and lay the plan out on it.

    Raises:
        Interrupted: the user ended the sweep.
        SweepError: the image is missing or of other sources, a platform is down, or no cell can
            run.
        BenchError: the host cannot be examined, there is none, or there are several.
        PlacementError: the plan asks for more than the host offers.
    """
    if plan.precision is not None and not find_spec("virtbed_analysis"):
        raise SweepError(
            "precision found in the plan, and no virtbed-analysis, which is needed to tell when a "
            "cell is known closely enough; install virtbed[report], or take precision out"
        )
    # Booting a guest takes its time where that hangs, and tells nothing of a plan without guests.
    guests = any(platforms.parts(name)[0].own_kernel for name in plan.platforms)
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
        # Left out, it would be missed only in the report.
        if row.platform in plan.platforms and row.status == "unavailable":
            raise SweepError(
                f"{row.platform} is unavailable: {row.reason}; {row.remedy}, or take "
                f"{row.platform} out of the plan"
            )
    designed = design(plan, report, platforms)
    check_cells(plan, designed)
    check_memory(plan, report, guests=guests)
    return Admitted(report, image, designed, restored)


def check_cells(plan: Plan, designed: Design) -> None:
    """Raise SweepError if every cell of a plan is left out: it would end well, having done nothing.

    Such as guests alone that are to boot a kernel that cannot be booted.
    """
    if not designed.trials:
        why = dict.fromkeys(
            f"{row.platform}: {row.reason}; {row.remedy}" for row in designed.not_run
        )
        raise SweepError(f"this host can run no cell of the plan {plan.name}. {'. '.join(why)}")


def check_memory(plan: Plan, report: HostReport, *, guests: bool) -> None:
    """Raise SweepError if the host has not the memory of an instance, or not available for a guest.

    Memory nodes are compared when instances are placed, but not every kernel tells of them; and
    what others use, a guest's own kernel cannot give back.
    """
    memory, needed = report.facts["memory_mib"], plan.memory_mib + HEADROOM_MIB
    which = "available" if guests else "total"
    if needed > memory[which]:
        found = "available" if guests else "in all"
        raise SweepError(
            f"memory_mib {plan.memory_mib} asked, {needed} MiB needed with the emulator's and the "
            f"kernel's; {report.host} has {memory[which]} MiB {found}: lower `memory_mib` in the "
            "plan, or stop other programs"
        )


def identity(plan: Plan, admitted: Admitted, platforms: Platforms) -> dict[str, str]:
    """Return what must not change between two calls, or one cell would mix two platforms."""
    return common(plan, admitted) | of_host(plan, admitted, platforms)


def common(plan: Plan, admitted: Admitted) -> dict[str, str]:
    """Return the part of a sweep's identity that all of its hosts have in common."""
    return {
        "plan": plan.digest(),
        "image variant": plan.image,
        "image": admitted.image,
        "accelerator": str(admitted.design.accelerator),
    }


def of_host(plan: Plan, admitted: Admitted, platforms: Platforms) -> dict[str, str]:
    """Return the part of a sweep's identity that is one host's."""
    return of_report(plan, admitted.report, admitted.design.placements, platforms)


def of_report(
    plan: Plan, report: HostReport, placements: Iterable[PlannedPlacement], platforms: Platforms
) -> dict[str, str]:
    """Return what `of_host` does of a host by its report, and where instances of each size run.

    Raises:
        KeyError, TypeError, DocumentError, PlanError: the report lacks what a host's report has.
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
        "placement": where(encode(size) for size in placements),
        **({} if gpu is None else gpu_identity(gpu, report)),
        **{engine: str(facts["engines"][engine]["version"]) for engine in engines},
    }


def where(placements: Iterable[Mapping[str, Any]]) -> str:
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
    """Return the digest of the image that the plan names, which must be that of these sources."""
    image, needed = report.facts["image"], image_key(plan.image, REPOSITORY)
    remedy = f"{setup(plan.name)} (or the path of the plan), which builds it"
    if not image["digest"]:
        raise SweepError(f"no image {plan.image} found on this host, one is needed; {remedy}")
    if image["key"] != needed:
        raise SweepError(
            f"the image {plan.image} {image['digest'][:23]} was made of other sources than these "
            f"(key {str(image['key'])[:12]} found, {needed[:12]} needed); {remedy}"
        )
    return str(image["digest"])
