"""The plan of a sweep: its keys and limits, reading it, and messages for mistakes in it.

`load_plan` reads a plan file; docs/reference/plan.md is generated from the models in here. Which
trials a plan becomes on a host is decided in `virtbed.design`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import reprlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    model_validator,
)

from virtbed import yaml_file
from virtbed.checkout import REPOSITORY, require
from virtbed.image import DEFAULT
from virtbed.platforms import load_platforms
from virtbed_contract.factors import FACTORS, MODES, NAME, SCALES, SCENARIOS, Factor
from virtbed_contract.json_file import plain
from virtbed_contract.sweep import MARGIN, MOST_REPLICATES, answering_precision

if TYPE_CHECKING:
    Mode = str
    Scenario = str
    Scale = str
else:
    Mode, Scenario, Scale = (Literal[values] for values in (MODES, SCENARIOS, SCALES))
Cores = Annotated[int, Field(ge=1, le=4096)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
PlatformName = Annotated[str, Field(pattern=f"^{NAME}$", max_length=64)]
MOST_SAMPLES = 1_000_000
"""Samples per trial: this many make a result file of 200 MB, the largest that is read."""
MOST_WARMUP = 100_000
MOST_TRIALS = 2_000_000
"""Trials per sweep: twice as many as benchmarks/scheduling.py plans, which take 1.7 GiB."""
MOST_MEMORY_MIB = 2**26
"""64 TiB, more than any host has."""
MOST_S = 30 * 24 * 3600
_LISTED = 64


def _share(value: object) -> object:
    """Parse a share, such as "2%" or 0.02; both give 0.02.

    Raises:
        ValueError: it is not between 0 and 1 (such as 3 instead of 3%), or no number; true and
            false, which are numbers in Python, are refused too.
    """
    share: object = value
    if isinstance(value, str) and value.endswith("%"):
        with suppress(ValueError):
            share = float(value[:-1]) / 100
    number = isinstance(share, (int, float)) and not isinstance(share, bool)
    if not number or not 0 < share < 1:  # type: ignore[operator]  # a number, as was just seen
        raise ValueError("a share above 0% and below 100% is needed, such as 3% or 0.03")
    return share


Fraction = Annotated[float, BeforeValidator(_share), Field(gt=0, lt=1)]


_FOUND = reprlib.Repr()
_FOUND.maxstring = _FOUND.maxother = 80


class PlanError(ValueError):
    """A plan cannot be used; the message says what was found, what is needed, and where."""


class _Strict(BaseModel):
    # Strict: `true` is not accepted as a number of cores, nor "20" as a number.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _word(value: object) -> object:
    """Return YAML's null as the text "null": an application and an image have this name."""
    return "null" if value is None else value


Word = Annotated[str, Field(pattern=f"^{NAME}$", max_length=64), BeforeValidator(_word)]


class Application(_Strict):
    """One application of the sweep, and the length of its trials."""

    name: Word = Field(description="As `python -m virtbed_workloads --list` shows it.")
    scale: Scale = "trained"
    samples: int = Field(
        20, ge=1, le=MOST_SAMPLES, description="Measured samples per trial, with the quick rules."
    )
    warmup: int = Field(
        3,
        ge=1,
        le=MOST_WARMUP,
        description="Samples before the measured ones; they are kept and flagged.",
    )
    scenario: Scenario = Field(SCENARIOS[0], description="How MLPerf LoadGen issues requests.")
    rules: Literal["quick", "study"] = Field(
        "quick",
        description="How long a trial is. quick: `samples`; study: MLPerf's minimum duration and "
        "number of queries.",
    )
    target_qps: float | None = Field(
        None,
        gt=0,
        le=1e9,
        description="Requests per second: issued in scenario server, where it is needed; expected "
        "in scenario offline.",
    )
    target_latency_ms: float | None = Field(
        None,
        gt=0,
        le=1e9,
        description="Bound on the 99th percentile of latency in scenario server, queue included; "
        "needed there, since LoadGen calls a trial beyond it INVALID.",
    )

    @model_validator(mode="after")
    def _server_has_a_rate_and_a_bound(self) -> Self:
        needed = {
            "target_qps": "requests per second, the same on every platform",
            "target_latency_ms": "the bound that your service has, in ms, preprocessing included",
        }
        lacking = [key for key in needed if getattr(self, key) is None]
        if self.scenario == "server" and lacking:
            what = "; ".join(f"{key} ({needed[key]})" for key in lacking)
            raise ValueError(f"scenario server without {what}; add it to the application")
        return self

    @model_validator(mode="after")
    def _has_no_target_that_its_scenario_ignores(self) -> Self:
        for key, scenarios in (
            ("target_qps", ("server", "offline")), ("target_latency_ms", ("server",)),
        ):  # fmt: skip
            found = getattr(self, key)
            if found is not None and self.scenario not in scenarios:
                raise ValueError(
                    f"{key} {found:g} found, which scenario {self.scenario} ignores; take {key} "
                    f"out, or set scenario to {' or '.join(scenarios)}"
                )
        return self


