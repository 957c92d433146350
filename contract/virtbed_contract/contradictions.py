"""Contradictions between a trial's result.json and its evidence.json.

Result and evidence are two files, so relabelling one of them, or copying it from another trial,
makes them disagree. The labels of the result, the requested instance (`Evidence.asked`), the
readings before and after the trial, and the reading by the process must all agree. `objections`
calls `contradictions`; `arithmetic` checks the numbers within a result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .attestation import mismatches
from .codec import Json, decode, encode
from .confinement import confinement_mismatches
from .documents import BARE, Instance, TrialRequest, image_name
from .factors import instance_id, size_id
from .guest import guest_mismatches
from .kernel import moments
from .neighbours import instances, neighbour_mismatches, neighbours_ran
from .result import Environment
from .sweep import Evidence, Reading

METAL, PROCESS = BARE
_LABELS = (
    "platform", "machine", "enclosure", "mode", "cores", "memory_mib", "accelerator", "quota_cpus",
    "image_digest",
)  # fmt: skip
_WALL = 1.02
"""Tolerated ratio of the time by the process's clock to the host's: a sandbox's clock may drift."""
Facts = Mapping[str, Any]


def contradictions(result: Json, evidence: Evidence) -> Iterator[str]:
    """Yield each contradiction between a result and the evidence of its trial.

    Args:
        result: A result that satisfies its schema.
        evidence: The evidence from the same folder.
    """
    trial = result["trial"]
    if evidence.trial != trial["id"]:
        yield f"evidence.json is of trial {evidence.trial}"
        return
    if evidence.mismatches or not evidence.attested:
        named = "; ".join(evidence.mismatches or ("no mismatch named",))
        state = "attested, with mismatches" if evidence.attested else "not attested"
        yield f"its placement was {state}: {named}"
        return
    instance = evidence.asked
    for name in _LABELS:
        if getattr(instance, name) != trial[name]:
            yield f"is labelled {name} {trial[name]!r}, its evidence {getattr(instance, name)!r}"
    for name, value in instance.factors.items():
        if value != trial.get(name):
            yield f"is labelled {name} {trial.get(name)!r}, its evidence {value!r}"
    if trial["emulated"] != (instance.accelerator == "tcg" or instance.host_emulated):
        host = "an emulated" if instance.host_emulated else "a real"
        yield (
            f"has emulated {trial['emulated']}, its evidence has accelerator "
            f"{instance.accelerator} on {host} host"
        )
    size = size_id(trial["platform"], trial["mode"], trial["cores"], trial)
    if instance.id != instance_id(size, trial["replicate"]):
        yield f"its evidence is of the instance {instance.id}"
    yield from _requested(instance)
    yield from _inside(result, evidence)
    for moment, reading in (("before", evidence.before), ("after", evidence.after)):
        if reading is None or reading.machine is None or reading.enclosure is None:
            yield f"its evidence has no reading of machine and enclosure {moment} the trial"
        else:
            yield from _placed(instance, moment, reading)
    yield from _moved(evidence)
    yield from _bench(result, evidence)
    yield from _neighbours(result, evidence)
    yield from _outlasted(result, evidence)


def _requested(instance: Instance) -> Iterator[str]:
    """Yield contradictions within the requested instance itself."""
    if instance.image_name != image_name(instance.image_digest):
        yield f"its evidence names the image {instance.image_name} of {instance.image_digest}"
    if instance.own_kernel != (instance.machine != METAL):
        yield f"its evidence has own_kernel {instance.own_kernel} on the machine {instance.machine}"
    for factor, part in (("guest_kernel", instance.kernel), ("guest_topology", instance.shape)):
        if (instance.factors.get(factor) == "host") != (part is not None):
            yield (
                f"its evidence has {factor} {instance.factors.get(factor)}, but its instance does "
                "not match that"
            )
    # An emulated machine is flagged and excluded from ratios, so its labels need no check here.
    if instance.accelerator != "tcg" and instance.own_kernel != (instance.accelerator == "kvm"):
        kind, machine = instance.accelerator, instance.machine
        yield f"its evidence has accelerator {kind} on the machine {machine}"
    quota = float(instance.cores) if instance.enclosure_limit == "quota" else None
    if instance.quota_cpus != quota:
        yield (
            f"its evidence asks for a quota of {instance.quota_cpus} CPUs, limited by "
            f"{instance.enclosure_limit} on {instance.cores} cores"
        )
    if (instance.mode, instance.enclosure_limit) in (("pinned", "quota"), ("vanilla", "set")):
        yield f"its evidence is limited by {instance.enclosure_limit}, its mode is {instance.mode}"
    if instance.enclosure == PROCESS and instance.enclosure_limit == "quota":
        yield "its evidence has a quota on a plain process"
    if instance.mode == "pinned" and len(set(instance.cpu_ids)) != instance.cores:
        yield f"its evidence pins {instance.cores} cores to CPUs {instance.cpus}"


