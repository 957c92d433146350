"""The result of a trial: ``result.json``.

The harness in the image prints most of it; the controller adds `Result.trial`, `Result.bench` and
`Result.neighbours`. The analysis reads nothing else of a trial's times. What an instance was
required to be, and what was read back of it, is in `sweep.Evidence`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Optional

from .codec import Limits, described, with_fields
from .documents import DIGEST, SWEEP_NAME, TIME
from .factors import FACTORS, MODES, NAME, SCALES, SCENARIOS, id_pattern, values_of
from .identifiers import RESULT
from .measures import MEASURES, of_group
from .surroundings import Bench, KernelSettings, Moved, NeighbourRan, ProcessSettings

_MOST_NS = 10 * 366 * 24 * 3600 * 10**9  # ten years: far longer than any trial, and fits 64 bits
_MOST = 2**53 - 1  # the largest whole number that every reader of JSON represents exactly

Ns = Annotated[int, Limits(minimum=0, maximum=_MOST_NS)]
Count = Annotated[int, Limits(minimum=0, maximum=_MOST)]
Positive = Annotated[int, Limits(minimum=1, maximum=_MOST)]
Seed = Annotated[int, Limits(minimum=-(2**63), maximum=2**63 - 1)]
Share = Annotated[float, Limits(minimum=0, maximum=1e9)]
Mhz = Annotated[float, Limits(minimum=0, maximum=1e6)]
Part = Annotated[float, Limits(minimum=0, maximum=1)]
Text = Annotated[str, Limits(pattern="^[^\n]+$", max_length=1000)]
TrialId = Annotated[str, Limits(pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)]
"""The name of a file or folder: no slash."""
SweepName = Annotated[str, Limits(pattern=SWEEP_NAME)]
Time = Annotated[str, Limits(format="date-time", pattern=TIME)]
Name = Annotated[str, Limits(pattern=f"^{NAME}$", max_length=64)]
Digest = Annotated[str, Limits(pattern=DIGEST)]
Rate = Annotated[float, Limits(above=0, maximum=1e9)]
Mode = Annotated[str, Limits(enum=MODES)]
Scale = Annotated[str, Limits(enum=SCALES)]
Scenario = Annotated[str, Limits(enum=SCENARIOS)]


def factor_fields() -> list[tuple[str, object, object]]:
    """Return one field per factor, for documents of a trial; those with a default come last."""
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
    """Return one field per measure that is in ``measures`` of a result."""
    return [
        (measure.path[1], Optional[float], described(measure.meaning, default=None))
        for measure in MEASURES
        if measure.path[0] == "measures"
    ]


@with_fields(factor_fields())
@dataclass(frozen=True)
class Trial:
    """The trial as it was requested; the controller adds this to the harness's document."""

    id: TrialId = described("Id of the trial, unique within its sweep.", pattern=id_pattern())
    sweep: SweepName = described("Name of the plan.")
    plan_digest: Digest = described("Digest of the plan.")
    platform: Name = described("Name of the platform, as in platforms.yml.")
    machine: Name = described("What the kernel runs on: the role machine_NAME.")
    enclosure: Name = described("What the process runs in: the role enclosure_NAME.")
    mode: Mode = described("How the share of CPUs is enforced: vanilla by count, pinned by set.")
    quota_cpus: Optional[Rate] = described(
        "Requested CPU quota, in CPUs; null if the process must have none."
    )
    cores: Positive = described("Number of CPUs of the instance.")
    memory_mib: Positive = described("Memory of the instance, in MiB.")
    application: Text = described("Name of the application.")
    scale: Scale = described("Scale of the application.")
    replicate: Positive = described("Number of the replicate, from 1.")
    position: Positive = described("Place of the trial in the sweep's order, from 1.")
    accelerator: Literal["none", "kvm", "tcg"] = described("What runs the guest; none on metal.")
    emulated: bool = described(
        "Whether the guest or the bench host was emulated; the result is then functional evidence, "
        "and its times are no figures."
    )
    host: Text = described("Name of the bench host.")
    image_digest: Digest = described("Digest of the root filesystem that every platform runs.")
    started_at: Time = described("When the trial started, UTC.")
    attempt: Positive = described("Number of the attempt at the trial, from 1.")


@dataclass(frozen=True)
class Application:
    """The application that ran."""

    name: Text = described("Name of the application.")
    version: Text = described(
        "Version of the application; results of different versions are never pooled."
    )
    scale: Scale = described("Scale of the application.")
    weights: Literal["trained", "seeded", "none"] = described(
        "Weights of the model. trained: those of the published model. seeded: random numbers from "
        "a fixed seed, which cost the same time but give meaningless answers. none: there is no "
        "model, and the times do not measure an application."
    )
    model: Text = described("Name of the model.")
    frameworks: dict[str, str] = described("Version of each framework, by the framework's name.")


