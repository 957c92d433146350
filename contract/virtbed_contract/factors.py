"""Factors that a plan can vary besides platform, mode and size, and the grammar of ids.

A factor is one entry of `FACTORS`. The following derive from the entry: the plan's key, the label
in a trial's id, the field of ``result.json`` and ``design.json``, the column of an export, the
grouping of the analysis and the wording of the report. docs/how-to/factor.md shows how to add one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Optional

from .remedies import NO_GPU_YET

NAME = r"[a-z0-9]+(?:_[a-z0-9]+)*"
MODES = ("vanilla", "pinned")
SCALES = ("trained", "mlperf", "tiny")
SCENARIOS = ("single_stream", "multi_stream", "offline", "server")
"""Scenarios of MLPerf LoadGen. Ids do not name the first one."""


@dataclass(frozen=True)
class Factor:
    """One factor of a plan whose values are names.

    Attributes:
        name: The field in documents and the column of an export.
        plan_key: Key of a plan that lists the values; None if a plan has no such key.
        values: Values that a plan may list, each of lower-case letters, digits and underscores.
        default: Value used if a plan lacks the key; ids and headings do not name it.
        grain: ``instance``: each value gets a fresh instance. ``trial``: all values run in the
            same instance.
        meaning: One sentence for schemas and references.
        wording: Name of a value other than the default in headings; ``{}`` is the value.
        label: Name of a value other than the default in ids; ``{}`` is the value. No two factors
            may produce the same name.
        option: Option of the harness that takes the value; None if the harness does not get it.
        baseline: Value of the bare-metal baseline that a cell is compared with: the cell's own
            (``same``), or the default.
        emulated: Whether emulated guests vary the factor, too.
        own_kernel: Whether only guests vary the factor, since their machine runs its own kernel.
            Instances of other platforms, and so bare metal, keep the default: `baseline` must be
            "default".
        varied_by: Which instances can vary the factor: ``all``; ``enclosures``, those whose
            enclosure's role lists it in its `varies`; ``quotas``, those of them with a CPU quota;
            ``linux``, those whose process runs on a Linux kernel. The others keep the default.
        bare: The value that equals bare metal, if the default does not. The difference between
            the two is then a part of the platform's cost. None if the values are alternatives.
        part: Name of that part of the cost; empty if `bare` is None.
        not_yet: Why a plan cannot list a value other than the default yet; empty if it can.
        later: Whether documents may lack the field, since the factor is newer than they are; they
            then mean the default.
    """

    name: str
    plan_key: Optional[str]
    values: tuple[str, ...]
    default: str
    grain: Literal["instance", "trial"]
    meaning: str
    wording: str = "{}"
    label: str = "{}"
    option: Optional[str] = None
    baseline: Literal["same", "default"] = "same"
    emulated: bool = True
    own_kernel: bool = False
    varied_by: Literal["all", "enclosures", "quotas", "linux"] = "all"
    bare: Optional[str] = None
    part: str = ""
    not_yet: str = ""
    later: bool = False

    def __post_init__(self) -> None:
        if self.default not in self.values:
            raise ValueError(f"factor {self.name}: default {self.default!r} not in {self.values}")
        for text in (*self.values, *map(self.named, self.values)):
            if not re.fullmatch(NAME, text):
                raise ValueError(f"factor {self.name}: value {text!r} does not match {NAME}")
        if self.own_kernel and self.baseline != "default":
            raise ValueError(
                f"factor {self.name}: own_kernel with baseline {self.baseline!r}, 'default' needed:"
                " bare metal, the baseline of guests, has no other value"
            )
        if self.bare is not None and self.bare not in self.values:
            raise ValueError(f"factor {self.name}: bare {self.bare!r} not in {self.values}")
        if (self.bare is None) != (self.part == ""):
            raise ValueError(
                f"factor {self.name}: bare {self.bare!r} and part {self.part!r} found, both or "
                "neither needed"
            )

    @property
    def counts(self) -> bool:
        """Whether the values are consecutive whole numbers, which a plan writes as numbers."""
        return len(self.values) > 1 and all(map(str.isdigit, self.values))

    def words(self, value: str) -> str:
        """Return the name of a value in headings; empty for the default."""
        return "" if value == self.default else self.wording.format(value)

    def named(self, value: str) -> str:
        """Return the name of a value in ids, which do not name the default."""
        return self.label.format(value)


MOST_NEIGHBOURS = 15
"""Most neighbours of one instance; far fewer saturate the caches and the memory's bandwidth."""
BASELINE_MODE = "pinned"
"""Mode of the bare-metal cells that all other cells are compared with."""

