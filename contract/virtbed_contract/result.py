"""The result of a trial: ``result.json``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Optional

from .codec import Limits, described, with_fields
from .documents import DIGEST, SWEEP_NAME, TIME
from .factors import FACTORS, MODES, NAME, SCALES, SCENARIOS, id_pattern, values_of
from .identifiers import RESULT
from .measures import MEASURES, of_group
from .surroundings import Bench, KernelSettings, Moved, NeighbourRan, ProcessSettings

_MOST_NS = 10 * 366 * 24 * 3600 * 10**9  # ten years: far beyond any trial, far within 64 bits
_MOST = 2**53 - 1  # what every reader of JSON holds exactly

Ns = Annotated[int, Limits(minimum=0, maximum=_MOST_NS)]
Count = Annotated[int, Limits(minimum=0, maximum=_MOST)]
Positive = Annotated[int, Limits(minimum=1, maximum=_MOST)]
Seed = Annotated[int, Limits(minimum=-(2**63), maximum=2**63 - 1)]
Share = Annotated[float, Limits(minimum=0, maximum=1e9)]
Mhz = Annotated[float, Limits(minimum=0, maximum=1e6)]
Part = Annotated[float, Limits(minimum=0, maximum=1)]
Text = Annotated[str, Limits(pattern="^[^\n]+$", max_length=1000)]
TrialId = Annotated[str, Limits(pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)]
"""One part of a path."""
SweepName = Annotated[str, Limits(pattern=SWEEP_NAME)]
Time = Annotated[str, Limits(format="date-time", pattern=TIME)]
Name = Annotated[str, Limits(pattern=f"^{NAME}$", max_length=64)]
Digest = Annotated[str, Limits(pattern=DIGEST)]
Rate = Annotated[float, Limits(above=0, maximum=1e9)]
Mode = Annotated[str, Limits(enum=MODES)]
Scale = Annotated[str, Limits(enum=SCALES)]
Scenario = Annotated[str, Limits(enum=SCENARIOS)]


def factor_fields() -> list[tuple[str, object, object]]:
    """Return one field per factor, for documents of a trial; last those that may be left out."""
    return [
        (
            factor.name,
            str,
            described(factor.meaning, enum=factor.values, default=factor.default)
            if factor.later
            else described(factor.meaning, enum=factor.values),
        )
        for factor in sorted(FACTORS, key=lambda factor: factor.later)
    ]


def measure_fields() -> list[tuple[str, object, object]]:
    """Return one field per measure that lies in ``measures`` of a result."""
    return [
        (measure.path[1], Optional[float], described(measure.meaning, default=None))
        for measure in MEASURES
        if measure.path[0] == "measures"
    ]


@with_fields(factor_fields())
@dataclass(frozen=True)
class Trial:
    """What was asked of a trial; the controller adds it to the harness's document."""

    id: TrialId = described("Names the trial within its sweep.", pattern=id_pattern())
    sweep: SweepName = described("Name of the plan.")
    plan_digest: Digest = described("Digest of the plan.")
    platform: Name = described("Name of the platform, as in platforms.yml.")
    machine: Name = described("What the kernel runs on: the role machine_NAME.")
    enclosure: Name = described("What the process runs in: the role enclosure_NAME.")
    mode: Mode = described("How the share of CPUs is enforced: vanilla by count, pinned by set.")
    quota_cpus: Optional[Rate] = described(
        "CPU quota that was asked for, in CPUs; null where none is to bind the process."
    )
    cores: Positive = described("CPUs of the instance.")
    memory_mib: Positive = described("Memory of the instance.")
    application: Text = described("Name of the application.")
    scale: Scale = described("Scale of the application.")
    replicate: Positive = described("Pass over every cell, from 1.")
    position: Positive = described("Place of the trial in the sweep's order, from 1.")
    accelerator: Literal["none", "kvm", "tcg"] = described("What runs the guest; none on metal.")
    emulated: bool = described(
        "Whether the guest or the bench host was emulated: functional evidence, no figure."
    )
    host: Text = described("Name of the bench host.")
    image_digest: Digest = described("Digest of the root filesystem that every platform runs.")
    started_at: Time = described("When the trial started, UTC.")
    attempt: Positive = described("Which attempt at the trial this is, from 1.")


