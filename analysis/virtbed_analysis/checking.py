"""Checks of one trial's files: schema, the folder's name, and the contract's objections.

`trust` calls `checked` for each folder below `trials/`; checks across trials are made there.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import jsonschema_rs
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from virtbed_analysis.reading import Json, Unfit, read
from virtbed_contract import identifiers
from virtbed_contract.codec import DocumentError, decode
from virtbed_contract.objections import Planned, completed, objections
from virtbed_contract.schemas import SCHEMAS
from virtbed_contract.sweep import Evidence


def checked(trial_folder: Path, planned: Planned | None) -> tuple[Json, Evidence]:
    """Read and check a trial's result.json and evidence.json.

    Args:
        trial_folder: The trial's folder, named by its id.
        planned: What the sweep's design plans; None if the folder has no design.

    Returns:
        The result (with defaults of factors that are newer than the result) and the evidence.

    Raises:
        Unfit: the result fails a check; the message gives the reason.
    """
    result = read(trial_folder / "result.json", identifiers.RESULT)
    if breach := _breach(result):
        raise Unfit(breach)
    _check_folder(trial_folder, result["trial"]["id"])
    document = read(trial_folder / "evidence.json", identifiers.EVIDENCE)
    try:
        proof = decode(Evidence, document)
    except DocumentError as error:
        raise Unfit(f"evidence.json breaks its schema at {error}") from None
    if reasons := objections(result, proof, planned):
        raise Unfit("; ".join(reasons))
    return completed(result), proof


@cache
def _fast() -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(SCHEMAS["result"]())


def _breach(result: Json) -> str | None:
    """Return where a result breaks its JSON Schema, in words; None if it does not.

    `jsonschema_rs` is fast and checks every result; `jsonschema` gives the clearer message and runs
    only on a failure.
    """
    if _fast().is_valid(result):
        return None
    error = best_match(Draft202012Validator(SCHEMAS["result"]()).iter_errors(result))
    return (
        f"breaks the schema at {error.json_path}: {error.message}" if error else "breaks its schema"
    )


def _check_folder(trial_folder: Path, trial_id: str) -> None:
    """Raise `Unfit` unless a result's folder is named by the trial's id."""
    if trial_id == trial_folder.name:
        return
    if (trial_folder.parent / trial_id / "result.json").exists():
        raise Unfit(
            f"a duplicate: it is trial {trial_id}, whose folder trials/{trial_id} exists too"
        )
    raise Unfit(f"is trial {trial_id}, not the trial its folder is named for")