FACTORS: tuple[Factor, ...] = (
    Factor(
        name="variant",
        plan_key="variants",
        values=("plain", "twin", "slowed"),
        default="plain",
        grain="instance",
        meaning="Copies of a platform that calibrate the testbed: plain (the platform itself), "
        "twin (the same under another name), slowed (by the plan's slowdown); not on emulated "
        "platforms.",
        baseline="default",
        emulated=False,  # an emulator has no speed that could be calibrated
    ),
    Factor(
        name="guest_kernel",
        plan_key="guest_kernel",
        values=("image", "host"),
        default="image",
        grain="instance",
        meaning="Kernel that guests boot: image (the image's own), host (the kernel that the host "
        "runs, with its modules).",
        wording="{}'s kernel",
        label="{}_kernel",
        baseline="default",
        own_kernel=True,
        bare="host",
        part="the image's kernel in place of the host's",
    ),
    Factor(
        name="guest_topology",
        plan_key="guest_topology",
        values=("flat", "host"),
        default="flat",
        grain="instance",
        meaning="CPU topology that guests see: flat (each CPU is a socket), host (sockets, cores, "
        "threads, caches and nodes of the host CPUs that the guest is pinned to).",
        wording="{}'s topology",
        label="{}_topology",
        baseline="default",
        own_kernel=True,
        bare="host",
        part="flat topology",
    ),
    Factor(
        name="guest_mitigations",
        plan_key="guest_mitigations",
        values=("kernel", "none"),
        default="kernel",
        grain="instance",
        meaning="Mitigations of CPU vulnerabilities in a guest's kernel: kernel (its defaults), "
        "none (booted with mitigations=off).",
        wording="mitigations {}",
        label="{}_mitigations",
        baseline="default",
        emulated=False,
        own_kernel=True,
    ),
    Factor(
        name="seccomp_profile",
        plan_key="seccomp",
        values=("filter", "unconfined"),
        default="filter",
        grain="instance",
        meaning="Seccomp filter of containers: filter (the engine's default profile), unconfined "
        "(no filter, as on bare metal).",
        wording="seccomp {}",
        baseline="default",
        emulated=False,
        varied_by="enclosures",
        bare="unconfined",
        part="seccomp filter",
    ),
    Factor(
        name="network",
        plan_key="network",
        values=("none", "host"),
        default="none",
        grain="instance",
        meaning="Network of containers: none (a namespace without interfaces), host (the network "
        "namespace of the machine, as on bare metal).",
        wording="{}'s network",
        label="{}_network",
        baseline="default",
        emulated=False,
        varied_by="enclosures",
        bare="host",
        part="network namespace",
    ),
    Factor(
        name="runtime",
        plan_key="runtime",
        values=("engine", "runc", "crun"),
        default="engine",
        grain="instance",
        meaning="OCI runtime that creates containers: engine (the engine's default: runc for "
        "Docker, crun for Podman), runc, crun.",
        wording="runtime {}",
        baseline="default",
        emulated=False,
        varied_by="enclosures",
    ),
    Factor(
        name="cfs_period",
        plan_key="cfs_period",
        values=("100ms", "50ms", "10ms"),
        default="100ms",
        grain="instance",
        meaning="Period of a container's CPU quota. A shorter one grants the same share of CPUs, "
        "with shorter and more frequent stalls.",
        wording="quota period {}",
        label="{}_period",
        baseline="default",
        emulated=False,
        varied_by="quotas",
    ),
    Factor(
        name="cfs_burst",
        plan_key="cfs_burst",
        values=("none", "full"),
        default="none",
        grain="instance",
        meaning="Burst of a container's CPU quota, the unused CPU time that later periods may "
        "use: none, full (as much as the quota of one period).",
        wording="{} quota burst",
        label="{}_burst",
        baseline="default",
        emulated=False,
        varied_by="quotas",
    ),
    Factor(
        name="neighbours",
        plan_key="neighbours",
        values=tuple(map(str, range(MOST_NEIGHBOURS + 1))),
        default="0",
        grain="instance",
        meaning="Number of neighbours: instances of the same platform and size that run the same "
        "application meanwhile, each on CPUs of its own. Only for pinned instances that run on "
        "the host's kernel.",
        wording="neighbours: {}",
        label="neighbours_{}",
        baseline="default",
        later=True,
    ),
    Factor(
        name="huge_pages",
        plan_key="huge_pages",
        values=("kernel", "never", "malloc"),
        default="kernel",
        grain="trial",
        meaning="Transparent huge pages of the process: kernel (as the kernel's setting "
        "determines), never (turned off for the process), malloc (requested by the C library's "
        "allocator).",
        wording="huge pages {}",
        label="{}_pages",
        option="huge-pages",
        baseline="default",
        emulated=False,
        varied_by="linux",
    ),
    Factor(
        name="thread_policy",
        plan_key="threads",
        values=("default", "matched"),
        default="default",
        grain="trial",
        meaning="Sizes of thread pools: default (the framework's choice), matched (as many threads "
        "as usable cores).",
        wording="{} threads",
        option="threads",
    ),
    Factor(
        name="processor",
        plan_key="processors",
        values=("cpu", "gpu"),
        default="cpu",
        grain="trial",
        meaning="Processor that the model runs on: cpu; gpu is not supported yet.",
        option="processor",
        emulated=False,  # an emulated guest has no IOMMU through which it could get a GPU
        not_yet=NO_GPU_YET,
    ),
)


