"""Checks of one trial's result: schema, identity, plan, consistency (`arithmetic`) and evidence.

`trust` calls `checked` for each folder below `trials/`; checks across trials are made there.
"""

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
"""The largest accepted number of cores, beyond any machine: it bounds loops over doublings."""


def checked(
    trial_folder: Path, design: Design | None, planned: dict[str, Json]
) -> tuple[Json, Evidence]:
    """Read and check a trial's result.json and evidence.json.

    Args:
        trial_folder: The trial's folder, named by its id.
        design: The sweep's design; None if the folder has none.
        planned: The design's trials as flat rows, by id.

    Returns:
        The result (with defaults of factors that are newer than the result) and the evidence.

    Raises:
        Unfit: the result fails a check; the message gives the reason.
    """
    result = read(trial_folder / "result.json", identifiers.RESULT)
    if breach := _breach(result):
        raise Unfit(breach)
    result["trial"] = {f.name: f.default for f in FACTORS if f.later} | result["trial"]
    _check_identity(trial_folder, result)
    if design is not None:
        _check_planned(result, design, planned)
    document = read(trial_folder / "evidence.json", identifiers.EVIDENCE)
    try:
        proof = decode(Evidence, document)
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

    `jsonschema_rs` is fast and checks every result; `jsonschema` gives the clearer message and runs
    only on a failure. The decoder checks in addition that integers are written as integers; one
    sample is enough for it, since `arithmetic` checks those of all samples.
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
    """Raise `Unfit` unless the result's id is that of its folder and agrees with its fields."""
    trial, settings = result["trial"], result["settings"]
    trial_id = trial["id"]
    if trial_id != trial_folder.name:
        if (trial_folder.parent / trial_id / "result.json").exists():
            raise Unfit(
                f"a duplicate: it is trial {trial_id}, whose folder trials/{trial_id} exists too"
            )
        raise Unfit(f"is trial {trial_id}, not the trial its folder is named for")
    possible = possible_ids(trial, settings["scenario"])
    if trial_id not in possible:
        raise Unfit(f"its id is {trial_id}, but its trial fields give {possible[0]}")
    for factor in FACTORS:
        needed, ran = trial[factor.name], settings.get(factor.name, trial[factor.name])
        if needed != ran:
            raise Unfit(f"ran with {factor.name} {ran!r}, but {needed!r} is needed")
    if trial["cores"] > MOST_CORES:
        raise Unfit(f"has {trial['cores']} cores, at most {MOST_CORES} are accepted")


def _check_planned(result: Json, design: Design, planned: dict[str, Json]) -> None:
    """Raise `Unfit` unless plan, id and labels of the result agree with design.json."""
    trial = result["trial"]
    if trial["plan_digest"] != design.plan_digest:
        raise Unfit(
            f"belongs to another plan: {trial['plan_digest']} found, {design.plan_digest} needed "
            "by design.json"
        )
    if trial["id"] not in planned:
        raise Unfit("is not among the trials that design.json plans")
    wanted = {**planned[trial["id"]], "seed": design.seed, "sweep": design.sweep}
    for entry in design.platforms:
        if entry.name == trial["platform"]:
            wanted |= {"machine": entry.machine, "enclosure": entry.enclosure}
    for key, value in {**trial, **result["settings"]}.items():
        if value != wanted.get(key, value):
            raise Unfit(f"has {key} {value!r}, but design.json plans {wanted[key]!r}")
