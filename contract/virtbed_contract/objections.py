"""Objections to one trial's result: the reasons for which it cannot be trusted.

The sweep fails a trial to whose result there is an objection, at once and when it resumes. The
analysis leaves such a result out. Both call `objections`, so that a trial that a sweep marks as
done is in the report, unless it contradicts other trials, which the analysis alone compares.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Optional

from .arithmetic import faults
from .codec import DocumentError, Json, decode, encode
from .contradictions import contradictions
from .factors import FACTORS, possible_ids
from .result import Result
from .sweep import Design, Evidence, PlannedTrial

MOST_CORES = 2**16
"""The largest accepted number of cores, beyond any machine: it bounds loops over doublings."""
_LATER = {factor.name: factor.default for factor in FACTORS if factor.later}


@dataclass(frozen=True)
class Planned:
    """What a design plans.

    Attributes:
        plan_digest: Digest of the plan.
        trials: The labels and settings that the result of each trial must have, by the trial's id.
    """

    plan_digest: str
    trials: Mapping[str, Json]

    @classmethod
    def of(cls, design: Design) -> Planned:
        """Return what a design plans."""
        parts = {
            entry.name: {"machine": entry.machine, "enclosure": entry.enclosure}
            for entry in design.platforms
        }
        rows = {
            row.id: {**labels_of(row, design.sweep, design.seed), **parts.get(row.platform, {})}
            for row in design.trials
        }
        return cls(design.plan_digest, rows)


def labels_of(row: PlannedTrial, sweep: str, seed: int) -> Json:
    """Return the labels and settings that the result of a planned trial must have.

    Args:
        row: The trial, as planned.
        sweep: Name of the plan.
        seed: Seed of the plan.
    """
    return {**encode(row), "sweep": sweep, "seed": seed}


def completed(result: Json) -> Json:
    """Return a result with the defaults of the factors that are newer than it."""
    return {**result, "trial": {**_LATER, **result["trial"]}}


def objections(result: Json, evidence: Evidence, planned: Optional[Planned]) -> list[str]:
    """Return why a result cannot be trusted, one predicate per reason; empty if it can be.

    Args:
        result: A result that satisfies its JSON Schema.
        evidence: The evidence of its trial.
        planned: What the sweep's design plans; None if the design is missing.
    """
    try:
        # JSON Schema accepts 1.0 as an integer; the decoder does not. One sample is enough for it,
        # since `faults` checks the times of all.
        decode(Result, {**result, "samples": result["samples"][:1]})
    except DocumentError as error:
        return [f"breaks the schema at {error}"]
    result = completed(result)
    named = next(_misnamed(result, planned), None)
    if named is not None:
        return [named]
    return [*faults(result), *contradictions(result, evidence)]


def _misnamed(result: Json, planned: Optional[Planned]) -> Iterator[str]:
    """Yield where id, labels and settings disagree with one another, or with the design."""
    trial, settings = result["trial"], result["settings"]
    possible = possible_ids(trial, settings["scenario"])
    if trial["id"] not in possible:
        yield f"its id is {trial['id']}, but its trial fields give {possible[0]}"
    for factor in FACTORS:
        needed, ran = trial[factor.name], settings.get(factor.name, trial[factor.name])
        if needed != ran:
            yield f"ran with {factor.name} {ran!r}, but {needed!r} is needed"
    if trial["cores"] > MOST_CORES:
        yield f"has {trial['cores']} cores, at most {MOST_CORES} are accepted"
    if planned is None:
        return
    if trial["plan_digest"] != planned.plan_digest:
        yield (
            f"belongs to another plan: {trial['plan_digest']} found, {planned.plan_digest} needed "
            "by design.json"
        )
    wanted = planned.trials.get(trial["id"])
    if wanted is None:
        yield "is not among the trials that design.json plans"
        return
    for key, value in {**trial, **settings}.items():
        if value != wanted.get(key, value):
            yield f"has {key} {value!r}, but design.json plans {wanted[key]!r}"
