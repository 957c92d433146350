"""One trial of a sweep, its command line for the harness, and its request for the roles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from virtbed_contract.documents import Instance, TrialRequest
from virtbed_contract.factors import FACTORS
from virtbed_contract.kernel.isa import ISA, TCG_ISA
from virtbed_contract.sweep import HostReport, PlannedTrial

Values = Mapping[str, str]
"""The value of each factor, by the factor's name."""


@dataclass(frozen=True)
class Trial:
    """One fresh process of one application in one instance.

    Attributes:
        id: Its id, unique in the sweep.
        instance: The instance.
        factors: The value of each factor.
        slowdown: Share by which the variant `slowed` is slower; 0 for other variants.
        application: Name of the application.
        scale: Its scale.
        scenario: LoadGen's scenario.
        rules: "quick" or "study".
        target_qps: Requests per second: issued in scenario server, expected in offline.
        target_latency_ms: Bound on the 99th percentile, for scenario server.
        samples: Number of measured samples, with the quick rules.
        warmup: Number of samples before them.
        replicate: Its replicate, from 1.
        block: Its block, from 1.
        position: Its position in the sweep, from 1.
        timeout_s: Seconds after which the application is ended.
    """

    id: str
    instance: Instance
    factors: Values
    slowdown: float
    application: str
    scale: str
    scenario: str
    rules: str
    target_qps: float | None
    target_latency_ms: float | None
    samples: int
    warmup: int
    replicate: int
    block: int
    position: int
    timeout_s: int

    @property
    def emulated(self) -> bool:
        """Whether its guest or the bench host is emulated, so that its times are not used."""
        return self.instance.accelerator == "tcg" or self.instance.host_emulated

    def argv(self, seed: int) -> tuple[str, ...]:
        """Return the arguments of `python -m virtbed_workloads` that run this trial."""
        rates = {"qps": self.target_qps, "latency-ms": self.target_latency_ms}
        return (
            self.application,
            f"--scale={self.scale}",
            f"--scenario={self.scenario}",
            f"--rules={self.rules}",
            *(f"--target-{name}={rate}" for name, rate in rates.items() if rate is not None),
            f"--samples={self.samples}",
            f"--warmup={self.warmup}",
            *(f"--{f.option}={self.factors[f.name]}" for f in FACTORS if f.option),
            *([f"--slowdown={self.slowdown}"] if self.slowdown else []),
            f"--seed={seed}",
        )

    @property
    def limit_s(self) -> int:
        """Seconds that it may take; twice as long with neighbours, which start before it."""
        return self.timeout_s * (2 if self.instance.neighbours else 1)

    def request(self, seed: int, report: HostReport) -> TrialRequest:
        """Return the document that requests the trial from the roles.

        Args:
            seed: The plan's seed.
            report: The host's report.
        """
        return TrialRequest(
            id=self.id,
            argv=self.argv(seed),
            thread_policy=self.factors["thread_policy"],
            isa=isa_needed(report, self),
            timeout_s=self.timeout_s,
            huge_pages=self.factors["huge_pages"],
        )

    def planned(self) -> PlannedTrial:
        """Return the trial as design.json lists it."""
        return PlannedTrial(
            **self.factors,  # one field per factor, made from the registry
            id=self.id,
            platform=self.instance.platform,
            mode=self.instance.mode,
            cores=self.instance.cores,
            application=self.application,
            scale=self.scale,
            scenario=self.scenario,
            replicate=self.replicate,
            block=self.block,
            position=self.position,
            emulated=self.emulated,
        )


def isa_needed(report: HostReport, trial: Trial) -> tuple[str, ...]:
    """Return the instruction-set extensions that a trial must see; missing ones would slow it.

    These are the host's; for an emulated guest, those that QEMU's TCG can emulate. None are
    required if the enclosure has its own kernel, which may hide some by design; the result lists
    those that the application saw.
    """
    if trial.instance.private_kernel:
        return ()
    known = set(TCG_ISA if trial.instance.accelerator == "tcg" else ISA)
    return tuple(name for name in report.facts["cpu"]["isa"] if name in known)
