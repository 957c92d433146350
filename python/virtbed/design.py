"""Knows alone how a plan becomes trials: cells, what cannot run, and the blocked random order."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from virtbed.placement import (
    Placement,
    PlacementError,
    Topology,
    format_cpu_list,
    keep_online,
    parse_cpu_list,
    place,
)
from virtbed.plan import Application, Plan, Threads, Variant
from virtbed_workloads.environment import ISA

# What QEMU 7.2's TCG emulates of `ISA`.
TCG_ISA = ("sse4_1", "sse4_2", "avx", "avx2", "fma", "f16c")

# platform = machine x enclosure; a new one is a role and a line here.
PLATFORMS = {
    "bm": ("metal", "process"),
    "cn": ("metal", "docker"),
    "vm": ("kvm", "process"),
    "vmcn": ("kvm", "docker"),
}


@dataclass(frozen=True)
class Instance:
    """One provisioned platform of one size and mode; what the roles call virtbed_instance.

    CPU and memory-node lists are kernel lists ("0-2,5"). `inner_*` are numbered as the machine
    numbers them: a guest's CPUs begin at 0, whichever host CPUs carry them.
    """

    id: str
    platform: str
    machine: str
    enclosure: str
    mode: str
    cores: int
    memory_mib: int
    accelerator: str
    cpus: str
    cpu_ids: tuple[int, ...]
    mems: str
    housekeeping: str
    allowed: str
    inner_cpus: str
    inner_mems: str
    inner_allowed: str


@dataclass(frozen=True)
class Trial:
    """One fresh process of one application in one instance. `position` is 1-based in the sweep."""

    id: str
    instance: Instance
    variant: str
    slowdown: float
    application: str
    scale: str
    scenario: str
    threads: str
    rules: str
    target_qps: float | None
    target_latency_ms: float | None
    samples: int
    warmup: int
    replicate: int
    block: int
    position: int
    timeout_s: int
    processor: str = "cpu"

    @property
    def emulated(self) -> bool:
        """Whether its guest lacks hardware virtualization."""
        return self.instance.accelerator == "tcg"

    def argv(self, seed: int) -> list[str]:
        """Return the arguments of `python -m virtbed_workloads` that run this trial."""
        rates = {"qps": self.target_qps, "latency-ms": self.target_latency_ms}
        return [
            self.application,
            f"--scale={self.scale}",
            f"--scenario={self.scenario}",
            f"--rules={self.rules}",
            *(f"--target-{name}={rate}" for name, rate in rates.items() if rate is not None),
            f"--samples={self.samples}",
            f"--warmup={self.warmup}",
            f"--threads={self.threads}",
            f"--processor={self.processor}",
            *([f"--slowdown={self.slowdown}"] if self.slowdown else []),
            f"--seed={seed}",
        ]


def isa_needed(doctor: Mapping[str, Any], trial: Trial) -> list[str]:
    """Return the instruction-set extensions that a trial must see, or be slower for want of them.

    They are the host's; of an emulated guest those that QEMU's TCG can emulate.
    """
    known = set(TCG_ISA if trial.emulated else ISA)
    return [name for name in doctor["facts"]["cpu"]["isa"] if name in known]


@dataclass(frozen=True)
class NotRun:
    """Cells of the plan that this host cannot run, why, and what would change that."""

    platform: str
    mode: str
    cores: int | None
    reason: str
    remedy: str


@dataclass(frozen=True)
class Design:
    """A plan on one host: its trials in order, and what is left out."""

    trials: tuple[Trial, ...]
    not_run: tuple[NotRun, ...]
    accelerator: str | None


_Cell = tuple[Instance, Variant, bool]  # the last: emulated


def design(plan: Plan, doctor: Mapping[str, Any]) -> Design:
    """Lay a plan out on the host that a doctor's report describes.

    Raises PlacementError if the plan asks for more cores than the host offers, or if something
    keeps this process from CPUs that a container or a guest might use.
    """
    cpus = doctor["facts"]["cpu"]
    online = [row["cpu"] for row in cpus["cpus"]]
    if cpus["allowed"] != online:
        raise PlacementError(
            f"CPUs {format_cpu_list(cpus['allowed'])} allowed, {format_cpu_list(online)} online: "
            "every online CPU is needed, or platforms would differ in what they may use; lift what "
            "restricts virtbed (isolcpus, taskset, a cpuset), or take the other CPUs offline"
        )
    topology = Topology.from_doctor(doctor)
    verdicts = {row["platform"]: row for row in doctor["platforms"]}
    cells: list[_Cell] = []
    not_run: list[NotRun] = []
    for cores in sorted(plan.cores):
        place(topology, cores)  # refuses a size that no platform here could have
    for platform, modes in plan.platforms.items():
        verdict = verdicts[platform]
        for mode in modes:
            if verdict["status"] == "unavailable":
                not_run.append(NotRun(platform, mode, None, verdict["reason"], verdict["remedy"]))
                continue
            emulated = verdict["status"] == "emulated"
            for cores in sorted(plan.cores):
                left_out = _left_out(plan, topology, platform, mode, cores, emulated)
                if left_out:
                    not_run.append(left_out)
                    continue
                instance = _instance(plan, topology, doctor, platform, mode, cores)
                # An emulator has no speed that could be calibrated.
                variants: list[Variant] = ["plain"] if emulated else plan.variants
                cells += [(instance, variant, emulated) for variant in variants]
    return Design(tuple(_order(plan, cells)), tuple(not_run), doctor["accelerator"])


def _left_out(
    plan: Plan, topology: Topology, platform: str, mode: str, cores: int, emulated: bool
) -> NotRun | None:
    if (
        (platform, mode) == ("bm", "vanilla")
        and cores != len(topology.cpus)
        and plan.scale_up == "affinity"
    ):
        return NotRun(
            platform, mode, cores,
            f"bare metal with {cores} of {len(topology.cpus)} CPUs online needs CPU hotplug",
            "set scale_up: hotplug, or compare with bm pinned, the baseline of both modes",
        )  # fmt: skip
    if emulated and cores not in plan.emulated.cores:
        return NotRun(
            platform, mode, cores,
            f"emulated guests run with {plan.emulated.cores} cores only (see emulated.cores)",
            "use a host with hardware virtualization, or name the size in emulated.cores",
        )  # fmt: skip
    return None


def _instance(
    plan: Plan,
    topology: Topology,
    doctor: Mapping[str, Any],
    platform: str,
    mode: str,
    cores: int,
) -> Instance:
    machine, enclosure = PLATFORMS[platform]
    placement = place(topology, cores)
    allowed = format_cpu_list(cpu.cpu for cpu in topology.cpus)
    if (platform, mode) == ("bm", "vanilla"):
        allowed = keep_online(topology, cores)
        placement = Placement(allowed, placement.mems, allowed)
    guest = machine == "kvm"
    guest_cpus = format_cpu_list(range(cores))
    return Instance(
        id=f"{platform}-{mode}-c{cores:02d}",
        platform=platform,
        machine=machine,
        enclosure=enclosure,
        mode=mode,
        cores=cores,
        memory_mib=plan.memory_mib,
        accelerator=doctor["accelerator"] if guest else "none",
        cpus=placement.cpus,
        cpu_ids=parse_cpu_list(placement.cpus),
        mems=placement.mems,
        housekeeping=placement.housekeeping,
        allowed=allowed,
        inner_cpus=guest_cpus if guest else placement.cpus,
        inner_mems="0" if guest else placement.mems,
        inner_allowed=guest_cpus if guest else allowed,
    )


def _order(plan: Plan, cells: list[_Cell]) -> list[Trial]:
    """Every replicate is one pass over every cell, its blocks and their applications shuffled.

    Randomized complete block design: drift over hours falls on all platforms alike.
    """
    trials: list[Trial] = []
    block = 0
    for replicate in range(1, plan.replicates + 1):
        shuffle = random.Random(f"{plan.seed}/{replicate}").shuffle
        here = [c for c in cells if not c[2] or replicate <= plan.emulated.replicates]
        shuffle(here)
        for instance, variant, emulated in here:
            block += 1
            size = instance.id if variant == "plain" else f"{instance.id}-{variant}"
            fresh = Instance(**{**asdict(instance), "id": f"{size}-r{replicate:02d}"})
            workloads = _workloads(plan, emulated)
            shuffle(workloads)
            for application, threads in workloads:
                trials.append(
                    _trial(
                        plan, fresh, size, variant, application, threads, emulated, replicate,
                        block, len(trials) + 1,
                    )
                )  # fmt: skip
    return trials


def _workloads(plan: Plan, emulated: bool) -> list[tuple[Application, Threads]]:
    """Return what an instance runs: every application under every thread policy.

    Emulated guests run all scales of a plan at one, and so each application and scenario once.
    """
    every = [(a, t) for a in plan.applications for t in plan.threads]
    if not emulated:
        return every
    return list({(a.name, a.scenario, t): (a, t) for a, t in reversed(every)}.values())[::-1]


def _trial(
    plan: Plan, instance: Instance, size: str, variant: Variant, application: Application,
    threads: Threads, emulated: bool, replicate: int, block: int, position: int,
) -> Trial:  # fmt: skip
    how = plan.emulated if emulated else application
    scales = {a.scale for a in plan.applications if a.name == application.name}
    label = [
        application.name,
        *([how.scale] if len(scales) > 1 else []),
        *([application.scenario] if application.scenario != "single_stream" else []),
        *([threads] if threads != "default" else []),
    ]
    return Trial(
        id=f"{size}-{'-'.join(label)}-r{replicate:02d}",
        instance=instance,
        variant=variant,
        slowdown=plan.slowdown if variant == "slowed" else 0.0,
        application=application.name,
        scale=how.scale,
        scenario=application.scenario,
        threads=threads,
        rules="quick" if emulated else application.rules,
        target_qps=application.target_qps,
        target_latency_ms=application.target_latency_ms,
        samples=how.samples,
        warmup=how.warmup,
        replicate=replicate,
        block=block,
        position=position,
        timeout_s=plan.timeout_s * (6 if emulated else 1),
    )