def _inside(result: Json, evidence: Evidence) -> Iterator[str]:
    """Yield readings by the process that contradict the requested instance or the result."""
    seen = encode(evidence.inside)
    if seen is None:
        yield "its evidence has no reading by the process"
        return
    # Decoded, so that a fact that is newer than both files is null in both.
    for name, value in encode(decode(Environment, result["environment"])).items():
        if seen.get(name) != value:
            yield f"its result has {name} {value!r}, its evidence {seen.get(name)!r}"
    instance, cpuset = evidence.asked, seen["cgroup"]["cpuset"]
    boxed = instance.enclosure != PROCESS and not instance.private_kernel
    if boxed and instance.enclosure_limit == "set" and cpuset not in (None, instance.seen_cpus):
        yield f"the application read the cpuset {cpuset!r}, {instance.seen_cpus!r} needed"
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


def _placed(instance: Instance, moment: str, reading: Reading) -> Iterator[str]:
    """Yield values of a reading that contradict the requested instance.

    Roles read different values, so a value that a reading lacks is not compared.
    """
    machine, enclosure = dict(reading.machine or {}), dict(reading.enclosure or {})
    confined = instance.enclosure_limit == "set"
    # A private kernel renumbers CPUs, but this reading is by its host.
    cpus = instance.inner_cpus if confined else instance.inner_allowed
    cpus = cpus if instance.private_kernel else instance.seen_cpus
    needed: list[tuple[str, Facts, str, Any]] = [
        ("enclosure", enclosure, "cpus_allowed_list", cpus),
        ("enclosure", enclosure, "cpuset", cpus),
        ("enclosure", enclosure, "quota_cpus", instance.quota_cpus),
        ("enclosure", enclosure, "memory_mib", instance.memory_mib),
        # No limit is reported if the kernel has no swap accounting.
        *_unswapped(instance, enclosure),
        ("enclosure", enclosure, "layers", [instance.image_digest]),
        ("enclosure", enclosure, "image", instance.image_digest),
        ("machine", machine, "cpus_online", instance.allowed),
        ("machine", machine, "vcpus", instance.cores),
        ("machine", machine, "memory_mib", instance.memory_mib),
        ("machine", machine, "accelerator", instance.accelerator),
        ("machine", machine, "quota_cpus", None),
    ]
    group = enclosure.get("cgroup")
    if isinstance(group, dict):
        needed.append(("enclosure", group, "quota_cpus", instance.quota_cpus))
    if confined and "cpuset" in enclosure:
        needed.append(("enclosure", enclosure, "mems_allowed_list", instance.inner_mems))
    for part, facts, name, value in needed:
        if name in facts and facts[name] != value:
            yield f"{part} read {moment} the trial: {name} {facts[name]!r} found, {value!r} needed"
    if machine.get("quotas"):
        quotas = machine["quotas"]
        yield f"machine read {moment} the trial: CPU quotas {quotas!r} found, none needed"
    for name in ("kernel", "backing_file"):
        if name in machine and instance.image_name not in str(machine[name]):
            yield f"machine read {moment} the trial: {name} {machine[name]!r} of another image"
    yield from _kinds(instance, moment, machine, enclosure)
    for mismatch in guest_mismatches(instance, machine):
        yield f"machine read {moment} the trial: {mismatch}"
    for mismatch in confinement_mismatches(instance, enclosure):
        yield f"enclosure read {moment} the trial: {mismatch}"
    pins = _pins(instance)
    for vcpu, thread in _threads(machine):
        wanted = pins.get(vcpu, "none") if instance.mode == "pinned" else instance.allowed
        if thread.get("cpus_allowed_list", wanted) != wanted:
            yield (
                f"vCPU {vcpu} read {moment} the trial: CPUs {thread['cpus_allowed_list']!r} "
                f"found, {wanted!r} needed"
            )


def _unswapped(instance: Instance, enclosure: Facts) -> Iterator[tuple[str, Facts, str, Any]]:
    if not instance.private_kernel and enclosure.get("swap_limit") is not None:
        yield "enclosure", enclosure, "swap_limit", "0 MiB"