@dataclass(frozen=True)
class Settings:
    """Settings of the run, as the harness confirms them."""

    samples: Positive = described("Number of measured samples.")
    warmup: Count = described("Number of warm-up samples before them.")
    seed: Seed = described("Seed of the inputs and of LoadGen.")
    thread_policy: str = described(
        "Sizes of thread pools. default: the framework's choice. matched: as many threads as the "
        "cores that affinity and quota leave.",
        enum=values_of("thread_policy"),
    )
    scenario: Scenario = described("Scenario of MLPerf LoadGen: how it issues requests.")
    rules: Literal["quick", "study"] = described(
        "How long a trial is. quick: the plan's number of samples. study: MLPerf's minimum "
        "duration and number of queries."
    )
    target_qps: Optional[Rate] = described(
        "Requested rate, in requests per second; null if none was requested."
    )
    target_latency_ms: Optional[Rate] = described(
        "Required bound on the 99th percentile of latency, in milliseconds; null for none."
    )
    processor: str = described(
        "Processor that the model ran on, verified.", enum=values_of("processor")
    )
    slowdown: Share = described(
        "Share of its own time by which each request was delayed; 0 unless the testbed is being "
        "calibrated."
    )


@dataclass(frozen=True)
class Startup:
    """Parts of the start-up of the process."""

    spawn_ns: Optional[Ns] = described(
        "Time from launch to the first line of the harness; null if no launcher passed the time of "
        "the launch."
    )
    import_ns: Ns = described("Time to import the frameworks.")
    load_ns: Ns = described("Time to load the model.")
    first_call_ns: Ns = described("Time of the first request.")


@with_fields([(phase.column, Ns, described(phase.meaning)) for phase in of_group("phase")])
@dataclass(frozen=True)
class Sample:
    """One request."""

    input: Text = described("Name of the input.")
    queue_ns: Ns = described(
        "Time in the queue: from LoadGen's issue to the start of the request. Not part of e2e_ns."
    )
    warmup: bool = described("Whether the sample is a warm-up, issued before the measured ones.")


@dataclass(frozen=True)
class Answer:
    """The answer to one input."""

    input: Text = described("Name of the input.")
    answer: str = described("The answer, rounded so that it is equal on every platform.")
    expected: str = described("What is expected of the answer, in words.")
    score: Optional[float] = described(
        "Quality of the answer; null if it cannot be expressed as a number."
    )


@dataclass(frozen=True)
class Answers:
    """The checked answers of all samples."""

    checked: Positive = described("Number of answers checked, of warm-ups and measured samples.")
    wrong: int = described(
        "Number of wrong answers: 0, since a trial with a wrong answer fails.", const=0
    )
    digest: Digest = described("Digest of all answers, for comparison across platforms.")
    by_input: tuple[Answer, ...] = described("One answer per input.", min_items=1)


@dataclass(frozen=True)
class Cgroup:
    """The control group of the process."""

    version: Optional[Literal[1, 2]] = described(
        "Version of control groups; null if the process is in none."
    )
    quota_cpus: Optional[Rate] = described("CPU quota, in CPUs; null for no quota.")
    cpuset: Optional[str] = described(
        "CPUs of the control group, a kernel list; null if no cpuset controller reports them."
    )


@dataclass(frozen=True)
class Threads:
    """Thread pools of the framework. A size of 0 means the framework's own choice."""

    intra_op: Count = described("Size of the pool for threads within an operation.")
    inter_op: Count = described("Size of the pool for operations that run in parallel.")
    process_threads: Positive = described("Number of threads of the process.")
    usable_cores: Positive = described("Number of cores that affinity and quota leave.")


@dataclass(frozen=True)
class Privileges:
    """Privileges of the process; null for what its kernel does not report (gVisor: the users)."""

    users: Optional[tuple[Count, ...]] = described(
        "Distinct user ids: real, effective, saved and file-system."
    )
    groups: Optional[tuple[Count, ...]] = described(
        "Distinct group ids: real, effective, saved, file-system and supplementary."
    )
    capabilities: Optional[str] = described(
        "Capabilities that the process had or could gain: the union of the kernel's five sets, in "
        "hexadecimal; 0 for none.",
        pattern="^[0-9a-f]{1,16}$",
    )
    no_new_privileges: Optional[bool] = described(
        "Whether no_new_privs is set, so that programs which the process starts gain no privileges."
    )