@dataclass(frozen=True)
class Application:
    """What ran."""

    name: Text = described("Name of the application.")
    version: Text = described("Version of the application: results of two are never pooled.")
    scale: Scale = described("Scale of the application.")
    weights: Literal["trained", "seeded", "none"] = described(
        "seeded: random weights of a fixed seed, which cost the same and know nothing. none: there "
        "is no model, and the times are no measurement of an application."
    )
    model: Text = described("Model of the application.")
    frameworks: dict[str, str] = described("Version of each framework.")


@dataclass(frozen=True)
class Settings:
    """How it ran, as the harness confirms it."""

    samples: Positive = described("Measured samples.")
    warmup: Count = described("Samples before them.")
    seed: Seed = described("Seed of the inputs and of LoadGen.")
    thread_policy: str = described(
        "matched: pools as large as the cores that affinity and quota leave.",
        enum=values_of("thread_policy"),
    )
    scenario: Scenario = described("MLPerf LoadGen's.")
    rules: Literal["quick", "study"] = described(
        "study: MLPerf's minimum duration and number of queries."
    )
    target_qps: Optional[Rate] = described("Requests per second that were asked for.")
    target_latency_ms: Optional[Rate] = described("Bound on the 99th percentile of latency.")
    processor: str = described("Where the model ran, verified.", enum=values_of("processor"))
    slowdown: Share = described(
        "Each request was held back by this share of its time; 0 unless the testbed is being "
        "calibrated."
    )


@dataclass(frozen=True)
class Startup:
    """Parts of the start of the process."""

    spawn_ns: Optional[Ns] = described(
        "From launch to the first line of the harness; null where no launcher passed that time."
    )
    import_ns: Ns = described("Imports of the frameworks.")
    load_ns: Ns = described("Loading the model.")
    first_call_ns: Ns = described("The first request.")


@with_fields([(phase.column, Ns, described(phase.meaning)) for phase in of_group("phase")])
@dataclass(frozen=True)
class Sample:
    """One request."""

    input: Text = described("Name of the input.")
    queue_ns: Ns = described("From LoadGen's issue to the start; not in e2e_ns.")
    warmup: bool = described("Whether the request was issued before the measured ones.")


@dataclass(frozen=True)
class Answer:
    """The answer to one input."""

    input: Text = described("Name of the input.")
    answer: str = described("What was answered, rounded so that it is equal on every platform.")
    expected: str = described("What is known of the input.")
    score: Optional[float] = described("How good the answer is, where that is a number.")


@dataclass(frozen=True)
class Answers:
    """What is known of the answers."""

    checked: Positive = described("Of warm-ups and measured samples.")
    wrong: int = described("No result has a wrong answer.", const=0)
    digest: Digest = described("Digest of all answers, compared across platforms.")
    by_input: tuple[Answer, ...] = described("One per input.", min_items=1)


@dataclass(frozen=True)
class Cgroup:
    """The control group of the process."""

    version: Optional[Literal[1, 2]] = described("Version of the hierarchy; null for none.")
    quota_cpus: Optional[Rate] = described("CPU quota, in CPUs; null for none.")
    cpuset: Optional[str] = described("CPUs, a kernel list; null where no controller tells.")


@dataclass(frozen=True)
class Threads:
    """Thread pools. 0 is the framework's own choice."""

    intra_op: Count = described("Threads within an operation.")
    inter_op: Count = described("Threads between operations.")
    process_threads: Positive = described("Threads of the process.")
    usable_cores: Positive = described("Cores that affinity and quota leave.")


@dataclass(frozen=True)
class Privileges:
    """What the process might do; null is what the kernel does not tell (gVisor's users)."""

    users: Optional[tuple[Count, ...]] = described(
        "Real, effective, saved and of files; each once."
    )
    groups: Optional[tuple[Count, ...]] = described("The same of groups, and supplementary ones.")
    capabilities: Optional[str] = described(
        "That it had or could gain: the five sets of the kernel in one, in hex; 0 is none.",
        pattern="^[0-9a-f]{1,16}$",
    )
    no_new_privileges: Optional[bool] = described("Whether a program that it starts gains none.")


