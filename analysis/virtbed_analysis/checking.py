"""Whether the result of one trial can be trusted: its schema, its name, its plan, its evidence."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import jsonschema_rs
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from virtbed_analysis import arithmetic, evidence
from virtbed_analysis.reading import Json, Unfit, read
from virtbed_contract import identifiers
from virtbed_contract.codec import DocumentError, decode
from virtbed_contract.factors import FACTORS, possible_ids
from virtbed_contract.result import Result
from virtbed_contract.schemas import SCHEMAS
from virtbed_contract.sweep import Design, Evidence

MOST_CORES = 2**16
"""Figures and doublings reach this far; no machine does."""


def checked(
    trial_folder: Path, design: Design | None, planned: dict[str, Json]
) -> tuple[Json, Evidence]:
    """Return a trial's result and evidence, or raise `Unfit` with the first reason against it.

    Args:
        trial_folder: Where it lies.
        design: The sweep's design, if it has one.
        planned: The design's trials as rows, by id.
    """
    result = read(trial_folder / "result.json", identifiers.RESULT)
    if breach := _breach(result):
        raise Unfit(breach)
    result["trial"] = {f.name: f.default for f in FACTORS if f.later} | result["trial"]
    _check_identity(trial_folder, result)
    if design is not None:
        _check_planned(result, design, planned)
    found = read(trial_folder / "evidence.json", identifiers.EVIDENCE)
    try:
        proof = decode(Evidence, found)
    except DocumentError as error:
        raise Unfit(f"evidence.json breaks its schema at {error}") from None
    faults = (*arithmetic.faults(result), *evidence.contradictions(result, proof))
    if faults:
        raise Unfit("; ".join(faults))
    return result, proof


@cache
def _fast() -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(SCHEMAS["result"]())


def _breach(result: Json) -> str | None:
    """Return where a result breaks its schema, in words; None if it does not.

    One implementation is fast, the other chooses and words the error best. The decoder, which takes
    a whole number for one only if it is written so, sees all but the samples.
    """
    if not _fast().is_valid(result):
        error = best_match(Draft202012Validator(SCHEMAS["result"]()).iter_errors(result))
        return (
            f"breaks the schema at {error.json_path}: {error.message}"
            if error
            else "breaks its schema"
        )
    try:
        decode(Result, {**result, "samples": result["samples"][:1]})
    except DocumentError as error:
        return f"breaks the schema at {error}"
    return None


def _check_identity(trial_folder: Path, result: Json) -> None:
    """Raise `Unfit` unless the result is the trial that its folder is named for."""
    trial, settings = result["trial"], result["settings"]
    found = trial["id"]
    if found != trial_folder.name:
        if (trial_folder.parent / found / "result.json").exists():
            raise Unfit(f"a duplicate: it is trial {found}, which trials/{found} holds")
        raise Unfit(f"is trial {found}, not the trial its folder is named for")
    possible = possible_ids(trial, settings["scenario"])
    if found not in possible:
        raise Unfit(f"its id says {found}, its trial fields say {possible[0]}")
    for factor in FACTORS:
        asked, ran = trial[factor.name], settings.get(factor.name, trial[factor.name])
        if asked != ran:
            raise Unfit(f"ran with {factor.name} {ran!r}, {asked!r} was asked")
    if trial["cores"] > MOST_CORES:
        raise Unfit(f"has {trial['cores']} cores, at most {MOST_CORES} are read")


def _check_planned(result: Json, design: Design, planned: dict[str, Json]) -> None:
    """Raise `Unfit` unless the result is as design.json plans it."""
    trial = result["trial"]
    if trial["plan_digest"] != design.plan_digest:
        raise Unfit(
            f"belongs to another plan: {trial['plan_digest']}, design.json has {design.plan_digest}"
        )
    if trial["id"] not in planned:
        raise Unfit("is not among the trials that design.json plans")
    wanted = {**planned[trial["id"]], "seed": design.seed, "sweep": design.sweep}
    for entry in design.platforms:
        if entry.name == trial["platform"]:
            wanted |= {"machine": entry.machine, "enclosure": entry.enclosure}
    for key, value in {**trial, **result["settings"]}.items():
        if value != wanted.get(key, value):
            raise Unfit(f"has {key} {value!r}, design.json plans it with {wanted[key]!r}")
