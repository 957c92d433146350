"""Knows alone how what a playbook told of a trial becomes its result and its evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from virtbed import records
from virtbed.design import Trial
from virtbed.plan import Plan

Json = dict[str, Any]


def evidence_of(trial: Trial, came: Json, image: str, error: str) -> Json:
    """Return a trial's evidence, a `virtbed.evidence/1` document.

    Args:
        trial: The trial.
        came: What the module `trial_outcome` told of it.
        image: The digest of the image that its instance was to run.
        error: Why it failed; empty if it did not.
    """
    document = came["process"].get("document") or {}
    return {
        "schema": records.EVIDENCE_SCHEMA,
        "trial": trial.id,
        "asked": asdict(trial.instance) | {"image": image},
        "before": came["evidence"].get("before"),
        "inside": document.get("environment"),
        "after": came["evidence"].get("after"),
        "process_wall_ns": came["process"].get("wall_ns"),
        "attested": not error,
        "mismatches": [error] if error else [],
    }


def result_of(trial: Trial, came: Json, plan: Plan, host: str, image: str, attempt: int) -> Json:
    """Return a good trial's result, to be checked against `virtbed.result/3`, and its ``files``."""
    document = dict(came["process"]["document"])
    names = ("platform", "machine", "enclosure", "mode", "cores", "memory_mib", "accelerator")
    document["trial"] = {
        "id": trial.id,
        "sweep": plan.name,
        "plan_digest": plan.digest(),
        **{name: getattr(trial.instance, name) for name in names},
        "variant": trial.variant,
        "application": trial.application,
        "scale": trial.scale,
        "processor": trial.processor,
        "replicate": trial.replicate,
        "position": trial.position,
        "emulated": trial.emulated,
        "host": host,
        "image_digest": image,
        "attempt": attempt,
        "started_at": came["started_at"],
    }
    document["confounders"] = document["confounders"] | {
        "clock_apart_share": clock_apart_share(came["evidence"])
    }
    return document


def clock_apart_share(evidence: Mapping[str, Any]) -> float | None:
    """Return how far a guest's clock and the controller's ran apart, as a share of the time.

    Each reading of the guest's clock fell somewhere between the question and the answer, so only
    what lies outside of those bounds counts. None without two readings: metal has one clock.
    """
    machines = (evidence[moment]["machine"] for moment in ("before", "after"))
    before, after = (machine.get("clock") for machine in machines)
    if not before or not after:
        return None
    least = after["asked_ns"] - before["answered_ns"]
    most = after["answered_ns"] - before["asked_ns"]
    elapsed = after["instance_ns"] - before["instance_ns"]
    # /proc/uptime is cut to hundredths of a second, once before and once after.
    apart = max(0, least - elapsed - 10_000_000, elapsed - most - 10_000_000)
    return float(round(apart / most, 6))
