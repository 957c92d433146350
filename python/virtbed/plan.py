"""Knows alone what a plan may say: the keys, their limits, and how a mistake is explained."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from virtbed.image import REPOSITORY

PlatformName = Literal["bm", "vm", "cn", "vmcn"]
Mode = Literal["vanilla", "pinned"]
Scenario = Literal["single_stream", "multi_stream", "offline", "server"]
Threads = Literal["default", "matched"]
Variant = Literal["plain", "twin", "slowed"]
Cores = Annotated[int, Field(ge=1, le=4096)]


def _percent(value: object) -> object:
    """Read "2%" as 0.02, and leave what is not a percentage to the field's own check."""
    if isinstance(value, str) and value.endswith("%"):
        with suppress(ValueError):
            return float(value[:-1]) / 100
    return value


Fraction = Annotated[float, BeforeValidator(_percent), Field(gt=0, lt=1)]


class PlanError(ValueError):
    """A plan that cannot be used; the message says what was found, what is needed, and where."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Application(_Strict):
    """One application of the sweep, and how long a trial of it is."""

    name: str = Field(description="As `python -m virtbed_workloads --list` shows it.")
    scale: Literal["trained", "mlperf", "tiny"] = "trained"
    samples: int = Field(20, ge=1, description="Measured samples in a trial, by quick rules.")
    warmup: int = Field(3, ge=1, description="Samples before them, kept and flagged.")
    scenario: Scenario = Field("single_stream", description="How MLPerf LoadGen issues requests.")
    rules: Literal["quick", "study"] = Field(
        "quick", description="study: MLPerf's minimum duration and number of queries."
    )
    target_qps: float | None = Field(
        None, gt=0, description="Requests a second of the server scenario; offline's expected ones."
    )
    target_latency_ms: float | None = Field(
        None, gt=0, description="Server's bound on the 99th percentile; MLPerf's if not given."
    )

    @model_validator(mode="after")
    def _server_has_a_rate(self) -> Self:
        if self.scenario == "server" and self.target_qps is None:
            raise ValueError(
                "scenario server without target_qps; the same rate on every platform is needed"
            )
        return self


class Emulated(_Strict):
    """What a guest without hardware virtualization runs instead: evidence that it works."""

    replicates: int = Field(1, ge=0)
    cores: list[Cores] = [1]
    scale: Literal["trained", "mlperf", "tiny"] = "tiny"
    samples: int = Field(3, ge=1)
    warmup: int = Field(1, ge=1)


class Plan(_Strict):
    """A sweep to carry out: every combination of its lists is a cell."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$", description="Names results/<name>.")
    description: str = ""
    seed: int = Field(2112, description="Of the random order of trials, and of the applications.")
    replicates: int = Field(5, ge=1, le=99, description="The most of a cell, if precision is set.")
    precision: Fraction | None = Field(
        None,
        description="Such as 2%: a cell is done once its ratio to bare metal is known so closely.",
    )
    min_replicates: int = Field(
        8, ge=2, le=99, description="With precision: the fewest replicates of a cell."
    )
    applications: list[Application] = Field(min_length=1)
    platforms: dict[PlatformName, Annotated[list[Mode], Field(min_length=1)]] = Field(min_length=1)
    cores: list[Cores] = Field(min_length=1)
    threads: list[Threads] = Field(
        ["default"],
        min_length=1,
        description="Thread pools: default (the framework's choice), matched (the cores it has).",
    )
    variants: list[Variant] = Field(
        ["plain"],
        min_length=1,
        description="To calibrate: twin (plain under another name), slowed (by slowdown). Real "
        "platforms only.",
    )
    slowdown: Fraction = Field(0.1, description="Such as 10%: how much slower `slowed` is.")
    tuning: bool = Field(
        False, description="Quieten the host (governor, turbo, …) meanwhile; restored at the end."
    )
    scale_up: Literal["affinity", "hotplug"] = Field(
        "affinity",
        description="hotplug: vanilla bare metal of every size, its other CPUs taken offline.",
    )
    memory_mib: int = Field(4096, ge=1024, description="Of every instance.")
    timeout_s: int = Field(
        600, ge=1, description="After which a trial is ended; 6 times if emulated."
    )
    emulated: Emulated = Emulated()

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        if "plain" not in self.variants:
            raise ValueError(f"variants {self.variants} without plain, with which they compare")
        if "slowed" in self.variants and any("vanilla" in m for m in self.platforms.values()):
            raise ValueError(
                "variant slowed with mode vanilla: under a quota the time that it adds is "
                "throttled in its turn, and its truth is not known; pinned alone is needed"
            )
        if self.precision is not None and self.min_replicates > self.replicates:
            raise ValueError(
                f"min_replicates {self.min_replicates} above replicates {self.replicates}; raise "
                "replicates, the most that precision may take"
            )
        return self

    def digest(self) -> str:
        """Return "sha256:…" of what the plan says, whatever its layout and comments."""
        said = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return f"sha256:{hashlib.sha256(said.encode()).hexdigest()}"


def plan_path(name: str, repository: Path = REPOSITORY) -> Path:
    """Return the file of a plan, named by its path or by the name of one that ships.

    Raises PlanError if there is none, naming those that there are.
    """
    path = Path(name)
    if path.suffix in {".yml", ".yaml"} and path.is_file():
        return path
    shipped = repository / "plans" / f"{name}.yml"
    if shipped.is_file():
        return shipped
    known = ", ".join(sorted(p.stem for p in (repository / "plans").glob("*.yml")))
    raise PlanError(f"no plan {name!r}; give the path of a .yml file, or one of: {known}")


def load_plan(path: Path) -> Plan:
    """Read and check a plan file.

    Raises PlanError with a line for each mistake.
    """
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PlanError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(data, dict):
        raise PlanError(f"{path}: {type(data).__name__} found, a mapping of keys needed")
    try:
        plan = Plan.model_validate(data)
    except ValidationError as error:
        raise PlanError("\n".join(f"{path}: {_explain(e)}" for e in error.errors())) from error
    lists: tuple[tuple[str, Sequence[object]], ...] = (
        ("cores", plan.cores),
        ("emulated.cores", plan.emulated.cores),
        ("applications", [(a.name, a.scale, a.scenario) for a in plan.applications]),
        ("threads", plan.threads),
        ("variants", plan.variants),
        *((f"platforms.{p}", modes) for p, modes in plan.platforms.items()),
    )
    for what, values in lists:
        if len(set(values)) != len(values):
            raise PlanError(f"{path}: {what}: {values} names one twice; each once is needed")
    return plan


def _explain(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        keys = {key for model in (Plan, Application, Emulated) for key in model.model_fields}
        close = difflib.get_close_matches(str(error["loc"][-1]), sorted(keys), n=1)
        return f"{where}: unknown key" + (f"; did you mean {close[0]}?" if close else "")
    return f"{where}: {error['input']!r} found; {error['msg']}"