@dataclass(frozen=True)
class Environment:
    """The platform as the process saw it: `inside` of the evidence.

    Null stands for what the process's kernel does not report, unless a field states otherwise.
    """

    python: Text = described("Version of Python.")
    kernel: Text = described("Release of the kernel.")
    cpus_visible: Positive = described("Number of CPUs that are online.")
    affinity: tuple[Count, ...] = described("CPUs that the process may run on.", min_items=1)
    cpus_allowed_list: Text = described(
        "CPUs that the process may run on, as the kernel lists them (Cpus_allowed_list)."
    )
    mems_allowed_list: str = described("Memory nodes that the process may use.")
    memory_policy: Optional[str] = described("NUMA memory policy of the process.")
    cgroup: Cgroup = described("The control group of the process.")
    threads: Threads = described("Thread pools. A size of 0 means the framework's own choice.")
    isa: tuple[str, ...] = described("Instruction-set extensions of the CPUs.")
    clocksource: Optional[str] = described("Clock source of the kernel.")
    cpu_model: Optional[str] = described("Model of the first CPU.")
    turbo: Optional[bool] = described("Whether CPUs may run above their base clock rate.")
    mitigations: Optional[dict[str, str]] = described(
        "The kernel's mitigation of each CPU vulnerability, by the vulnerability's name."
    )
    onednn_isa: Optional[str] = described(
        "Instruction set for which oneDNN chose its kernels, as oneDNN names it; null if oneDNN "
        "was not used."
    )
    kernel_settings: Optional[KernelSettings] = described(
        "Settings of the kernel that the process saw.", default=None
    )
    process_settings: Optional[ProcessSettings] = described(
        "Settings of the process alone.", default=None
    )
    privileges: Optional[Privileges] = described(
        "Privileges of the process; null if the harness did not report them.", default=None
    )


@dataclass(frozen=True)
class Usage:
    """Resources used by the process during the measured samples (getrusage)."""

    user_s: Share = described("CPU time in user mode, in seconds.")
    system_s: Share = described("CPU time in the kernel, in seconds.")
    minor_faults: Optional[Count] = described(
        "Page faults served without reading a disk; null if the kernel does not count them."
    )
    major_faults: Optional[Count] = described(
        "Page faults served from a disk; null if the kernel does not count them."
    )
    voluntary_switches: Optional[Count] = described(
        "Context switches because the process waited; null if the kernel does not count them."
    )
    involuntary_switches: Optional[Count] = described(
        "Context switches because another process took the CPU; null if the kernel does not count "
        "them."
    )


@dataclass(frozen=True)
class Memory:
    """Resident set size of the process, in KiB."""

    after_warmup: Count = described("Resident set size after the warm-ups, in KiB.")
    after_samples: Count = described("Resident set size after the measured samples, in KiB.")
    peak: Count = described("Peak resident set size, in KiB.")


@dataclass(frozen=True)
class Clocks:
    """The same latencies, measured by LoadGen and by the harness."""

    loadgen_median_ns: Positive = described("Median latency that LoadGen measured.")
    harness_median_ns: Positive = described("Median latency that the harness measured.")
    apart: Share = described("Difference of the two medians, as a share.")
    agree: bool = described("Whether the two medians agree.")


@dataclass(frozen=True)
class LoadGen:
    """Summary by MLPerf LoadGen; its logs are next to the result."""

    version: str = described("Version of LoadGen.")
    validity: Literal["VALID", "INVALID"] = described(
        "Whether the run meets LoadGen's rules; with `rules` quick it often does not."
    )
    reasons: tuple[str, ...] = described("Why the run is invalid.")
    duration_ms: Count = described("Minimum duration that the rules require, in milliseconds.")
    queries: Positive = described("Number of queries that LoadGen issued.")
    percentiles_ns: dict[str, Ns] = described(
        "Percentiles of latency, as LoadGen computes them: the latency of whole queries, each of "
        "which has several samples in multi_stream."
    )
    clocks: Clocks = described("The same latencies, measured by LoadGen and by the harness.")
    samples_per_second: Optional[Rate] = described(
        "Samples answered per second in offline and server; null in the other scenarios.",
        default=None,
    )


@dataclass(frozen=True)
class Throttling:
    """Throttling of the process by CPU quotas."""

    periods: Count = described("Number of the quota's periods.")
    throttled: Count = described("Number of periods in which the process was stopped.")
    throttled_ns: Ns = described("Time for which the process was stopped.")


@dataclass(frozen=True)
class Pressure:
    """Pressure stall information (PSI) of the machine; null if it is unknown."""

    cpu: Optional[Share] = described("Share of the window in which some task waited for a CPU.")
    memory: Optional[Share] = described("Share of the window in which some task waited for memory.")
    io: Optional[Share] = described("Share of the window in which some task waited for a disk.")


