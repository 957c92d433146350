"""Documents of a sweep other than results: design, evidence, failure and the doctor's report.

They are the files ``design.json``, ``evidence.json``, ``failure.json`` and ``doctor.json``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Optional

from .codec import described, with_fields
from .documents import KERNEL_LIST, Instance, Neighbour, Platform
from .factors import NAME
from .identifiers import DESIGN, EVIDENCE, FAILURE, HOST_REPORT
from .result import (
    Count,
    Digest,
    Environment,
    Mode,
    Name,
    Positive,
    Rate,
    Scale,
    Scenario,
    Seed,
    SweepName,
    Text,
    Time,
    TrialId,
    factor_fields,
)  # fmt: skip

Accelerator = Literal["kvm", "tcg"]
MARGIN = 0.03
"""Default margin: the smallest cost worth knowing, as a share of the baseline's time."""
TIMES_EMULATED = 6
"""Factor by which time limits are longer on emulated machines."""
MOST_REPLICATES = 999
"""Most replicates of a plan, and so most hosts that take part at the same time.

Slurm accepts 1000 tasks per array by default. The ids of trials have two digits for a replicate,
and three from 100 on.
"""


def answering_precision(margin: float) -> float:
    """Return the widest precision at which every interval answers: differs or equivalent.

    The precision is the half-width of the interval of a log ratio. At half of log(1 + margin), an
    interval is either within the margin or does not contain 1. A wider interval may be neither:
    at a precision of 2% and a margin of 3%, this happens if the estimate is more than 1% off 1.

    Args:
        margin: The margin, as a share, such as 0.03.

    Returns:
        The precision, as a share.
    """
    return math.sqrt(1 + margin) - 1


@with_fields(factor_fields())
@dataclass(frozen=True)
class PlannedTrial:
    """One trial of a design."""

    id: TrialId = described("Id of the trial, unique within its sweep.")
    platform: Name = described("Name of the platform.")
    mode: Mode = described("How the share of CPUs is enforced: vanilla by count, pinned by set.")
    cores: Positive = described("Number of CPUs of the instance.")
    application: Text = described("Name of the application.")
    scale: Scale = described("Scale of the application.")
    scenario: Scenario = described("Scenario of MLPerf LoadGen: how it issues requests.")
    replicate: Positive = described("Number of the replicate, from 1.")
    block: Positive = described("Number of the block, and so of the instance, from 1.")
    position: Positive = described("Place of the trial in the sweep's order, from 1.")
    emulated: bool = described("Whether the trial's guest or the bench host is emulated.")


@dataclass(frozen=True)
class PlannedPlacement:
    """Placement of pinned instances of one size, which is the same on every platform."""

    cores: Positive = described("Number of CPUs of the instances.")
    cpus: str = described("Host CPUs of the instances.", pattern=KERNEL_LIST)
    mems: str = described("Host memory nodes of the instances.", pattern=KERNEL_LIST)
    housekeeping: str = described("Host CPUs for helpers.", pattern=KERNEL_LIST)
    core_kind: Positive = described("Kind of the cores; 1 is the fastest kind of the host.")
    caches: str = described("Caches and clusters of several cores that the CPUs belong to.")
    reasons: tuple[str, ...] = described("Why these CPUs and nodes were chosen.")
    neighbours: tuple[Neighbour, ...] = described(
        "Placement of neighbours of this size: as many as the plan requests and the host has room "
        "for. A cell with fewer neighbours uses the first of them.",
        default=(),
    )


@dataclass(frozen=True)
class PlannedHost:
    """One of several bench hosts of a sweep; all run the same cells, each with its placements."""

    host: Text = described("Host name of the bench host.")
    placements: tuple[PlannedPlacement, ...] = described(
        "Placement of pinned instances on this host, one per size."
    )


@dataclass(frozen=True)
class NotRun:
    """Cells of the plan that the host cannot run, with the reason and a remedy."""

    platform: Name = described("Name of the platform.")
    mode: Optional[Mode] = described("Mode of the cells; null for both.")
    cores: Optional[Positive] = described("Number of CPUs of the cells; null for all sizes.")
    reason: str = described("Why the host cannot run the cells.")
    remedy: str = described("What to change so that it can.")


@dataclass(frozen=True)
class Design:
    """The trials of a plan on its bench hosts, in their order, and the cells that are left out."""

    schema: str = described("Name and version of this document.", const=DESIGN)
    sweep: SweepName = described("Name of the plan.")
    plan_digest: Digest = described("Digest of the plan.")
    seed: Seed = described("Seed of the random order, and of the applications.")
    image_digest: Digest = described("Digest of the image that every instance runs.")
    precision: Optional[Rate] = described(
        "Precision at which a cell needs no further replicates, for its ratio to bare metal, as a "
        "share; null if the number of replicates is fixed."
    )
    min_replicates: Positive = described("Fewest replicates of a cell, if there is a precision.")
    margin: Rate = described("The smallest cost worth knowing, as a share of bare metal's time.")
    accelerator: Optional[Accelerator] = described("What runs guests; null if nothing can.")
    platforms: tuple[Platform, ...] = described(
        "Platforms of the plan, in the order in which reports list them."
    )
    commits: tuple[str, ...] = described("Commits of virtbed that have run the sweep so far.")
    trials: tuple[PlannedTrial, ...] = described("Every trial, in order.", min_items=1)
    not_run: tuple[NotRun, ...] = described("Cells that this host cannot run.")
    placements: tuple[PlannedPlacement, ...] = described(
        "Placement of pinned instances, one per size; empty if there are several hosts, which then "
        "have placements of their own.",
        default=(),
    )
    image: Name = described("Variant of the image, as named in images.yml.", default="cpu")
    hosts: tuple[PlannedHost, ...] = described(
        "Bench hosts, if there are several; each replicate runs on one of them.", default=()
    )


