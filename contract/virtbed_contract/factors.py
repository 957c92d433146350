"""The factors that a plan may vary besides platform, mode and size, and the grammar of ids.

A factor is one entry of `FACTORS`. From it come the plan's key, the label in a trial's id, the
field of ``result.json`` and ``design.json``, the column of an export, the grouping of the analysis
and the wording of the report. docs/how-to/factor.md shows how to add one.
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


@dataclass(frozen=True)
class Factor:
    """One factor of a plan whose values are names.

    Attributes:
        name: The field in documents and the column of an export.
        plan_key: The plan's list of values; None if a plan has none.
        values: What the list may hold. Each is lower case, digits and underscores.
        default: The value of a plan that does not say; it is not named in ids and headings.
        grain: Whether each value gets a fresh instance, or all values run in the same one.
        meaning: One sentence for schemas and references.
        wording: How a heading names a value that is not the default; ``{}`` is the value.
        label: How an id names a value that is not the default; ``{}`` is the value. What it makes
            is unlike that of every other factor.
        option: The option of the harness that takes the value; None if it gets none.
        baseline: What the bare metal has that a value is compared with: the same value, or the
            default.
        emulated: Whether emulated guests vary it, too.
        own_kernel: Whether only guests vary it, whose machine runs a kernel of its own; instances
            of other platforms have the default. Bare metal being one of these, `baseline` is
            "default".
        varied_by: Which instances can vary it: all; ``enclosures``, whose role names it in its
            `varies`; ``quotas``, those of them under a CPU quota; ``linux``, those whose process
            runs on Linux's own kernel. The others have the default.
        bare: The value that says what bare metal has, where the default does not: what lies
            between the two is a part of the platform's cost. None where values are alternatives.
        part: What that part is called; empty without one.
        not_yet: Why no plan can ask for another value than the default yet; empty if one can.
        later: Whether documents may lack it: what was measured before it was there has the default.
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
                " bare metal, with which guests are compared, has no other value"
            )
        if self.bare is not None and self.bare not in self.values:
            raise ValueError(f"factor {self.name}: bare {self.bare!r} not in {self.values}")
        if (self.bare is None) != (self.part == ""):
            raise ValueError(f"factor {self.name}: bare and part, one of which is missing")

    @property
    def counts(self) -> bool:
        """Whether its values are whole numbers in a row, which a plan writes as such."""
        return len(self.values) > 1 and all(map(str.isdigit, self.values))

    def words(self, value: str) -> str:
        """Return how a heading names a value; empty for the default."""
        return "" if value == self.default else self.wording.format(value)

    def named(self, value: str) -> str:
        """Return how an id names a value that is not the default."""
        return self.label.format(value)


MOST_NEIGHBOURS = 15
"""Instances next to a measured one; far fewer fill the caches and the memory's bandwidth."""
BASELINE_MODE = "pinned"
"""The mode of bare metal that other cells are compared with."""

FACTORS: tuple[Factor, ...] = (
    Factor(
        name="variant",
        plan_key="variants",
        values=("plain", "twin", "slowed"),
        default="plain",
        grain="instance",
        meaning="To calibrate: twin (plain under another name), slowed (by slowdown); real "
        "platforms only.",
        baseline="default",
        emulated=False,  # an emulator has no speed that could be calibrated
    ),
    Factor(
        name="guest_kernel",
        plan_key="guest_kernel",
        values=("image", "host"),
        default="image",
        grain="instance",
        meaning="The kernel that guests boot: image (the image's own), host (the one that the "
        "host runs, with its modules).",
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
        meaning="What guests know of their CPUs: flat (each a socket of its own), host "
        "(sockets, cores, threads, caches and nodes of the CPUs that they are pinned to).",
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
        meaning="What a guest's kernel does about vulnerabilities of its CPUs: kernel (what it "
        "does by default), none (booted with mitigations=off).",
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
        meaning="System calls in containers: filter (by the engine's default list), unconfined "
        "(no seccomp filter, as on bare metal).",
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
        meaning="Network of containers: none (a namespace without interfaces), host (the "
        "machine's namespace, as on bare metal).",
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
        meaning="OCI runtime that makes a container: engine (its engine's own choice: runc of "
        "Docker, crun of Podman), runc, crun.",
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
        meaning="Period of a container's CPU quota: the share of CPUs is the same, stalls are "
        "shorter and more frequent.",
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
        meaning="CPU time that a container's quota saves up from periods in which it was not "
        "used: none, full (as much as one period's).",
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
        meaning="How many further instances of the same platform and size run the same "
        "application meanwhile, each on CPUs of its own; of pinned instances on the host's own "
        "kernel.",
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
        meaning="Huge pages of the process: kernel (as its setting has it), never (turned off for "
        "the process), malloc (the C library's allocator asks for them).",
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
        meaning="Sizes of thread pools: default (the framework's choice), matched (usable cores).",
        wording="{} threads",
        option="threads",
    ),
    Factor(
        name="processor",
        plan_key="processors",
        values=("cpu", "gpu"),
        default="cpu",
        grain="trial",
        meaning="Where the model runs: cpu; gpu cannot be asked for yet.",
        option="processor",
        emulated=False,  # an emulator has no IOMMU that could give one away
        not_yet=NO_GPU_YET,
    ),
)


def of_grain(grain: str) -> tuple[Factor, ...]:
    """Return the factors of one grain, in order."""
    return tuple(factor for factor in FACTORS if factor.grain == grain)


def values_of(name: str) -> tuple[str, ...]:
    """Return the values of one factor."""
    return next(factor.values for factor in FACTORS if factor.name == name)


def default_of(name: str) -> str:
    """Return the default of one factor."""
    return next(factor.default for factor in FACTORS if factor.name == name)


def label(grain: str, values: Mapping[str, Any]) -> list[str]:
    """Return the parts of an id that name the factors of one grain: values that are no default."""
    return [
        factor.named(values[factor.name])
        for factor in of_grain(grain)
        if values[factor.name] != factor.default
    ]


def size_id(platform: str, mode: str, cores: int, values: Mapping[str, Any]) -> str:
    """Return the part of an id that all replicates of an instance share: "cn-pinned-c02-twin"."""
    return "-".join([platform, mode, f"c{cores:02d}", *label("instance", values)])


def instance_id(size: str, replicate: int) -> str:
    """Return an instance's id: "cn-pinned-c02-r01"."""
    return f"{size}-r{replicate:02d}"


def trial_id(
    size: str, application: str, scale: Optional[str], scenario: str, replicate: int,
    values: Mapping[str, Any],
) -> str:  # fmt: skip
    """Return a trial's id: "cn-pinned-c02-face_detection-matched-r01".

    Args:
        size: What `size_id` gives.
        application: The application's name.
        scale: Its scale, where the plan has several of one application; else None.
        scenario: LoadGen's scenario; the first of `SCENARIOS` is not named.
        replicate: The replicate, from 1.
        values: The value of every factor by its name.
    """
    named = [scale] if scale is not None else []
    named += [scenario] if scenario != SCENARIOS[0] else []
    return "-".join([size, application, *named, *label("trial", values), f"r{replicate:02d}"])


def possible_ids(trial: Mapping[str, Any], scenario: str) -> tuple[str, str]:
    """Return the two ids that a trial with these fields can have: without and with its scale."""
    size = size_id(trial["platform"], trial["mode"], trial["cores"], trial)
    without, with_scale = (
        trial_id(size, trial["application"], scale, scenario, trial["replicate"], trial)
        for scale in (None, trial["scale"])
    )
    return without, with_scale


def id_pattern() -> str:
    """Return the regular expression that every trial's id matches."""
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