@dataclass(frozen=True)
class Environment:
    """What the process saw of its platform: `inside` of the evidence."""

    python: Text = described("Version of Python.")
    kernel: Text = described("Release of the kernel.")
    cpus_visible: Positive = described("CPUs that are online.")
    affinity: tuple[Count, ...] = described("CPUs that the process may run on.", min_items=1)
    cpus_allowed_list: Text = described("The same, as the kernel lists them.")
    mems_allowed_list: str = described("Memory nodes that the process may use.")
    memory_policy: Optional[str] = described("NUMA policy; null where the kernel does not tell.")
    cgroup: Cgroup = described("The control group of the process.")
    threads: Threads = described("Thread pools. 0 is the framework's own choice.")
    isa: tuple[str, ...] = described("Instruction-set extensions.")
    clocksource: Optional[str] = described("Clock source; null where the kernel does not tell.")
    cpu_model: Optional[str] = described("Model of the first CPU; null where it is unknown.")
    turbo: Optional[bool] = described(
        "Whether CPUs may run above their base clock rate; null where the kernel does not tell."
    )
    mitigations: Optional[dict[str, str]] = described(
        "What the kernel does about each vulnerability of the CPUs; null where it does not tell."
    )
    onednn_isa: Optional[str] = described(
        "The instruction set that oneDNN chose its kernels for, in its words; null if it was not "
        "used."
    )
    kernel_settings: Optional[KernelSettings] = described(
        "Settings of the kernel that the process saw.", default=None
    )
    process_settings: Optional[ProcessSettings] = described(
        "What was set for the process alone.", default=None
    )
    privileges: Optional[Privileges] = described(
        "What the process might do; null of a harness that did not tell.", default=None
    )


@dataclass(frozen=True)
class Usage:
    """Resources of the measured samples."""

    user_s: Share = described("CPU time in user mode.")
    system_s: Share = described("CPU time in the kernel.")
    minor_faults: Optional[Count] = described(
        "Page faults without a disk; null where the kernel does not count."
    )
    major_faults: Optional[Count] = described(
        "Page faults from a disk; null where the kernel does not count."
    )
    voluntary_switches: Optional[Count] = described(
        "Context switches because the process waited; null where the kernel does not count."
    )
    involuntary_switches: Optional[Count] = described(
        "Context switches for another process; null where the kernel does not count."
    )


@dataclass(frozen=True)
class Memory:
    """The resident set of the process, in KiB."""

    after_warmup: Count = described("After the warm-ups.")
    after_samples: Count = described("After the measured samples.")
    peak: Count = described("Its peak.")


@dataclass(frozen=True)
class Clocks:
    """The same latencies by two clocks."""

    loadgen_median_ns: Positive = described("Median latency by LoadGen.")
    harness_median_ns: Positive = described("Median latency by the harness.")
    apart: Share = described("How far they are apart, as a share.")
    agree: bool = described("Whether they agree.")


@dataclass(frozen=True)
class LoadGen:
    """What MLPerf LoadGen says; its logs lie next to the result."""

    version: str = described("Version of LoadGen.")
    validity: Literal["VALID", "INVALID"] = described(
        "By LoadGen's rules, which the quick rules often do not meet."
    )
    reasons: tuple[str, ...] = described("Why it is invalid.")
    duration_ms: Count = described("The minimum that the rules ask for.")
    queries: Positive = described("Queries that were issued.")
    percentiles_ns: dict[str, Ns] = described(
        "LoadGen's own percentiles of latency; of whole queries, which several samples make in "
        "multi_stream."
    )
    clocks: Clocks = described("The same latencies by two clocks.")
    samples_per_second: Optional[Rate] = described(
        "Samples answered per second, in offline and server; null in the other scenarios.",
        default=None,
    )


@dataclass(frozen=True)
class Throttling:
    """What CPU quotas did to the process."""

    periods: Count = described("Periods of the quota.")
    throttled: Count = described("Periods in which it was stopped.")
    throttled_ns: Ns = described("Time for which it was stopped.")


