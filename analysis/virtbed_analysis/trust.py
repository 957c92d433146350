"""Which files of a results folder can be trusted, and why others cannot."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import jsonschema_rs
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from virtbed_contract import identifiers
from virtbed_contract.codec import DocumentError, decode
from virtbed_contract.factors import FACTORS, possible_ids
from virtbed_contract.schemas import SCHEMAS
from virtbed_contract.sweep import Design

Json = dict[str, Any]
_Document = TypeVar("_Document")


@dataclass(frozen=True)
class Rejected:
    """A file that was left out: its path below the sweep's folder, and why."""

    file: str
    reason: str


class Unfit(Exception):
    """Why one file is left out."""


def trial_folders(folder: Path) -> list[Path]:
    """Return the folder of each trial of a results folder, by name."""
    trials = folder / "trials"
    return sorted(p for p in trials.iterdir() if p.is_dir()) if trials.is_dir() else []


def _read(path: Path, schema: str) -> Json:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Unfit(f"no {path.name} beside it") from None
    except OSError as error:
        raise Unfit(f"{path.name} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise Unfit(f"{path.name} is not UTF-8 text: byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise Unfit(
            f"{path.name} is not JSON, cut short perhaps: "
            f"{error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    found = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(document, dict) or found != schema:
        raise Unfit(f"{path.name} has schema {found!r}, this version reads {schema!r}")
    return document


def optional(
    folder: Path, name: str, kind: type[_Document], schema: str, rejected: list[Rejected]
) -> _Document | None:
    """Return a document of a results folder; None, and a line in `rejected`, if it is unfit."""
    path = folder / name
    if not path.exists():
        return None
    try:
        return decode(kind, _read(path, schema))
    except (Unfit, DocumentError) as reason:
        rejected.append(Rejected(name, str(reason)))
        return None


@cache
def _fast() -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(SCHEMAS["result"]())


def _breach(result: Json) -> str | None:
    """Return where a result breaks its schema, in words; None if it does not.

    One implementation is fast, the other chooses and words the error best.
    """
    if _fast().is_valid(result):
        return None
    error = best_match(Draft202012Validator(SCHEMAS["result"]()).iter_errors(result))
    if error is None:
        return "breaks the schema"
    return f"breaks the schema at {error.json_path}: {error.message}"


def checked(trial_folder: Path, design: Design | None, planned: dict[str, Json]) -> Json:
    """Return a trial's result, or raise `Unfit` with the first reason against it.

    Args:
        trial_folder: Where it lies.
        design: The sweep's design, if it has one.
        planned: The design's trials as rows, by id.
    """
    result = _read(trial_folder / "result.json", identifiers.RESULT)
    if breach := _breach(result):
        raise Unfit(breach)
    _check_identity(trial_folder, result)
    if design is not None:
        _check_planned(result, design, planned)
    _check_evidence(trial_folder, result["trial"]["id"])
    if all(sample["warmup"] for sample in result["samples"]):
        raise Unfit("has no measured sample, only warm-ups")
    for index, sample in enumerate(result["samples"]):
        if sample["e2e_ns"] <= 0:
            raise Unfit(f"sample {index} took {sample['e2e_ns']} ns, which no clock can show")
    return result


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


def _check_planned(result: Json, design: Design, planned: dict[str, Json]) -> None:
    """Raise `Unfit` unless the result is as design.json plans it."""
    trial = result["trial"]
    if trial["plan_digest"] != design.plan_digest:
        raise Unfit(
            f"belongs to another plan: {trial['plan_digest']}, design.json has {design.plan_digest}"
        )
    if trial["id"] not in planned:
        raise Unfit("is not among the trials that design.json plans")
    wanted = planned[trial["id"]]
    for key, value in {**trial, **result["settings"]}.items():
        if value != wanted.get(key, value):
            raise Unfit(f"has {key} {value!r}, design.json plans it with {wanted[key]!r}")


def _check_evidence(trial_folder: Path, trial_id: str) -> None:
    """Raise `Unfit` unless the placement of the trial was attested."""
    evidence = _read(trial_folder / "evidence.json", identifiers.EVIDENCE)
    if evidence.get("trial") != trial_id:
        raise Unfit(f"evidence.json is of trial {evidence.get('trial')}")
    if evidence.get("attested") is not True:
        mismatches = "; ".join(map(str, evidence.get("mismatches") or ["no mismatch named"]))
        raise Unfit(f"its placement was not attested: {mismatches}")
