"""Build the documents of a trial that has ended: its result and its evidence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from virtbed.plan import Plan
from virtbed.trial import Trial
from virtbed_contract import result as documents
from virtbed_contract.codec import encode
from virtbed_contract.events import Readings, TrialOutcome
from virtbed_contract.identifiers import EVIDENCE
from virtbed_contract.kernel.moments import bench
from virtbed_contract.neighbours import neighbours_ran

Json = dict[str, Any]


def evidence_of(trial: Trial, outcome: TrialOutcome, error: str = "") -> Json:
    """Return a trial's evidence: an `Evidence` document as JSON values.

    Args:
        trial: The trial.
        outcome: How it ended, with the readings of its instance.
        error: Why it failed; empty if it succeeded.
    """
    return {
        "schema": EVIDENCE,
        "trial": trial.id,
        "asked": encode(trial.instance),
        **encode(outcome.evidence),
        "process_wall_ns": outcome.process_wall_ns,
        "attested": not error,
        "mismatches": [error] if error else [],
    }


def result_of(
    trial: Trial,
    document: Mapping[str, Any],
    outcome: TrialOutcome,
    plan: Plan,
    host: str,
    attempt: int,
) -> Json:
    """Return a successful trial's result: the harness's document, completed by the controller.

    Args:
        trial: The trial.
        document: The harness's document, without its files.
        outcome: How the trial ended, with the readings of its instance.
        plan: The sweep's plan.
        host: The bench host's own name.
        attempt: Number of the attempt, from 1.
    """
    instance = trial.instance
    head = documents.Trial(
        **trial.factors,  # one field per factor, made from the registry
        id=trial.id,
        sweep=plan.name,
        plan_digest=plan.digest(),
        platform=instance.platform,
        machine=instance.machine,
        enclosure=instance.enclosure,
        mode=instance.mode,
        quota_cpus=instance.quota_cpus,
        cores=instance.cores,
        memory_mib=instance.memory_mib,
        application=trial.application,
        scale=trial.scale,
        replicate=trial.replicate,
        position=trial.position,
        accelerator=instance.accelerator,
        emulated=trial.emulated,
        host=host,
        image_digest=instance.image_digest,
        started_at=outcome.started_at,
        attempt=attempt,
    )
    moved = {"clock_apart_share": clock_apart_share(outcome.evidence)}
    confounders = {**document.get("confounders", {}), **moved}
    added = {
        "bench": bench(*_machines(outcome.evidence)),
        "neighbours": neighbours_ran(instance, *_neighbours(outcome.evidence)),
    }
    return {**document, "trial": encode(head), "confounders": confounders, **added}


def _machines(evidence: Readings) -> Iterator[dict[str, Any] | None]:
    """Yield the readings of the machine before and after a trial."""
    return (side.machine if side else None for side in (evidence.before, evidence.after))


def _neighbours(evidence: Readings) -> Iterator[Sequence[Json]]:
    """Yield the readings of the neighbours before and after a trial."""
    return (side.neighbours if side else () for side in (evidence.before, evidence.after))


def clock_apart_share(evidence: Readings) -> float | None:
    """Return how far a guest's clock and the controller's drifted apart, as a share of the time.

    The guest's clock was read at an unknown moment between request and answer, so only a drift
    beyond these bounds counts.

    Returns:
        The share; None without two readings, as on metal, which has one clock.
    """
    before, after = ((machine or {}).get("clock") for machine in _machines(evidence))
    if not before or not after:
        return None
    least = after["asked_ns"] - before["answered_ns"]
    most = after["answered_ns"] - before["asked_ns"]
    elapsed = after["instance_ns"] - before["instance_ns"]
    # /proc/uptime is truncated to hundredths of a second, in both readings.
    apart = max(0, least - elapsed - 10_000_000, elapsed - most - 10_000_000)
    return float(round(apart / most, 6))