class Emulated(_Strict):
    """What emulated guests, and everything on an emulated host, run instead of the plan's trials.

    Such trials show that a platform works; their times are never used.
    """

    replicates: int = Field(1, ge=0, le=MOST_REPLICATES)
    modes: list[Mode] = Field(
        list(MODES),
        min_length=1,
        max_length=_LISTED,
        description="Which of the plan's modes they run.",
    )
    cores: list[Cores] = Field([1], max_length=_LISTED)
    scale: Scale = "tiny"
    samples: int = Field(3, ge=1, le=MOST_SAMPLES)
    warmup: int = Field(1, ge=1, le=MOST_WARMUP)


class _Plan(_Strict):
    """A sweep to carry out: every combination of its lists is a cell."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,40}$", description="Results are written to results/<name>."
    )
    description: str = Field("", max_length=10_000)
    seed: Seed = Field(
        2112, description="Seed of the random order of trials, and of the applications."
    )
    replicates: int = Field(
        5,
        ge=1,
        le=MOST_REPLICATES,
        description="Number of replicates; with precision, the most that a cell may take.",
    )
    precision: Fraction | None = Field(
        None,
        description="Such as 1.4%: a cell is done once its ratio to bare metal is known to within "
        "this. At most about half the margin (1.4% for 3%): a wider interval may give no answer.",
    )
    min_replicates: int = Field(
        8,
        ge=2,
        le=MOST_REPLICATES,
        description="With precision: the fewest replicates that a cell takes.",
    )
    margin: Fraction = Field(
        MARGIN,
        description="Such as 3%: the smallest cost worth knowing; the report's answers depend on "
        "it.",
    )
    image: Word = Field(
        DEFAULT,
        description="Variant of the image that every platform runs; images.yml lists them.",
    )
    applications: list[Application] = Field(min_length=1, max_length=_LISTED)
    platforms: dict[
        PlatformName, Annotated[list[Mode], Field(min_length=1, max_length=_LISTED)]
    ] = Field(
        min_length=1,
        max_length=_LISTED,
        description="The modes of each platform; platforms.yml lists the platforms.",
    )
    cores: list[Cores] = Field(min_length=1, max_length=_LISTED)
    slowdown: Fraction = Field(
        0.1, description="Such as 10%: how much slower the variant `slowed` is made."
    )
    tuning: bool = Field(
        False,
        description="Make the host quiet (clock rate, timers, interrupts, …) during the sweep; its "
        "settings are restored at the end.",
    )
    explain: bool = Field(
        False,
        description="Vary one factor at a time: each cell differs in at most one value from the "
        "cell with all defaults, and the report splits the cost into its parts.",
    )
    scale_up: Literal["affinity", "hotplug"] = Field(
        "affinity",
        description="hotplug: also measure vanilla bare metal at every size, by taking the other "
        "CPUs offline.",
    )
    memory_mib: int = Field(
        4096, ge=1024, le=MOST_MEMORY_MIB, description="Memory of every instance, in MiB."
    )
    core_kind: int | None = Field(
        None,
        ge=1,
        description="On hosts with several kinds of core: the kind that all instances use, 1 for "
        "the fastest, as `virtbed doctor` numbers them; if not given, the fastest kind that has "
        "enough cores for the largest size.",
    )
    gpu: str | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="UUID or PCI address of the GPU that cells with a GPU use; required on a host "
        "with several.",
    )
    timeout_s: int = Field(
        600,
        ge=1,
        le=MOST_S,
        description="Seconds after which a trial is ended; 6 times as long if it is emulated.",
    )
    emulated: Emulated = Emulated()

    @model_validator(mode="after")
    def _names_no_gpu_for_nothing(self) -> Self:
        if self.gpu is not None and not self.asks_for_gpu:
            raise ValueError(f"gpu {self.gpu!r} found, but no cell has a GPU: take `gpu` out")
        return self

    @model_validator(mode="after")
    def _has_no_key_that_nothing_reads(self) -> Self:
        for key, is_read, reader in (
            ("min_replicates", self.precision is not None, "precision"),
            ("slowdown", self._lists("slowed"), "variant slowed"),
        ):
            found = getattr(self, key)
            if not is_read and found != type(self).model_fields[key].default:
                raise ValueError(
                    f"{key} {found:g} found without {reader}, so nothing would read it; add "
                    f"{reader}, or take {key} out"
                )
        return self

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        for factor in FACTORS:
            if factor.not_yet and set(self.values(factor)) != {factor.default}:
                raise ValueError(f"{factor.plan_key} {self.values(factor)} found: {factor.not_yet}")
            # Factors of guests only need no default here: bare metal always has it.
            compared = factor.baseline == "default" and not factor.own_kernel
            if compared and factor.default not in self.values(factor):
                raise ValueError(
                    f"{factor.plan_key} {self.values(factor)} without {factor.default}, which the "
                    f"others are compared with; add {factor.default} to the list"
                )
        varied = [factor for factor in FACTORS if len(self.values(factor)) > 1]
        if self.explain and not varied:
            keys = ", ".join(f.plan_key for f in FACTORS if f.plan_key and not f.not_yet)
            raise ValueError(
                "explain: true found, but no factor with several values to vary; list the values "
                f"of one, such as seccomp: [filter, unconfined]; the factors are: {keys}"
            )
        for factor in varied if self.explain else ():
            if factor.default not in self.values(factor):
                raise ValueError(
                    f"{factor.plan_key} {self.values(factor)} without {factor.default}: explain "
                    "varies one factor at a time, starting from all defaults; add it to the list"
                )
        if self._lists("slowed") and any("vanilla" in modes for modes in self.platforms.values()):
            raise ValueError(
                "variant slowed with mode vanilla: a CPU quota also throttles the time that the "
                "variant adds, so its true size is not known; use mode pinned alone"
            )
        if self.precision is not None and self.min_replicates > self.replicates:
            raise ValueError(
                f"min_replicates {self.min_replicates} above replicates {self.replicates}; raise "
                "replicates, which is the most that a cell may take with precision"
            )
        most = answering_precision(self.margin)
        if self.precision is not None and self.precision > most:
            wider = (1 + self.precision) ** 2 - 1
            raise ValueError(
                f"precision {self.precision:.3g} found, at most {math.floor(1e3 * most) / 1e3:.3g} "
                f"needed at a margin of {self.margin:.3g}: a cell would stop with an interval that "
                "shows neither a difference nor equivalence; lower precision, or raise margin to "
                f"{math.ceil(1e3 * wider - 1e-9) / 1e3:.3g}"
            )
        if (trials := self.most_trials()) > MOST_TRIALS:
            raise ValueError(
                f"{trials} trials of all cells and replicates found, at most {MOST_TRIALS} needed; "
                "shorten the plan's lists, or lower replicates"
            )
        return self

    @property
    def asks_for_gpu(self) -> bool:
        """Whether any cell has a GPU."""
        return self._lists("gpu")

    def _lists(self, value: str) -> bool:
        """Return whether the plan lists a value for any factor."""
        return any(value in self.values(factor) for factor in FACTORS)

    def most_trials(self) -> int:
        """Return the number of trials on a host that can run every platform and size."""
        modes = sum(map(len, self.platforms.values()))
        several = [len(self.values(factor)) for factor in FACTORS]
        factors = 1 + sum(n - 1 for n in several) if self.explain else math.prod(several)
        return self.replicates * modes * len(self.cores) * len(self.applications) * factors

    def values(self, factor: Factor) -> list[str]:
        """Return the values that the plan lists for a factor; its default if it has no key."""
        return [factor.default] if factor.plan_key is None else list(getattr(self, factor.plan_key))

    def digest(self) -> str:
        """Return the digest of the plan's keys, "sha256:…"; layout and comments do not matter.

        `replicates` is left out: more replicates do not change the order of the earlier ones, so a
        sweep can be continued with more. `description` is left out, since no trial depends on it.
        The margin is included, because a margin that is chosen after the results are known tests
        nothing.
        """
        left_out = {"replicates", "description"}
        content = json.dumps(self.model_dump(mode="json", exclude=left_out), sort_keys=True)
        return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"


def _factor_keys(factors: Iterable[Factor] = FACTORS) -> dict[str, Any]:
    """Return the fields of the plan for factors that have a plan key, for `create_model`."""
    keys: dict[str, Any] = {}
    for factor in factors:
        options: dict[str, Any] = {"min_length": 1, "max_length": _LISTED}
        options |= {"description": factor.meaning}
        kind: Any = list[Literal[factor.values]]  # type: ignore[name-defined]
        if factor.counts:
            kind = Annotated[list[Annotated[str, _count(factor)]], _counts(factor)]
            options["json_schema_extra"] = partial(_counted, factor)
        if factor.plan_key:
            keys[factor.plan_key] = (kind, Field([factor.default], **options))
    return keys


def _count(factor: Factor) -> BeforeValidator:
    """Return the validator of one value of a counting factor: 2 and "2" both give "2"."""

    def read(value: object) -> object:
        name = str(value) if type(value) is int else value
        if name not in factor.values:
            least, most = factor.values[0], factor.values[-1]
            raise ValueError(f"a whole number from {least} to {most} needed")
        return name

    return BeforeValidator(read)


def _counts(factor: Factor) -> BeforeValidator:
    """Return the validator that reads a single number N as the list of the default and N.

    N is compared with the default, so the default must be measured, too.
    """

    def read(value: object) -> object:
        if type(value) is not int:
            return value
        return [factor.default, value] if str(value) != factor.default else [value]

    return BeforeValidator(read)


def _counted(factor: Factor, schema: dict[str, Any]) -> None:
    """Replace a counting factor's JSON Schema: a number, or a list of numbers."""
    least, most = int(factor.values[0]), int(factor.values[-1])
    number = {"type": "integer", "minimum": least, "maximum": most}
    listed = {"type": "array", "items": number, "minItems": 1, "maxItems": _LISTED}
    schema.clear()
    schema |= {"description": factor.meaning, "default": [int(factor.default)]}
    schema |= {"anyOf": [number, listed]}