@dataclass(frozen=True)
class Pressure:
    """Shares of the window in which some task of the machine waited; null where it is unknown."""

    cpu: Optional[Share] = described("For a CPU.")
    memory: Optional[Share] = described("For memory.")
    io: Optional[Share] = described("For a disk.")


@dataclass(frozen=True)
class Frequency:
    """Mean clock rate of the CPUs; null where the kernel does not tell."""

    before: Optional[Mhz] = described("Before the measured requests.")
    after: Optional[Mhz] = described("After them.")


@dataclass(frozen=True)
class Load:
    """The load average over one minute; null where the kernel counts no tasks."""

    before: Optional[Share] = described("Before the trial's own work.")
    after: Optional[Share] = described("At the end.")


@dataclass(frozen=True)
class Confounders:
    """What else moved while the measured requests ran."""

    window_ns: Ns = described("From before the first measured request to after the last.")
    cpus: str = described("The CPUs that this process may use; the shares are of theirs.")
    own_cpu_ns: Ns = described("CPU time of this process.")
    steal_share: Optional[Part] = described(
        "CPU time that a hypervisor gave to others; null where the kernel does not count it."
    )
    others_share: Optional[Share] = described(
        "CPU time of other processes, interrupts included; null where the kernel does not count it."
    )
    throttling: Optional[Throttling] = described(
        "By CPU quotas, from this cgroup up; null where no quota can be."
    )
    pressure: Pressure = described("Shares of the window in which some task of the machine waited.")
    mhz: Frequency = described("Clock rate of the CPUs, in MHz.")
    governor: Optional[str] = described("Frequency governor; null for none.")
    temperature_c: Optional[float] = described(
        "Hottest sensor, in degrees Celsius.", minimum=-300, maximum=1e4
    )
    transparent_hugepage: Optional[str] = described("Setting of transparent huge pages.")
    load_1min: Load = described("The load average before the trial's own work, and at the end.")
    ran_on: tuple[Count, ...] = described(
        "The CPUs on which threads of this process were found between requests; empty where the "
        "kernel does not tell."
    )
    looks: Count = described("How often they were looked for.")
    migrations: Optional[Count] = described(
        "How often a thread of this process was moved to another CPU; null where the kernel does "
        "not tell."
    )
    clock_apart_share: Optional[Share] = described(
        "How far the machine's clock and the controller's ran apart, beyond what asking for the "
        "time explains; null where they are one clock."
    )
    siblings_share: Optional[Share] = described(
        "CPU time used on the other threads of this process's cores; null where all threads are "
        "its own, or there are none."
    )
    moved: Optional[Moved] = described(
        "What the kernel that the process saw counted and logged.", default=None
    )


@with_fields(measure_fields())
@dataclass(frozen=True)
class Measures:
    """Measures besides those of the parts above: one per entry of the registry."""


@dataclass(frozen=True)
class Result:
    """One trial: one fresh process running one application in one instance.

    Names ending in _ns are nanoseconds, _s seconds, _kib and _mib sizes.
    """

    schema: str = described("This document and its version.", const=RESULT)
    trial: Trial = described("What was asked; the controller adds it to the harness's document.")
    application: Application = described("What ran.")
    settings: Settings = described("How it ran, as the harness confirms it.")
    startup: Startup = described("Parts of the start of the process.")
    samples: tuple[Sample, ...] = described(
        "Warm-ups first, flagged; settings.samples counts the others.", min_items=1
    )
    answers: Answers = described("What is known of the answers.")
    environment: Environment = described("What the process saw of its platform.")
    rusage: Usage = described("Of the measured samples.")
    warnings: tuple[str, ...] = described("What the trial warns of.")
    memory_kib: Memory = described("The resident set of the process, and its peak.")
    loadgen: LoadGen = described("What MLPerf LoadGen says; its logs lie next to the result.")
    confounders: Confounders = described("What else moved while the measured requests ran.")
    measures: Measures = described(
        "Measures besides those of the parts above; null is not known.", factory=Measures
    )
    bench: Optional[Bench] = described(
        "What the bench host's kernel reported, before and after; the controller adds it.",
        default=None,
    )
    neighbours: tuple[NeighbourRan, ...] = described(
        "What the instances next to it did meanwhile; the controller adds it.", default=()
    )
