"""The design of a sweep: its cells on a host, why others cannot run, and the order of trials.

Pure: a plan, a host's report and the platforms in; a `Design` out, which the sweep writes as
design.json. The order is a randomized complete block design: see `_order`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product

from virtbed.gpu import gpu_of, instance_gpu
from virtbed.guests import equipped
from virtbed.neighbours import NEIGHBOURS, accompanied, place_neighbours, unmet, wanted
from virtbed.placement import Placement, Topology, choose_kind, keep_online, place
from virtbed.plan import Application, Plan, PlanError
from virtbed.platforms import Platforms
from virtbed.shards import Shard
from virtbed.trial import Trial, Values
from virtbed.variation import combinations, offered, unvaried
from virtbed_contract import sweep as documents
from virtbed_contract.documents import Instance, Neighbour, RoleProperties, image_name
from virtbed_contract.factors import instance_id, size_id, trial_id
from virtbed_contract.identifiers import DESIGN
from virtbed_contract.kernel.cpus import format_cpu_list, parse_cpu_list
from virtbed_contract.sweep import TIMES_EMULATED, HostReport, NotRun


@dataclass(frozen=True)
class Design:
    """A plan on one host.

    Attributes:
        trials: All trials, in their order.
        not_run: The combinations of platform, mode and size that cannot run, with the reasons.
        accelerator: How the host runs guests: "kvm" or "tcg"; None if it cannot run any.
        placements: The CPUs and memory nodes of each size.
        cells: What, with the plan, determines the trials.
    """

    trials: tuple[Trial, ...]
    not_run: tuple[NotRun, ...]
    accelerator: str | None
    placements: tuple[documents.PlannedPlacement, ...] = ()
    cells: tuple[Cell, ...] = ()

    def of(self, shard: Shard) -> Design:
        """Return a shard's part of the design; trials keep their positions in the whole."""
        return replace(self, trials=tuple(t for t in self.trials if shard.has(t.replicate)))

    def interrupts(self) -> str:
        """Return the CPUs that are to receive interrupts during the whole sweep, as a kernel list.

        These are the housekeeping CPUs that no size uses and no instance takes offline. If there
        are none, because a size takes every CPU, they are the housekeeping CPUs of the smallest
        size. All instances have the same, so platforms are treated alike.
        """
        online = [frozenset(parse_cpu_list(trial.instance.allowed)) for trial in self.trials]
        helpers = [frozenset(parse_cpu_list(size.housekeeping)) for size in self.placements]
        measured = [frozenset(parse_cpu_list(size.cpus)) for size in self.placements]
        stay = helpers[0].union(*helpers, *measured).intersection(*online)
        apart = helpers[0].union(*helpers).difference(*measured)
        return format_cpu_list(apart & stay or helpers[0] & stay or stay)

    def document(
        self, plan: Plan, image: str, platforms: Platforms, commits: Sequence[str]
    ) -> documents.Design:
        """Return the document of design.json.

        Args:
            plan: The plan of this design.
            image: Digest of the image that every instance runs.
            platforms: All platforms of the checkout.
            commits: Commits of virtbed that have carried out parts of the sweep so far.
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
            placements=self.placements,
            image=plan.image,
        )


@dataclass(frozen=True)
class Cell:
    """An instance of one size and mode with its factors, not yet in a replicate."""

    instance: Instance
    factors: Values
    emulated: bool
    enclosure: RoleProperties


def design(
    plan: Plan, report: HostReport, platforms: Platforms, others: Iterable[Design] = ()
) -> Design:
    """Turn a plan into the trials of one host.

    Args:
        plan: The plan.
        report: The host's report.
        platforms: All platforms of the checkout.
        others: Designs of the plan on other hosts. With equal cells it shares their trials, since
            hundreds of hosts with a million trials each would fill the memory.

    Raises:
        PlacementError: a size needs more cores or memory than the host has in one place, or hwloc's
            description of the host is missing.
        PlanError: the plan varies something that none of its platforms can have.
    """
    if why := unvaried(plan, {name: platforms.parts(name)[1] for name in platforms.entries}):
        raise PlanError(why)
    topology = Topology.from_doctor(report.facts)
    gpu = gpu_of(plan, report, platforms)
    if gpu:  # cells without the GPU are placed alike, so that they can be compared
        topology = topology.near_card(gpu.address)
    kind = choose_kind(topology, max(plan.cores), plan.core_kind)
    # `place` refuses a size that no platform on this host could have.
    placed = {c: place(topology, c, plan.memory_mib, kind) for c in sorted(plan.cores)}
    total_mib = report.facts.get("memory_mib", {}).get("total")
    rooms = {
        c: place_neighbours(topology, placement, wanted(plan), plan.memory_mib, total_mib)
        for c, placement in placed.items()
    }
    verdicts = {row.platform: row for row in report.platforms}
    cells: list[Cell] = []
    not_run: list[NotRun] = []
    for platform, modes in plan.platforms.items():
        verdict = verdicts[platform]
        for mode in modes:
            if verdict.status == "unavailable":
                not_run.append(NotRun(platform, mode, None, verdict.reason, verdict.remedy))
                continue
            emulated = verdict.status == "emulated"
            for cores, placement in placed.items():
                instance = _instance(
                    plan, topology, report, platforms, platform, mode, cores, placement
                )
                if gpu:
                    instance = replace(instance, gpu=instance_gpu(gpu, report))
                left_out = _left_out(plan, topology, instance, emulated)
                if left_out:
                    not_run.append(left_out)
                    continue
                machine, enclosure = platforms.parts(platform)
                for values in combinations(plan, "instance", instance, enclosure, emulated):
                    varied = replace(instance, factors=values)
                    own = offered(
                        varied, enclosure, report.facts.get("lacking", ())
                    ) or accompanied(varied, rooms[cores])
                    if isinstance(own, Instance):
                        own = equipped(own, machine, topology, report.facts)
                    if isinstance(own, Instance):
                        cells.append(Cell(own, values, emulated, enclosure))
                    elif (row := NotRun(platform, mode, cores, *own)) not in not_run:
                        not_run.append(row)  # one row per reason, whatever other factors vary
    neighbours = (cell.factors[NEIGHBOURS.name] for cell in cells)
    if why := unmet(plan, neighbours, ((row.reason, row.remedy) for row in not_run)):
        raise PlanError(why)
    sizes = tuple(_planned(c, placement, rooms[c]) for c, placement in placed.items())
    shared = (other.trials for other in others if other.cells == tuple(cells))
    trials = next(shared, None) or tuple(_order(plan, cells))
    return Design(trials, tuple(not_run), report.accelerator, sizes, tuple(cells))


def _planned(
    cores: int, placement: Placement, room: tuple[Neighbour, ...]
) -> documents.PlannedPlacement:
    return documents.PlannedPlacement(
        cores=cores,
        cpus=placement.cpus,
        mems=placement.mems,
        housekeeping=placement.housekeeping,
        core_kind=placement.kind,
        caches=placement.caches,
        reasons=placement.reasons,
        neighbours=room,
    )


def _by_online(instance: Instance) -> bool:
    """Return whether only the number of online CPUs limits an instance (vanilla bare metal)."""
    return not instance.own_kernel and instance.enclosure_limit == "none"


def _left_out(plan: Plan, topology: Topology, instance: Instance, emulated: bool) -> NotRun | None:
    """Return why an instance's size and mode cannot run on this host; None if they can."""
    platform, mode, cores = instance.platform, instance.mode, instance.cores
    online = topology.machine.cpus
    unlike = _unlike(topology, instance) if mode == "vanilla" else _unbalanced(topology, instance)
    if unlike:
        return NotRun(platform, mode, cores, *unlike)
    if _by_online(instance) and cores != len(online) and plan.scale_up == "affinity":
        return NotRun(
            platform, mode, cores,
            f"bare metal with {cores} of {len(online)} CPUs online needs CPU hotplug",
            f"set scale_up: hotplug, or compare with {platform} pinned, the baseline of both modes",
        )  # fmt: skip
    stays = frozenset(parse_cpu_list(instance.allowed))
    if topology.near and _by_online(instance) and not stays <= topology.near and stays != online:
        return NotRun(
            platform, mode, cores,
            f"CPUs {instance.allowed} would stay online, but only {format_cpu_list(topology.near)} "
            f"are near {topology.card}",
            f"compare with {platform} pinned, the baseline of both modes",
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


def _unlike(topology: Topology, instance: Instance) -> tuple[str, str] | None:
    """Return why no instance can float over this host's CPUs, and the remedy; None if it can.

    Floating is only measured over CPUs that are alike, and that pinned instances could have, too.
    """
    online, kinds = topology.machine.cpus, topology.machine.kinds
    pinned = "keep to mode pinned"
    if topology.isolated:
        return (
            f"CPUs {format_cpu_list(topology.isolated)} are isolated: the scheduler keeps an "
            "instance that is not pinned off them, so it would float over other CPUs than pinned "
            "instances have",
            f"{pinned}, or boot without isolcpus",
        )
    if topology.tickless and topology.tickless != online:
        return (
            f"CPUs {format_cpu_list(topology.tickless)} have no tick (nohz_full) and others have: "
            "an instance would float over unlike CPUs",
            f"{pinned}, or boot without nohz_full",
        )
    if topology.allowed != online:
        return (
            f"CPUs {format_cpu_list(topology.allowed)} allowed, {format_cpu_list(online)} online: "
            "platforms would differ in the CPUs that they may float over",
            f"{pinned}, run virtbed without the restriction (taskset, a cpuset), or take the other "
            "CPUs offline",
        )
    floats_over = frozenset(parse_cpu_list(instance.allowed))
    mixed = [kind for kind in kinds if kind.cpus & floats_over]
    if len(mixed) > 1:
        return (
            f"CPUs {' and '.join(format_cpu_list(k.cpus) for k in mixed)} are of different kinds "
            "of core: an instance would float over both",
            f"{pinned}, or take the CPUs of the other kinds offline",
        )
    return None


def _unbalanced(topology: Topology, instance: Instance) -> tuple[str, str] | None:
    """Return why the threads of a pinned instance would not spread over its CPUs, and the remedy.

    None if they would. The kernel does not balance load over isolated CPUs.
    """
    if not topology.isolated or instance.own_kernel or instance.cores == 1:
        return None
    return (
        f"CPUs {format_cpu_list(topology.isolated)} are isolated: the kernel balances no load over "
        f"them, and all threads of a process with {instance.cores} would stay on one",
        "keep to 1 core or to guests, whose vCPUs are pinned one by one, or boot with nohz_full, "
        "rcu_nocbs and irqaffinity but without isolcpus",
    )


def _instance(
    plan: Plan, topology: Topology, report: HostReport, platforms: Platforms, platform: str,
    mode: str, cores: int, placement: Placement,
) -> Instance:  # fmt: skip
    """Return an instance with all that its placement determines, without factors or replicate."""
    entry = platforms.entries[platform]
    machine, enclosure = platforms.parts(platform)
    limit = enclosure.limits[mode]
    allowed = format_cpu_list(topology.machine.cpus)
    if not machine.own_kernel and limit == "none":
        allowed = keep_online(topology, cores, placement.kind)
        placement = Placement(allowed, placement.mems, allowed)
    guest_cpus = format_cpu_list(range(cores))
    inner_cpus = guest_cpus if machine.own_kernel else placement.cpus
    inner_allowed = guest_cpus if machine.own_kernel else allowed
    seen_cpus = inner_cpus if mode == "pinned" else inner_allowed
    quota_cpus = float(cores) if limit == "quota" else None
    if enclosure.private_kernel:  # such a kernel numbers its CPUs from 0
        seen_cpus = format_cpu_list(range(len(parse_cpu_list(seen_cpus))))
    image = report.facts["image"]["digest"] or ""  # empty before setup: the plan is only shown
    return Instance(
        id="",  # set per replicate
        platform=platform,
        machine=entry.machine,
        enclosure=entry.enclosure,
        own_kernel=machine.own_kernel,
        private_kernel=enclosure.private_kernel,
        mode=mode,  # type: ignore[arg-type]  # the plan was checked
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
        placement=placement.reasons if mode == "pinned" else (),
        host_emulated=report.emulated,
    )


def _order(plan: Plan, cells: list[Cell]) -> list[Trial]:
    """Return the trials in order: one pass over every cell per replicate, shuffled.

    A randomized complete block design: within a replicate the blocks (instances) are shuffled, and
    within a block its applications, so that drift over hours affects all platforms alike. The
    order of a replicate depends only on the cells, the seed and its number.
    """
    trials: list[Trial] = []
    block = 0
    for replicate in range(1, plan.replicates + 1):
        shuffle = random.Random(f"{plan.seed}/{replicate}").shuffle  # nosec B311 # a seeded order
        included = [c for c in cells if not c.emulated or replicate <= plan.emulated.replicates]
        shuffle(included)
        for cell in included:
            block += 1
            workloads = _workloads(plan, cell)
            shuffle(workloads)
            for application, values in workloads:
                position = len(trials) + 1
                trials.append(_trial(plan, cell, application, values, replicate, block, position))
    return trials


def _workloads(plan: Plan, cell: Cell) -> list[tuple[Application, Values]]:
    """Return the trials of an instance: every application with every value of the trial factors.

    Emulated guests run every application at the scale `emulated.scale`, so an application that the
    plan lists at several scales runs only once per scenario.
    """
    values = combinations(plan, "trial", cell.instance, cell.enclosure, cell.emulated)
    every: list[tuple[Application, Values]] = list(product(plan.applications, values))
    if not cell.emulated:
        return every
    once = {(a.name, a.scenario, tuple(v.values())): (a, v) for a, v in reversed(every)}
    return list(once.values())[::-1]


def _trial(
    plan: Plan, cell: Cell, application: Application, values: Values, replicate: int, block: int,
    position: int,
) -> Trial:  # fmt: skip
    """Return one trial, with the ids of itself and its instance."""
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
