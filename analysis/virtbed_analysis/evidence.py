"""Whether a trial's labels are those of its evidence.

Result and evidence are two files. Whoever relabels one, or copies it from another trial, leaves the
other as it was; what was asked, read back before and after, and seen inside, must be one story.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from virtbed_analysis.platforms import METAL, PROCESS
from virtbed_analysis.reading import Json
from virtbed_contract.attestation import mismatches
from virtbed_contract.codec import encode
from virtbed_contract.confinement import confinement_mismatches
from virtbed_contract.documents import Instance, TrialRequest, image_name
from virtbed_contract.factors import instance_id, size_id
from virtbed_contract.guest import guest_mismatches
from virtbed_contract.kernel import moments
from virtbed_contract.neighbours import instances, neighbour_mismatches, neighbours_ran
from virtbed_contract.sweep import Evidence, Reading

_LABELS = (
    "platform", "machine", "enclosure", "mode", "cores", "memory_mib", "accelerator", "quota_cpus",
    "image_digest",
)  # fmt: skip
_WALL = 1.02
"""A sandbox's clock and its host's may differ by less."""
Facts = Mapping[str, Any]


def contradictions(result: Json, evidence: Evidence) -> Iterator[str]:
    """Give each contradiction between a result and the evidence of its trial: found and needed."""
    trial = result["trial"]
    if evidence.trial != trial["id"]:
        yield f"evidence.json is of trial {evidence.trial}"
        return
    if evidence.mismatches or not evidence.attested:
        named = "; ".join(evidence.mismatches or ("no mismatch named",))
        said = "attested, with mismatches" if evidence.attested else "not attested"
        yield f"its placement was {said}: {named}"
        return
    asked = evidence.asked
    for name in _LABELS:
        if getattr(asked, name) != trial[name]:
            yield f"is labelled {name} {trial[name]!r}, its evidence {getattr(asked, name)!r}"
    for name, value in asked.factors.items():
        if value != trial.get(name):
            yield f"is labelled {name} {trial.get(name)!r}, its evidence {value!r}"
    if trial["emulated"] != (asked.accelerator == "tcg" or asked.host_emulated):
        host = "an emulated" if asked.host_emulated else "a real"
        yield (
            f"has emulated {trial['emulated']}, its evidence has accelerator {asked.accelerator} "
            f"on {host} host"
        )
    size = size_id(trial["platform"], trial["mode"], trial["cores"], trial)
    if asked.id != instance_id(size, trial["replicate"]):
        yield f"its evidence is of the instance {asked.id}"
    yield from _asked(asked)
    yield from _inside(result, evidence)
    for moment, reading in (("before", evidence.before), ("after", evidence.after)):
        if reading is None or reading.machine is None or reading.enclosure is None:
            yield f"its evidence has no reading of machine and enclosure {moment} the trial"
        else:
            yield from _placed(asked, moment, reading)
    yield from _moved(evidence)
    yield from _bench(result, evidence)
    yield from _neighbours(result, evidence)
    yield from _outlasted(result, evidence)


def _asked(asked: Instance) -> Iterator[str]:
    """Give what no instance of these labels can have been asked for."""
    if asked.image_name != image_name(asked.image_digest):
        yield f"its evidence names the image {asked.image_name} of {asked.image_digest}"
    if asked.own_kernel != (asked.machine != METAL):
        yield f"its evidence has own_kernel {asked.own_kernel} on the machine {asked.machine}"
    for factor, part in (("guest_kernel", asked.kernel), ("guest_topology", asked.shape)):
        if (asked.factors.get(factor) == "host") != (part is not None):
            yield f"its evidence has {factor} {asked.factors.get(factor)}, and not what that makes"
    # An emulated machine is marked as such, and has no part in a ratio, whatever it is called.
    if asked.accelerator != "tcg" and asked.own_kernel != (asked.accelerator == "kvm"):
        yield f"its evidence has accelerator {asked.accelerator} on the machine {asked.machine}"
    quota = float(asked.cores) if asked.enclosure_limit == "quota" else None
    if asked.quota_cpus != quota:
        yield (
            f"its evidence asks for a quota of {asked.quota_cpus} CPUs, limited by "
            f"{asked.enclosure_limit} on {asked.cores} cores"
        )
    if (asked.mode, asked.enclosure_limit) in (("pinned", "quota"), ("vanilla", "set")):
        yield f"its evidence is limited by {asked.enclosure_limit}, its mode is {asked.mode}"
    if asked.enclosure == PROCESS and asked.enclosure_limit == "quota":
        yield "its evidence has a quota on a plain process"
    if asked.mode == "pinned" and len(set(asked.cpu_ids)) != asked.cores:
        yield f"its evidence pins {asked.cores} cores to CPUs {asked.cpus}"


def _inside(result: Json, evidence: Evidence) -> Iterator[str]:
    """Give what the process saw that is not as asked, or not what its result says."""
    seen = encode(evidence.inside)
    if seen is None:
        yield "its evidence does not tell what the process saw"
        return
    for name, value in result["environment"].items():
        if seen.get(name) != value:
            yield f"its result says {name} {value!r}, its evidence {seen.get(name)!r}"
    asked, cpuset = evidence.asked, seen["cgroup"]["cpuset"]
    boxed = asked.enclosure != PROCESS and not asked.private_kernel
    if boxed and asked.enclosure_limit == "set" and cpuset not in (None, asked.seen_cpus):
        yield f"the application read the cpuset {cpuset!r}, {asked.seen_cpus!r} was asked"
    moved, policy = result["confounders"], result["settings"]["thread_policy"]
    machine = evidence.before.machine if evidence.before else None
    request = TrialRequest(
        id=evidence.trial, argv=(evidence.trial,), thread_policy=policy, isa=(), timeout_s=1,
        huge_pages=result["trial"]["huge_pages"],
    )  # fmt: skip
    saw = {
        "inside": seen,
        "ran_on": moved["ran_on"],
        "migrations": moved["migrations"],
        "thread_policy": policy,
        "transparent_hugepage": moved["transparent_hugepage"],
    }
    pages = (machine or {}).get("host_transparent_hugepage")
    yield from mismatches(evidence.asked, request, saw, pages)


def _placed(asked: Instance, moment: str, reading: Reading) -> Iterator[str]:
    """Give what a reading found that was not asked for.

    A role reads what it can: what is not in a reading is not compared.
    """
    machine, enclosure = dict(reading.machine or {}), dict(reading.enclosure or {})
    confined = asked.enclosure_limit == "set"
    # A private kernel renumbers CPUs, and the reading is its host's.
    cpus = asked.inner_cpus if confined else asked.inner_allowed
    cpus = cpus if asked.private_kernel else asked.seen_cpus
    needed: list[tuple[str, Facts, str, Any]] = [
        ("enclosure", enclosure, "cpus_allowed_list", cpus),
        ("enclosure", enclosure, "cpuset", cpus),
        ("enclosure", enclosure, "quota_cpus", asked.quota_cpus),
        ("enclosure", enclosure, "memory_mib", asked.memory_mib),
        # Of any engine that was asked for it; no limit is reported where the kernel has none.
        *_unswapped(asked, enclosure),
        ("enclosure", enclosure, "layers", [asked.image_digest]),
        ("enclosure", enclosure, "image", asked.image_digest),
        ("machine", machine, "cpus_online", asked.allowed),
        ("machine", machine, "vcpus", asked.cores),
        ("machine", machine, "memory_mib", asked.memory_mib),
        ("machine", machine, "accelerator", asked.accelerator),
        ("machine", machine, "quota_cpus", None),
    ]
    group = enclosure.get("cgroup")
    if isinstance(group, dict):
        needed.append(("enclosure", group, "quota_cpus", asked.quota_cpus))
    if confined and "cpuset" in enclosure:
        needed.append(("enclosure", enclosure, "mems_allowed_list", asked.inner_mems))
    for part, found, name, value in needed:
        if name in found and found[name] != value:
            yield f"{part} read {moment} the trial: {name} {found[name]!r}, {value!r} was asked"
    if machine.get("quotas"):
        yield f"machine read {moment} the trial: CPU quotas {machine['quotas']!r}, none was asked"
    for name in ("kernel", "backing_file"):
        if name in machine and asked.image_name not in str(machine[name]):
            yield f"machine read {moment} the trial: {name} {machine[name]!r} of another image"
    yield from _kinds(asked, moment, machine, enclosure)
    for mismatch in guest_mismatches(asked, machine):
        yield f"machine read {moment} the trial: {mismatch}"
    for mismatch in confinement_mismatches(asked, enclosure):
        yield f"enclosure read {moment} the trial: {mismatch}"
    pins = _pins(asked)
    for vcpu, thread in _threads(machine):
        wanted = pins.get(vcpu, "none") if asked.mode == "pinned" else asked.allowed
        if thread.get("cpus_allowed_list", wanted) != wanted:
            yield (
                f"vCPU {vcpu} read {moment} the trial: CPUs {thread['cpus_allowed_list']!r}, "
                f"{wanted!r} was asked"
            )


def _unswapped(asked: Instance, enclosure: Facts) -> Iterator[tuple[str, Facts, str, Any]]:
    if not asked.private_kernel and enclosure.get("swap_limit") is not None:
        yield "enclosure", enclosure, "swap_limit", "0 MiB"


def _kinds(asked: Instance, moment: str, machine: Facts, enclosure: Facts) -> Iterator[str]:
    """Give what a reading has that its machine, or its enclosure, cannot show."""
    strange = "vcpus" if asked.machine == METAL else "cpus_online"
    if strange in machine:
        yield f"machine read {moment} the trial: {strange}, which {asked.machine} has not"
    boxed = any(name in enclosure for name in ("container", "layers", "serves_rootfs"))
    if boxed and asked.enclosure == PROCESS:
        yield f"enclosure read {moment} the trial: a container's, {PROCESS} was asked"
    if "serves_rootfs" in enclosure and not asked.private_kernel:
        yield f"enclosure read {moment} the trial: a sandbox's, {asked.enclosure} was asked"
    if not machine:
        yield f"machine read {moment} the trial: it tells nothing"
    if not {"cpus_allowed_list", "cpuset"} & enclosure.keys():
        yield f"enclosure read {moment} the trial: it does not tell its CPUs"
    group = enclosure.get("cgroup")
    quota_read = "quota_cpus" in enclosure or (isinstance(group, dict) and "quota_cpus" in group)
    if asked.enclosure_limit == "quota" and not quota_read:
        yield f"enclosure read {moment} the trial: it does not tell its quota"


def _threads(machine: Facts) -> Iterator[tuple[int, Facts]]:
    threads = machine.get("vcpu_threads")
    for thread in threads if isinstance(threads, list) else ():
        if isinstance(thread, dict) and type(thread.get("vcpu")) is int:
            yield thread["vcpu"], thread


def _pins(asked: Instance) -> dict[int, str]:
    """Return the CPU that each vCPU of a pinned guest was asked to be on."""
    numbers = asked.shape.vcpus if asked.shape else range(len(asked.cpu_ids))
    return dict(zip(numbers, map(str, asked.cpu_ids), strict=False))


def _moved(evidence: Evidence) -> Iterator[str]:
    """Give the pinned vCPUs that the kernel moved between the readings."""
    sides = [
        {vcpu: thread.get("migrations") for vcpu, thread in _threads(side.machine or {})}
        for side in (evidence.before, evidence.after)
        if side is not None
    ]
    if len(sides) != 2 or evidence.asked.mode != "pinned":
        return
    for vcpu, before in sides[0].items():
        after = sides[1].get(vcpu)
        if type(before) is int and type(after) is int and after != before:
            yield f"vCPU {vcpu} was moved to another CPU {after - before} times, 0 needed"


def _bench(result: Json, evidence: Evidence) -> Iterator[str]:
    """Give what a result says of the bench host's kernel that its evidence does not."""
    sides = (side.machine if side else None for side in (evidence.before, evidence.after))
    try:
        read = moments.bench(*sides)
    except (TypeError, KeyError, AttributeError, ValueError, IndexError):
        yield "its evidence has a reading of the bench host's kernel that is none"
        return
    if read != result.get("bench"):
        yield "its result tells of the bench host's kernel what its evidence does not"