def of_grain(grain: str) -> tuple[Factor, ...]:
    """Return the factors of one grain (``instance`` or ``trial``), in the order of `FACTORS`."""
    return tuple(factor for factor in FACTORS if factor.grain == grain)


def values_of(name: str) -> tuple[str, ...]:
    """Return the values of one factor."""
    return next(factor.values for factor in FACTORS if factor.name == name)


def default_of(name: str) -> str:
    """Return the default of one factor."""
    return next(factor.default for factor in FACTORS if factor.name == name)


def label(grain: str, values: Mapping[str, Any]) -> list[str]:
    """Return the parts of an id for the factors of one grain; defaults have none.

    Args:
        grain: ``instance`` or ``trial``.
        values: The value of every factor of the grain, by the factor's name.
    """
    return [
        factor.named(values[factor.name])
        for factor in of_grain(grain)
        if values[factor.name] != factor.default
    ]


def size_id(platform: str, mode: str, cores: int, values: Mapping[str, Any]) -> str:
    """Return the part of an id that all replicates of a cell share: "cn-pinned-c02-twin"."""
    return "-".join([platform, mode, f"c{cores:02d}", *label("instance", values)])


def instance_id(size: str, replicate: int) -> str:
    """Return the id of an instance.

    >>> instance_id("cn-pinned-c02", 1)
    'cn-pinned-c02-r01'
    """
    return f"{size}-r{replicate:02d}"


def trial_id(
    size: str, application: str, scale: Optional[str], scenario: str, replicate: int,
    values: Mapping[str, Any],
) -> str:  # fmt: skip
    """Return the id of a trial: "cn-pinned-c02-face_detection-matched-r01".

    Args:
        size: The id's first part, as `size_id` returns it.
        application: Name of the application.
        scale: Scale of the application if the plan has several scales of it; else None.
        scenario: Scenario of LoadGen; the first of `SCENARIOS` is not named.
        replicate: Number of the replicate, from 1.
        values: The value of every factor, by the factor's name.
    """
    named = [scale] if scale is not None else []
    named += [scenario] if scenario != SCENARIOS[0] else []
    return "-".join([size, application, *named, *label("trial", values), f"r{replicate:02d}"])


def possible_ids(trial: Mapping[str, Any], scenario: str) -> tuple[str, str]:
    """Return the two possible ids of a trial: without and with its scale.

    Args:
        trial: The trial's fields, as `result.Trial` has them.
        scenario: Scenario of LoadGen.
    """
    size = size_id(trial["platform"], trial["mode"], trial["cores"], trial)
    without, with_scale = (
        trial_id(size, trial["application"], scale, scenario, trial["replicate"], trial)
        for scale in (None, trial["scale"])
    )
    return without, with_scale


def id_pattern() -> str:
    """Return the regular expression that the id of every trial matches."""
    options = {
        grain: "".join(
            f"(-({'|'.join(factor.named(v) for v in factor.values if v != factor.default)}))?"
            for factor in of_grain(grain)
            if len(factor.values) > 1
        )
        for grain in ("instance", "trial")
    }
    modes, scales, scenarios = ("|".join(names) for names in (MODES, SCALES, SCENARIOS[1:]))
    return (
        f"^{NAME}-({modes})-c[0-9]{{2,}}{options['instance']}-[a-z0-9_]+(-({scales}))?"
        f"(-({scenarios}))?{options['trial']}-r[0-9]{{2,}}$"
    )