if TYPE_CHECKING:
    Plan = _Plan
else:
    Plan = create_model("Plan", __base__=_Plan, __doc__=_Plan.__doc__, **_factor_keys())


def plan_path(name: str, repository: Path = REPOSITORY) -> Path:
    """Return the file of a plan.

    A sweep copies its plan into results/NAME. So `virtbed sweep NAME`, as reports and messages
    quote it, continues a sweep wherever the original plan file is.

    Args:
        name: A path that ends with .yml or .yaml, or the name of a plan in plans/ or of a sweep in
            results/.
        repository: The checkout.

    Raises:
        PlanError: there is no such plan; the message lists those in plans/.
        CheckoutError: there is no checkout.
    """
    with suppress(OSError, ValueError):  # a name that no file can have
        path = Path(name)
        if path.suffix in {".yml", ".yaml"} and path.is_file():
            return path
        shipped = require(repository) / "plans" / f"{name}.yml"
        swept = repository / "results" / name / "plan.yml"
        for found in (shipped, swept):
            if found.is_file():
                return found
    known = ", ".join(sorted(p.stem for p in (repository / "plans").glob("*.yml")))
    raise PlanError(
        f"no plan {name[:200]!r} found; give the path of a .yml file, or one of: {known}"
    )


def load_plan(path: Path, platforms: Collection[str] | None = None) -> Plan:
    """Read and check a plan file.

    Args:
        path: The file.
        platforms: Names of the known platforms; if not given, those of platforms.yml.

    Raises:
        PlanError: the plan cannot be used; the message has one line per mistake.
    """
    try:
        data = yaml_file.read(path)
    except yaml_file.YamlError as error:
        raise PlanError(str(error)) from error
    try:
        plan = Plan.model_validate(data)
    except ValidationError as error:
        raise PlanError("\n".join(f"{path}: {_explain(e)}" for e in error.errors())) from error
    known = load_platforms().entries if platforms is None else platforms
    for name in plan.platforms:
        if name not in known:
            raise PlanError(
                f"{path}: platforms.{name}: no such platform; platforms.yml has: {', '.join(known)}"
            )
    lists: tuple[tuple[str, Sequence[object]], ...] = (
        ("cores", plan.cores),
        ("emulated.modes", plan.emulated.modes),
        ("emulated.cores", plan.emulated.cores),
        ("applications", [(a.name, a.scale, a.scenario) for a in plan.applications]),
        *((factor.plan_key, plan.values(factor)) for factor in FACTORS if factor.plan_key),
        *((f"platforms.{p}", modes) for p, modes in plan.platforms.items()),
    )
    for what, values in lists:
        if len(set(values)) != len(values):
            raise PlanError(f"{path}: {what}: {values} has a value twice; list each value once")
    return plan