def _neighbours(result: Json, evidence: Evidence) -> Iterator[str]:
    """Give what a result says of the instances next to it that its evidence does not bear out."""
    asked, label = evidence.asked, result["trial"]["neighbours"]
    if len(asked.neighbours) != int(label):
        yield f"is labelled neighbours {label!r}, its evidence places {len(asked.neighbours)}"
        return
    sides = [side.neighbours if side else () for side in (evidence.before, evidence.after)]
    if not asked.neighbours:
        if any(sides) or result.get("neighbours"):
            yield "tells of neighbours, and was asked for none"
        return
    if asked.own_kernel or asked.private_kernel or asked.mode != "pinned":
        yield f"its evidence has neighbours of {asked.platform} {asked.mode}, which has none"
    every = [asked, *instances(asked)]
    if len({cpu for one in every for cpu in one.cpu_ids}) < len(every) * asked.cores:
        yield "its evidence has CPUs that the measured instance and neighbours share"
    before, after = sides
    try:
        for moment, wrong in (
            ("before", neighbour_mismatches(asked, before)),
            ("after", neighbour_mismatches(asked, after, before)),
        ):
            yield from (f"read {moment} the trial: {mismatch}" for mismatch in wrong)
        ran = neighbours_ran(asked, before, after)
    except (TypeError, KeyError, AttributeError, ValueError, IndexError):
        yield "its evidence has a reading of a neighbour that is none"
        return
    if ran != result.get("neighbours"):
        yield "its result tells of neighbours what its evidence does not"


def lasted_ns(result: Json) -> int:
    """Return the time that a result accounts for, from the start of its process to its last answer.

    Without the preparation between its parts: the process took no less.
    """
    known = (ns for ns in result["startup"].values() if ns is not None)
    warm = sum(sample["e2e_ns"] for sample in result["samples"] if sample["warmup"])
    return int(sum(known) + warm + result["confounders"]["window_ns"])


def _outlasted(result: Json, evidence: Evidence) -> Iterator[str]:
    """Give the time that a result accounts for beyond that of its process."""
    wall_ns = evidence.process_wall_ns
    if wall_ns is None:
        yield "its evidence does not tell how long the process ran"
        return
    parts_ns = lasted_ns(result)
    if parts_ns > wall_ns * _WALL:
        yield (
            f"its parts took {parts_ns / 1e9:.3f} s, its process {wall_ns / 1e9:.3f} s by the "
            "evidence"
        )