@dataclass(frozen=True)
class Frequency:
    """Mean clock rate of the CPUs, in MHz; null if the kernel does not report it."""

    before: Optional[Mhz] = described("Mean clock rate before the measured requests, in MHz.")
    after: Optional[Mhz] = described("Mean clock rate after the measured requests, in MHz.")


@dataclass(frozen=True)
class Load:
    """Load average over one minute; null if the kernel does not count tasks."""

    before: Optional[Share] = described("Load average before the trial's own work.")
    after: Optional[Share] = described("Load average at the end of the trial.")


@dataclass(frozen=True)
class Confounders:
    """Confounders: readings of influences other than the platform on the measured times.

    The window is the time from before the first measured request to after the last one.
    """

    window_ns: Ns = described("Time from before the first measured request to after the last.")
    cpus: str = described(
        "CPUs that the process may use, a kernel list; shares of CPU time refer to these."
    )
    own_cpu_ns: Ns = described("CPU time of the process in the window.")
    steal_share: Optional[Part] = described(
        "Share of CPU time that a hypervisor gave to others (steal); null if the kernel does not "
        "count it."
    )
    others_share: Optional[Share] = described(
        "Share of CPU time that other processes and interrupts used; null if the kernel does not "
        "count it."
    )
    throttling: Optional[Throttling] = described(
        "Throttling by the CPU quotas of the process's control group and its parents; null if "
        "there can be no quota."
    )
    pressure: Pressure = described("Pressure stall information (PSI) of the machine.")
    mhz: Frequency = described("Mean clock rate of the CPUs, in MHz.")
    governor: Optional[str] = described("Frequency governor; null for none.")
    temperature_c: Optional[float] = described(
        "Temperature of the hottest sensor, in degrees Celsius.", minimum=-300, maximum=1e4
    )
    transparent_hugepage: Optional[str] = described("The kernel's setting of huge pages.")
    load_1min: Load = described("Load average before the trial's own work, and at its end.")
    ran_on: tuple[Count, ...] = described(
        "CPUs on which threads of the process were seen between requests; empty if the kernel does "
        "not report them."
    )
    looks: Count = described("Number of readings behind `ran_on`.")
    migrations: Optional[Count] = described(
        "How often threads of the process were moved to another CPU; null if the kernel does not "
        "report it."
    )
    clock_apart_share: Optional[Share] = described(
        "Drift between the machine's clock and the controller's during the trial, as a share of "
        "the time; only what exceeds the uncertainty of reading them. Null if they are one clock."
    )
    siblings_share: Optional[Share] = described(
        "Used share of the CPU time of the SMT siblings of `cpus`; null if there are none outside "
        "`cpus`."
    )
    moved: Optional[Moved] = described(
        "Events that the kernel which the process saw counted and logged in the window.",
        default=None,
    )


@with_fields(measure_fields())
@dataclass(frozen=True)
class Measures:
    """Further measures of the registry, which are in no other part of the result."""


@dataclass(frozen=True)
class Result:
    """The result of one trial: one fresh process that ran one application in one instance.

    Fields whose names end in _ns are in nanoseconds, _s in seconds, _kib in KiB, _mib in MiB.
    """

    schema: str = described("Name and version of this document.", const=RESULT)
    trial: Trial = described(
        "The trial as it was requested; the controller adds this to the harness's document."
    )
    application: Application = described("The application that ran.")
    settings: Settings = described("Settings of the run, as the harness confirms them.")
    startup: Startup = described("Parts of the start-up of the process.")
    samples: tuple[Sample, ...] = described(
        "One entry per request: first the warm-ups, which are flagged, then as many measured ones "
        "as settings.samples states.",
        min_items=1,
    )
    answers: Answers = described("The checked answers of all samples.")
    environment: Environment = described("The platform as the process saw it.")
    rusage: Usage = described("Resources used by the process during the measured samples.")
    warnings: tuple[str, ...] = described("Warnings of the trial, one sentence each.")
    memory_kib: Memory = described("Resident set size of the process, in KiB.")
    loadgen: LoadGen = described("Summary by MLPerf LoadGen; its logs are next to the result.")
    confounders: Confounders = described(
        "Confounders: readings of influences other than the platform on the measured times."
    )
    measures: Measures = described(
        "Further measures of the registry; null for one that is not known.", factory=Measures
    )
    bench: Optional[Bench] = described(
        "Readings of the bench host's kernel before and after the trial; the controller adds them.",
        default=None,
    )
    neighbours: tuple[NeighbourRan, ...] = described(
        "What each neighbour did during the trial; the controller adds this.", default=()
    )