def with_replicates(plan: Plan, replicates: int | None) -> Plan:
    """Return a plan with another number of replicates; the plan itself for None.

    Raises:
        PlanError: the plan cannot have this number of replicates.
    """
    if replicates is None:
        return plan
    try:
        return Plan.model_validate(plan.model_dump() | {"replicates": replicates})
    except ValidationError as error:
        raise PlanError(
            "\n".join(f"--replicates: {_explain(e)}" for e in error.errors())
        ) from error


def check_applications(plan: Plan, known: Mapping[str, Collection[str]]) -> None:
    """Check that each application of a plan exists, at the plan's scale and at emulated.scale.

    Args:
        plan: The plan.
        known: The scales of each existing application, by the application's name.

    Raises:
        PlanError: one does not exist; the message lists those that do.
    """
    for application in plan.applications:
        has = known.get(application.name, ())
        for scale, why in (
            (application.scale, ""),
            (plan.emulated.scale, ", which emulated.scale requires"),
        ):
            if scale in has:
                continue
            offered = ", ".join(f"{n} ({'/'.join(s)})" for n, s in sorted(known.items()))
            raise PlanError(
                f"applications: {application.name!r} at scale {scale!r} does not exist{why}; "
                f"applications and their scales: {offered}"
            )


def _explain(error: Any) -> str:
    """Return pydantic's error as a message: the key, the value found, and what is needed."""
    where = plain(".".join(str(part)[:80] for part in error["loc"]))
    if error["type"] == "extra_forbidden":
        keys = {key for model in (Plan, Application, Emulated) for key in model.model_fields}
        close = difflib.get_close_matches(str(error["loc"][-1]), sorted(keys), n=1)
        return f"{where}: unknown key" + (f"; did you mean {close[0]}?" if close else "")
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"{where}: missing; {message}"
    if error["type"] == "value_error" and not where:  # it concerns the plan as a whole
        return message
    return f"{where}: {_FOUND.repr(error['input'])} found; {message}"
