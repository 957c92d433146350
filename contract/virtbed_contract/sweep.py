"""The documents of a sweep besides its results: ``design.json``, ``evidence.json``,
``failure.json`` and ``doctor.json``.
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
"""The smallest cost, as a share, that a plan which names none takes for worth knowing."""
TIMES_EMULATED = 6
"""What is emulated takes this many times as long over whatever has a time limit."""
MOST_REPLICATES = 99
"""The most that a plan may ask for: ids of trials have two digits for them."""


def answering_precision(margin: float) -> float:
    """Return the widest precision that always answers at a margin: half of it on either side.

    An interval that wide lies within the margin, or off 1. A wider one may do neither, however
    small the truth: at 2% and a margin of 3%, wherever the estimate is more than 1% off.
    """
    return math.sqrt(1 + margin) - 1


@with_fields(factor_fields())
@dataclass(frozen=True)
class PlannedTrial:
    """One trial of a design."""

    id: TrialId = described("Names the trial within its sweep.")
    platform: Name = described("Name of the platform.")
    mode: Mode = described("How the share of CPUs is enforced.")
    cores: Positive = described("CPUs of the instance.")
    application: Text = described("Name of the application.")
    scale: Scale = described("Scale of the application.")
    scenario: Scenario = described("How MLPerf LoadGen issues requests.")
    replicate: Positive = described("Pass over every cell, from 1.")
    block: Positive = described("The instance that it runs in: its place among them, from 1.")
    position: Positive = described("Its place in the sweep's order, from 1.")
    emulated: bool = described("Whether its guest or the bench host is emulated.")


@dataclass(frozen=True)
class PlannedPlacement:
    """Where pinned instances of one size run, on every platform alike, and why there."""

    cores: Positive = described("CPUs of the instance.")
    cpus: str = described("Host CPUs.", pattern=KERNEL_LIST)
    mems: str = described("Host memory nodes.", pattern=KERNEL_LIST)
    housekeeping: str = described("Host CPUs for helpers.", pattern=KERNEL_LIST)
    core_kind: Positive = described("Kind of core, 1 for the fastest.")
    caches: str = described("Caches and clusters of several cores that they are in.")
    reasons: tuple[str, ...] = described("Why these.")
    neighbours: tuple[Neighbour, ...] = described(
        "Where instances next to one of this size run, as many as the plan asks for and the host "
        "has room for; the first of them are those of cells with fewer.",
        default=(),
    )


@dataclass(frozen=True)
class PlannedHost:
    """One of several bench hosts of a sweep: all of them run the same cells, each in its places."""

    host: Text = described("The bench host's own name.")
    placements: tuple[PlannedPlacement, ...] = described(
        "Where pinned instances run there, one per size."
    )


@dataclass(frozen=True)
class NotRun:
    """Cells of the plan that the host cannot run, why, and what would change that."""

    platform: Name = described("Name of the platform.")
    mode: Optional[Mode] = described("The mode; null for both.")
    cores: Optional[Positive] = described("The size; null for all.")
    reason: str = described("Why.")
    remedy: str = described("What would change that.")


@dataclass(frozen=True)
class Design:
    """A plan placed on its host, or on several: its trials in order, and what is left out."""

    schema: str = described("This document and its version.", const=DESIGN)
    sweep: SweepName = described("Name of the plan.")
    plan_digest: Digest = described("Digest of the plan.")
    seed: Seed = described("Seed of the random order, and of the applications.")
    image_digest: Digest = described("Digest of the image that every instance runs.")
    precision: Optional[Rate] = described(
        "How closely ratios to bare metal are to be known, as a share; null: replicates are fixed."
    )
    min_replicates: Positive = described("With a precision: the fewest replicates of a cell.")
    margin: Rate = described("The smallest cost worth knowing, as a share of bare metal's time.")
    accelerator: Optional[Accelerator] = described("What runs guests; null where nothing does.")
    platforms: tuple[Platform, ...] = described("The platforms of the plan, as reports list them.")
    commits: tuple[str, ...] = described("Commits of virtbed that carried the sweep out so far.")
    trials: tuple[PlannedTrial, ...] = described("Every trial, in order.", min_items=1)
    not_run: tuple[NotRun, ...] = described("What this host cannot run.")
    placements: tuple[PlannedPlacement, ...] = described(
        "Where pinned instances run, one per size; empty where there are several hosts.", default=()
    )
    image: Name = described("The image's variant, as images.yml names it.", default="cpu")
    hosts: tuple[PlannedHost, ...] = described(
        "The bench hosts, where there are several; each replicate runs on one of them.", default=()
    )


@dataclass(frozen=True)
class Reading:
    """What was read back of an instance; each role has one reading."""

    machine: Optional[dict[str, Any]] = described("Reading of the role machine_NAME.")
    enclosure: Optional[dict[str, Any]] = described("Reading of the role enclosure_NAME.")
    neighbours: tuple[dict[str, Any], ...] = described(
        "Readings of the instances next to it, in order; empty without any.", default=()
    )


@dataclass(frozen=True)
class Evidence:
    """What was asked of a trial's instance, and what was read back before, inside and after."""

    schema: str = described("This document and its version.", const=EVIDENCE)
    trial: TrialId = described("Id of the trial.")
    asked: Instance = described("The instance as it was asked for.")
    before: Optional[Reading] = described("Read back before the trial; null if it did not start.")
    inside: Optional[Environment] = described("What the process saw; null if it reported nothing.")
    after: Optional[Reading] = described("Read back after the trial.")
    process_wall_ns: Optional[Count] = described("Wall time of the process.")
    attested: bool = described("Whether every reading was as asked.")
    mismatches: tuple[str, ...] = described("What was not, with both values.")


