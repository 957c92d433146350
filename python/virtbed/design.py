"""The design of a sweep: cells, what cannot run, and the blocked random order of trials."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from virtbed.placement import Placement, PlacementError, Topology, keep_online, place
from virtbed.plan import Application, Plan
from virtbed.platforms import Platforms
from virtbed.trial import Trial, Values
from virtbed_contract import sweep as documents
from virtbed_contract.documents import Instance, image_name
from virtbed_contract.factors import instance_id, of_grain, size_id, trial_id
from virtbed_contract.identifiers import DESIGN
from virtbed_contract.kernel.cpus import format_cpu_list, parse_cpu_list
from virtbed_contract.sweep import TIMES_EMULATED, HostReport, NotRun


@dataclass(frozen=True)
class Design:
    """A plan on one host: its trials in order, and what is left out."""

    trials: tuple[Trial, ...]
    not_run: tuple[NotRun, ...]
    accelerator: str | None

    def document(
        self, plan: Plan, image: str, platforms: Platforms, commits: Sequence[str]
    ) -> documents.Design:
        """Return what design.json holds.

        Args:
            plan: The plan that was laid out.
            image: Digest of the image that every instance runs.
            platforms: The platforms that there are.
            commits: Commits of virtbed that carried the sweep out so far.
        """
        return documents.Design(
            schema=DESIGN,
            sweep=plan.name,
            plan_digest=plan.digest(),
            seed=plan.seed,
            image_digest=image,
            precision=plan.precision,
            min_replicates=plan.min_replicates,
            margin=plan.margin,
            accelerator=self.accelerator,  # type: ignore[arg-type]  # from a checked report
            platforms=tuple(e for n, e in platforms.entries.items() if n in plan.platforms),
            commits=tuple(commits),
            trials=tuple(trial.planned() for trial in self.trials),
            not_run=self.not_run,
            image=plan.image,
        )


@dataclass(frozen=True)
class _Cell:
    """An instance of one size and mode with its factors, before it has a replicate."""

    instance: Instance
    factors: Values
    emulated: bool


def design(plan: Plan, report: HostReport, platforms: Platforms) -> Design:
    """Lay a plan out on the host that a report describes.

    Raises:
        PlacementError: the plan asks for more cores than the host offers, or something keeps this
            process from CPUs that a container or a guest might use.
    """
    cpus = report.facts["cpu"]
    online = [row["cpu"] for row in cpus["cpus"]]
    if cpus["allowed"] != online:
        raise PlacementError(
            f"CPUs {format_cpu_list(cpus['allowed'])} allowed, {format_cpu_list(online)} online: "
            "every online CPU is needed, or platforms would differ in what they may use; lift what "
            "restricts virtbed (isolcpus, taskset, a cpuset), or take the other CPUs offline"
        )
    topology = Topology.from_doctor({"facts": report.facts})
    verdicts = {row.platform: row for row in report.platforms}
    cells: list[_Cell] = []
    not_run: list[NotRun] = []
    for cores in sorted(plan.cores):
        place(topology, cores)  # refuses a size that no platform here could have
    for platform, modes in plan.platforms.items():
        verdict = verdicts[platform]
        for mode in modes:
            if verdict.status == "unavailable":
                not_run.append(NotRun(platform, mode, None, verdict.reason, verdict.remedy))
                continue
            emulated = verdict.status == "emulated"
            for cores in sorted(plan.cores):
                instance = _instance(plan, topology, report, platforms, platform, mode, cores)
                left_out = _left_out(plan, topology, instance, emulated)
                if left_out:
                    not_run.append(left_out)
                    continue
                cells += [_Cell(instance, v, emulated) for v in _values(plan, "instance", emulated)]
    return Design(tuple(_order(plan, cells)), tuple(not_run), report.accelerator)


def _values(plan: Plan, grain: str, emulated: bool) -> Iterator[Values]:
    """Give every combination of the values of the factors of one grain."""
    factors = of_grain(grain)
    for values in product(*(plan.values(factor, emulated) for factor in factors)):
        yield {factor.name: value for factor, value in zip(factors, values, strict=True)}


def _by_online(instance: Instance) -> bool:
    """Return whether nothing but the number of online CPUs limits an instance: bm vanilla."""
    return not instance.own_kernel and instance.enclosure_limit == "none"


def _left_out(plan: Plan, topology: Topology, instance: Instance, emulated: bool) -> NotRun | None:
    platform, mode, cores = instance.platform, instance.mode, instance.cores
    if _by_online(instance) and cores != len(topology.cpus) and plan.scale_up == "affinity":
        return NotRun(
            platform, mode, cores,
            f"bare metal with {cores} of {len(topology.cpus)} CPUs online needs CPU hotplug",
            f"set scale_up: hotplug, or compare with {platform} pinned, the baseline of both modes",
        )  # fmt: skip
    if emulated and mode not in plan.emulated.modes:
        return NotRun(
            platform, mode, cores,
            f"emulated platforms run {' and '.join(plan.emulated.modes)} only (see emulated.modes)",
            "use a host with hardware virtualization, or name the mode in emulated.modes",
        )  # fmt: skip
    if emulated and cores not in plan.emulated.cores:
        return NotRun(
            platform, mode, cores,
            f"emulated platforms run with {plan.emulated.cores} cores only (see emulated.cores)",
            "use a host with hardware virtualization, or name the size in emulated.cores",
        )  # fmt: skip
    return None


def _instance(
    plan: Plan, topology: Topology, report: HostReport, platforms: Platforms, platform: str,
    mode: str, cores: int,
) -> Instance:  # fmt: skip
    entry = platforms.entries[platform]
    machine, enclosure = platforms.parts(platform)
    placement = place(topology, cores)
    limit = enclosure.limits[mode]
    allowed = format_cpu_list(cpu.cpu for cpu in topology.cpus)
    if not machine.own_kernel and limit == "none":
        allowed = keep_online(topology, cores)
        placement = Placement(allowed, placement.mems, allowed)
    guest_cpus = format_cpu_list(range(cores))
    inner_cpus = guest_cpus if machine.own_kernel else placement.cpus
    inner_allowed = guest_cpus if machine.own_kernel else allowed
    seen_cpus = inner_cpus if mode == "pinned" else inner_allowed
    quota_cpus = float(cores) if limit == "quota" else None
    if enclosure.private_kernel:  # which numbers what it is given from 0
        seen_cpus = format_cpu_list(range(len(parse_cpu_list(seen_cpus))))
    image = report.facts["image"]["digest"] or ""  # none yet: the plan is only shown
    return Instance(
        id="",  # every replicate has its own
        platform=platform,
        machine=entry.machine,
        enclosure=entry.enclosure,
        own_kernel=machine.own_kernel,
        private_kernel=enclosure.private_kernel,
        mode=mode,  # type: ignore[arg-type]  # as the plan was checked
        enclosure_limit=limit,  # type: ignore[arg-type]  # an enclosure does not limit by count
        cores=cores,
        memory_mib=plan.memory_mib,
        accelerator=(report.accelerator or "none") if machine.own_kernel else "none",
        cpus=placement.cpus,
        cpu_ids=parse_cpu_list(placement.cpus),
        mems=placement.mems,
        housekeeping=placement.housekeeping,
        allowed=allowed,
        inner_cpus=inner_cpus,
        inner_mems="0" if machine.own_kernel else placement.mems,
        inner_allowed=inner_allowed,
        seen_cpus=seen_cpus,
        quota_cpus=quota_cpus,
        seen_quota_cpus=None if enclosure.private_kernel else quota_cpus,
        image_digest=image,
        image_name=image_name(image),
        host_emulated=report.emulated,
    )


def _order(plan: Plan, cells: list[_Cell]) -> list[Trial]:
    """Return the trials in order: per replicate one pass over every cell, shuffled.

    Blocks are shuffled, and within each its applications (randomized complete block design), so
    that drift over hours falls on all platforms alike.
    """
    trials: list[Trial] = []
    block = 0
    for replicate in range(1, plan.replicates + 1):
        shuffle = random.Random(f"{plan.seed}/{replicate}").shuffle
        here = [c for c in cells if not c.emulated or replicate <= plan.emulated.replicates]
        shuffle(here)
        for cell in here:
            block += 1
            workloads = _workloads(plan, cell.emulated)
            shuffle(workloads)
            for application, values in workloads:
                position = len(trials) + 1
                trials.append(_trial(plan, cell, application, values, replicate, block, position))
    return trials


def _workloads(plan: Plan, emulated: bool) -> list[tuple[Application, Values]]:
    """Return what an instance runs: every application under every factor that a trial varies.

    Emulated guests run all scales of a plan at one, and so each application and scenario once.
    """
    every = list(product(plan.applications, _values(plan, "trial", emulated)))
    if not emulated:
        return every
    once = {(a.name, a.scenario, tuple(v.values())): (a, v) for a, v in reversed(every)}
    return list(once.values())[::-1]


def _trial(
    plan: Plan, cell: _Cell, application: Application, values: Values, replicate: int, block: int,
    position: int,
) -> Trial:  # fmt: skip
    how = plan.emulated if cell.emulated else application
    scales = {a.scale for a in plan.applications if a.name == application.name}
    base, factors = cell.instance, {**cell.factors, **values}
    size = size_id(base.platform, base.mode, base.cores, factors)
    return Trial(
        id=trial_id(
            size, application.name, how.scale if len(scales) > 1 else None, application.scenario,
            replicate, factors,
        ),
        instance=replace(base, id=instance_id(size, replicate)),
        factors=factors,
        slowdown=plan.slowdown if "slowed" in factors.values() else 0.0,
        application=application.name,
        scale=how.scale,
        scenario=application.scenario,
        rules="quick" if cell.emulated else application.rules,
        target_qps=application.target_qps,
        target_latency_ms=application.target_latency_ms,
        samples=how.samples,
        warmup=how.warmup,
        replicate=replicate,
        block=block,
        position=position,
        timeout_s=plan.timeout_s * (TIMES_EMULATED if cell.emulated else 1),
    )  # fmt: skip