def _kinds(instance: Instance, moment: str, machine: Facts, enclosure: Facts) -> Iterator[str]:
    """Yield values of a reading that its machine or its enclosure cannot have."""
    strange = "vcpus" if instance.machine == METAL else "cpus_online"
    if strange in machine:
        yield (
            f"machine read {moment} the trial: {strange}, which the machine {instance.machine} "
            "does not have"
        )
    boxed = any(name in enclosure for name in ("container", "layers", "serves_rootfs"))
    if boxed and instance.enclosure == PROCESS:
        yield f"enclosure read {moment} the trial: a container found, {PROCESS} needed"
    if "serves_rootfs" in enclosure and not instance.private_kernel:
        yield f"enclosure read {moment} the trial: a sandbox found, {instance.enclosure} needed"
    if not machine:
        yield f"machine read {moment} the trial: the reading is empty"
    if not {"cpus_allowed_list", "cpuset"} & enclosure.keys():
        yield f"enclosure read {moment} the trial: the reading does not contain its CPUs"
    group = enclosure.get("cgroup")
    quota_read = "quota_cpus" in enclosure or (isinstance(group, dict) and "quota_cpus" in group)
    if instance.enclosure_limit == "quota" and not quota_read:
        yield f"enclosure read {moment} the trial: the reading does not contain its quota"


def _threads(machine: Facts) -> Iterator[tuple[int, Facts]]:
    """Yield the number and the reading of each vCPU thread that a reading lists."""
    threads = machine.get("vcpu_threads")
    for thread in threads if isinstance(threads, list) else ():
        if isinstance(thread, dict) and type(thread.get("vcpu")) is int:
            yield thread["vcpu"], thread


def _pins(instance: Instance) -> dict[int, str]:
    """Return the requested CPU of each vCPU of a pinned guest."""
    numbers = instance.shape.vcpus if instance.shape else range(len(instance.cpu_ids))
    return dict(zip(numbers, map(str, instance.cpu_ids)))


def _moved(evidence: Evidence) -> Iterator[str]:
    """Yield the pinned vCPUs that the kernel migrated between the two readings."""
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
    """Yield a contradiction if the result's part on the bench host's kernel is not the evidence's.

    The result's part is computed from the readings before and after, so it can be computed again.
    """
    sides = (side.machine if side else None for side in (evidence.before, evidence.after))
    try:
        read = moments.bench(*sides)
    except (TypeError, KeyError, AttributeError, ValueError, IndexError):
        yield "its evidence has an invalid reading of the bench host's kernel"
        return
    if read != result.get("bench"):
        yield "its result's part on the bench host's kernel contradicts its evidence"


def _neighbours(result: Json, evidence: Evidence) -> Iterator[str]:
    """Yield contradictions about neighbours: labels, placement, readings, and the result's part."""
    instance, label = evidence.asked, result["trial"]["neighbours"]
    if len(instance.neighbours) != int(label):
        yield f"is labelled neighbours {label!r}, its evidence places {len(instance.neighbours)}"
        return
    sides = [side.neighbours if side else () for side in (evidence.before, evidence.after)]
    if not instance.neighbours:
        if any(sides) or result.get("neighbours"):
            yield "lists neighbours, but its instance has none"
        return
    if instance.own_kernel or instance.private_kernel or instance.mode != "pinned":
        yield (
            f"its evidence has neighbours of {instance.platform} {instance.mode}, which cannot "
            "have any"
        )
    every = [instance, *instances(instance)]
    if len({cpu for one in every for cpu in one.cpu_ids}) < len(every) * instance.cores:
        yield "its evidence has CPUs that the measured instance and neighbours share"
    before, after = sides
    try:
        for moment, wrong in (
            ("before", neighbour_mismatches(instance, before)),
            ("after", neighbour_mismatches(instance, after, before)),
        ):
            yield from (f"read {moment} the trial: {mismatch}" for mismatch in wrong)
        ran = neighbours_ran(instance, before, after)
    except (TypeError, KeyError, AttributeError, ValueError, IndexError):
        yield "its evidence has an invalid reading of a neighbour"
        return
    if ran != result.get("neighbours"):
        yield "its result contradicts the neighbours that its evidence shows"


def lasted_ns(result: Json) -> int:
    """Return a lower bound of the process's duration in ns: start-up, warm-up and window.

    Preparation between these parts is not recorded, so the process may have taken longer.
    """
    known = (ns for ns in result["startup"].values() if ns is not None)
    warm = sum(sample["e2e_ns"] for sample in result["samples"] if sample["warmup"])
    return int(sum(known) + warm + result["confounders"]["window_ns"])


def _outlasted(result: Json, evidence: Evidence) -> Iterator[str]:
    """Yield a contradiction if the parts of a result took longer than its process."""
    wall_ns = evidence.process_wall_ns
    if wall_ns is None:
        yield "its evidence has no duration of the process"
        return
    parts_ns = lasted_ns(result)
    if parts_ns > wall_ns * _WALL:
        yield (
            f"its parts took {parts_ns / 1e9:.3f} s, but by its evidence its process took "
            f"{wall_ns / 1e9:.3f} s"
        )