@dataclass(frozen=True)
class Failure:
    """Why a trial has no result."""

    schema: str = described("This document and its version.", const=FAILURE)
    id: TrialId = described("Id of the trial.")
    stage: str = described("Where: provision, trial or record.", pattern=f"^{NAME}$")
    message: str = described("Why.")
    attempt: Count = described(
        "Which attempt this was, from 1; how many there had been if this one did not begin."
    )
    at: Time = described("When, UTC.")


@dataclass(frozen=True)
class PlatformVerdict:
    """Whether a host can run a platform."""

    platform: Name = described("Name of the platform, or gpu.")
    status: Literal["available", "emulated", "unavailable"] = described(
        "emulated: without hardware virtualization, or on an emulated host, as functional evidence."
    )
    reason: str = described("Why.")
    remedy: str = described("What would change that; empty where nothing need.")


@dataclass(frozen=True)
class TuningRow:
    """One setting of the host that disturbs measurements."""

    name: Text = described("Name of the setting.")
    available: bool = described("Whether this host and its kernel have it.")
    value: Optional[str] = described("Its value; null if it is not available.")
    wanted: str = described("The value that disturbs least.")
    reason: str = described("Why that value, or why it is not available.")
    exempt: tuple[str, ...] = described(
        "What of it cannot be set, such as interrupts of one CPU, and why.", default=()
    )


@dataclass(frozen=True)
class WakingRow:
    """What may wake up on the host while trials run."""

    name: Text = described("Its unit of systemd, such as apt-daily.timer.")
    next: Optional[Time] = described("When it is due next, UTC; null where nobody can tell.")
    stopped: bool = described("Whether tuning stops it for the sweep, and starts it again.")
    reason: str = described("What it does, or why tuning leaves it.")


@dataclass(frozen=True)
class HostReport:
    """What a bench host is, and which platforms it can run."""

    schema: str = described("This document and its version.", const=HOST_REPORT)
    host: Text = described("Name of the host.")
    ok: bool = described("Whether every platform can run, emulated or not.")
    facts: dict[str, Any] = described("What was found, by subject.")
    platforms: tuple[PlatformVerdict, ...] = described("One per platform, then the GPU.")
    accelerator: Optional[Accelerator] = described("What runs guests; null where nothing does.")
    tuning: tuple[TuningRow, ...] = described("The settings that disturb measurements.", default=())
    tuned: tuple[TuningRow, ...] = described(
        "The same as a sweep set them, read back; empty where it set none.", default=()
    )
    waking: tuple[WakingRow, ...] = described(
        "What may wake up while trials run; the earliest first.", default=()
    )
    waking_unknown: str = described(
        "Why nobody can tell what may wake up; empty where it is known.", default=""
    )
    emulated: bool = described(
        "Whether the host is itself emulated: nothing that is timed on it is a figure.",
        default=False,
    )
    gpus: tuple[PlatformVerdict, ...] = described(
        "Whether each platform could have a GPU of this host.", default=()
    )