@dataclass(frozen=True)
class Reading:
    """State of an instance as read back from the kernel and the engine, one reading per role."""

    machine: Optional[dict[str, Any]] = described("Reading by the role machine_NAME.")
    enclosure: Optional[dict[str, Any]] = described("Reading by the role enclosure_NAME.")
    neighbours: tuple[dict[str, Any], ...] = described(
        "Reading of each neighbour, in order; empty if there are none.", default=()
    )


@dataclass(frozen=True)
class Evidence:
    """The requested instance of a trial, and its state as read back before, inside and after."""

    schema: str = described("Name and version of this document.", const=EVIDENCE)
    trial: TrialId = described("Id of the trial.")
    asked: Instance = described("The instance as it was requested.")
    before: Optional[Reading] = described("Reading before the trial; null if it did not start.")
    inside: Optional[Environment] = described(
        "The platform as the process saw it; null if it reported nothing."
    )
    after: Optional[Reading] = described("Reading after the trial.")
    process_wall_ns: Optional[Count] = described("Wall time of the process.")
    attested: bool = described("Whether every reading matches the requested instance.")
    mismatches: tuple[str, ...] = described(
        "Readings that do not match, each with the value found and the value needed."
    )


@dataclass(frozen=True)
class Failure:
    """Why a trial has no result."""

    schema: str = described("Name and version of this document.", const=FAILURE)
    id: TrialId = described("Id of the trial.")
    stage: str = described("Stage that failed: provision, trial or record.", pattern=f"^{NAME}$")
    message: str = described("Why the trial failed.")
    attempt: Count = described(
        "Number of the attempt, from 1; if this attempt did not start, the number of earlier ones."
    )
    at: Time = described("When the trial failed, UTC.")


@dataclass(frozen=True)
class PlatformVerdict:
    """Whether a host can run a platform."""

    platform: Name = described("Name of the platform, or gpu.")
    status: Literal["available", "emulated", "unavailable"] = described(
        "Whether the platform can run. emulated: it runs without hardware virtualization, or on an "
        "emulated host, and is functional evidence only."
    )
    reason: str = described("Why the platform has this status.")
    remedy: str = described("What to change; empty if nothing needs to change.")


@dataclass(frozen=True)
class TuningRow:
    """One setting of the host that can disturb measurements."""

    name: Text = described("Name of the setting.")
    available: bool = described("Whether this host and its kernel have the setting.")
    value: Optional[str] = described("Value of the setting; null if it is not available.")
    wanted: str = described("The value that disturbs measurements least.")
    reason: str = described("Why that value is wanted, or why the setting is not available.")
    exempt: tuple[str, ...] = described(
        "Parts of the setting that cannot be changed, such as interrupts of one CPU, and why.",
        default=(),
    )


@dataclass(frozen=True)
class WakingRow:
    """One unit of systemd that may start work on the host while trials run."""

    name: Text = described("Name of the unit, such as apt-daily.timer.")
    next: Optional[Time] = described("When the unit is due next, UTC; null if this is unknown.")
    stopped: bool = described("Whether tuning stops the unit for the sweep and restarts it after.")
    reason: str = described("What the unit does, or why tuning does not stop it.")


@dataclass(frozen=True)
class HostReport:
    """Facts about a bench host, and the platforms that it can run."""

    schema: str = described("Name and version of this document.", const=HOST_REPORT)
    host: Text = described("Name of the host.")
    ok: bool = described("Whether every platform can run, emulated or not.")
    facts: dict[str, Any] = described("Facts about the host, by subject.")
    platforms: tuple[PlatformVerdict, ...] = described(
        "Whether the host can run each platform, and at the end whether it can use a GPU."
    )
    accelerator: Optional[Accelerator] = described("What runs guests; null if nothing can.")
    tuning: tuple[TuningRow, ...] = described("Settings that can disturb measurements.", default=())
    tuned: tuple[TuningRow, ...] = described(
        "The settings, read back after a sweep changed them; empty if it changed none.", default=()
    )
    waking: tuple[WakingRow, ...] = described(
        "Units that may start work while trials run; the earliest first.", default=()
    )
    waking_unknown: str = described(
        "Why the units that may start work are unknown; empty if they are known.", default=""
    )
    emulated: bool = described(
        "Whether the host is itself emulated; no time measured on it is a figure.",
        default=False,
    )
    gpus: tuple[PlatformVerdict, ...] = described(
        "Whether each platform could use a GPU of this host.", default=()
    )
