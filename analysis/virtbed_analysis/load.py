"""Knows which files of a results folder can be trusted, and how they become one tidy frame."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import polars as pl
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from virtbed_analysis import columns
from virtbed_analysis.errors import AnalysisError
from virtbed_analysis.files import write_whole
from virtbed_analysis.suspicion import suspicions
from virtbed_workloads.schema import result_schema

log = logging.getLogger(__name__)

Json = dict[str, Any]

RESULT_SCHEMA = "virtbed.result/3"
EVIDENCE_SCHEMA = "virtbed.evidence/1"
DESIGN_SCHEMA = "virtbed.design/3"
DOCTOR_SCHEMA = "virtbed.doctor/1"
FAILURE_SCHEMA = "virtbed.failure/1"

TRIAL_COLUMNS = columns.types(columns.TRIAL)
SAMPLE_COLUMNS = columns.types(columns.SAMPLE)


@dataclass(frozen=True)
class Rejected:
    """A file that was left out: its path below the sweep's folder, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class Sweep:
    """A results folder as read.

    `trials` has one row a trial (`TRIAL_COLUMNS`), `samples` one row a sample (`SAMPLE_COLUMNS`
    and every trial column). `failures` maps a trial's id to its failure.json.
    """

    name: str
    trials: pl.DataFrame
    samples: pl.DataFrame
    design: Json | None
    doctor: Json | None
    failures: dict[str, Json]
    rejected: list[Rejected]


class _Unfit(Exception):
    """Why one file is left out; never leaves this module."""


def load(path: Path | str, *more: Path | str) -> pl.DataFrame:
    """Return the samples of one results folder or several, one row each with its trial's columns.

    Times are integer nanoseconds. Warm-up samples are there, flagged by `warmup`. Each file left
    out is logged. Folders may be of other hosts, or shards of one sweep; see `columns` for what
    each column holds.

    Raises:
        AnalysisError: a folder does not exist, a trial is there twice, or results are of unlike
            images or versions of an application.
    """
    sweeps = [(one, read_sweep(Path(one))) for one in (path, *more)]
    for folder, sweep in sweeps:
        for rejected in sweep.rejected:
            log.warning("%s/%s left out: %s", folder, rejected.file, rejected.reason)
    trials = pl.concat([sweep.trials for _, sweep in sweeps])
    _refuse_unlike(", ".join(str(folder) for folder, _ in sweeps), trials)
    twice = trials.group_by("host", "plan_digest", "trial").len().filter(pl.col("len") > 1)
    if twice.height:
        host, _, trial, times = twice.sort("host", "trial").row(0)
        raise AnalysisError(
            f"trial {trial} of host {host} is in {times} of the folders: it would count {times} "
            "times; give each folder once, or leave one of the copies out"
        )
    return pl.concat([sweep.samples for _, sweep in sweeps])


def write_parquet(samples: pl.DataFrame, file: Path) -> None:
    """Write what `load` gives as Parquet; its metadata says what each column holds."""
    about = {"schema": columns.SAMPLES_SCHEMA, "columns": json.dumps(columns.described())}
    write_whole(file, lambda path: samples.write_parquet(path, metadata=about))


def read_sweep(folder: Path) -> Sweep:
    """Read a whole results folder, complete or partial.

    Raises:
        AnalysisError: the folder does not exist, or its results come from different images.
    """
    if not folder.is_dir():
        raise AnalysisError(
            f"{folder}: no such results folder; `virtbed sweep` makes one for each plan"
        )
    rejected: list[Rejected] = []
    design = _optional(folder, "design.json", DESIGN_SCHEMA, rejected)
    doctor = _optional(folder, "doctor.json", DOCTOR_SCHEMA, rejected)
    results: dict[str, Json] = {}
    failures: dict[str, Json] = {}
    for trial_folder in _trial_folders(folder):
        name = f"trials/{trial_folder.name}"
        if (trial_folder / "result.json").exists():
            try:
                results[trial_folder.name] = _result(trial_folder, design)
            except _Unfit as reason:
                rejected.append(Rejected(f"{name}/result.json", str(reason)))
        elif (trial_folder / "failure.json").exists():
            failure = _optional(folder, f"{name}/failure.json", FAILURE_SCHEMA, rejected)
            if failure is not None:
                failures[trial_folder.name] = failure
    trials = pl.DataFrame([_trial_row(r) for r in results.values()], schema=TRIAL_COLUMNS)
    _refuse_unlike(str(folder), trials)
    rows = [row for result in results.values() for row in _sample_rows(result)]
    samples = pl.DataFrame(rows, schema=SAMPLE_COLUMNS).join(trials, on="trial", how="left")
    name = str(design["sweep"]) if design and "sweep" in design else folder.resolve().name
    return Sweep(name, trials, samples, design, doctor, failures, rejected)


def _trial_folders(folder: Path) -> list[Path]:
    trials = folder / "trials"
    return sorted(p for p in trials.iterdir() if p.is_dir()) if trials.is_dir() else []


def _read(path: Path, schema: str) -> Json:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _Unfit(f"no {path.name} beside it") from None
    except OSError as error:
        raise _Unfit(f"{path.name} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise _Unfit(f"{path.name} is not UTF-8 text: byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise _Unfit(
            f"{path.name} is not JSON, cut short perhaps: "
            f"{error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    found = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(document, dict) or found != schema:
        raise _Unfit(f"{path.name} has schema {found!r}, this version reads {schema!r}")
    return document


def _optional(folder: Path, name: str, schema: str, rejected: list[Rejected]) -> Json | None:
    path = folder / name
    if not path.exists():
        return None
    try:
        return _read(path, schema)
    except _Unfit as reason:
        rejected.append(Rejected(name, str(reason)))
        return None


@cache
def _fast() -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(result_schema())


def _breach(result: Json) -> str | None:
    """Return where a result breaks its schema, in words; None if it does not.

    One implementation is fast, the other chooses and words the error best.
    """
    if _fast().is_valid(result):
        return None
    error = best_match(Draft202012Validator(result_schema()).iter_errors(result))
    if error is None:
        return "breaks the schema"
    return f"breaks the schema at {error.json_path}: {error.message}"


def _result(trial_folder: Path, design: Json | None) -> Json:
    """Return a trial's result, or raise `_Unfit` with the first reason against it."""
    result = _read(trial_folder / "result.json", RESULT_SCHEMA)
    if breach := _breach(result):
        raise _Unfit(breach)
    _check_identity(trial_folder, result, design)
    _check_evidence(trial_folder, result["trial"]["id"])
    if all(sample["warmup"] for sample in result["samples"]):
        raise _Unfit("has no measured sample, only warm-ups")
    for index, sample in enumerate(result["samples"]):
        if sample["e2e_ns"] <= 0:
            raise _Unfit(f"sample {index} took {sample['e2e_ns']} ns, which no clock can show")
    return result


def _check_identity(trial_folder: Path, result: Json, design: Json | None) -> None:
    """Raise `_Unfit` unless the result is the planned trial that its folder is named for."""
    trial = result["trial"]
    found = trial["id"]
    if found != trial_folder.name:
        if (trial_folder.parent / found / "result.json").exists():
            raise _Unfit(f"a duplicate: it is trial {found}, which trials/{found} holds")
        raise _Unfit(f"is trial {found}, not the trial its folder is named for")
    # Between these an id may name scale, scenario and threads, where the plan has several.
    variant = "" if trial["variant"] == "plain" else f"-{trial['variant']}"
    size = f"{trial['platform']}-{trial['mode']}-c{trial['cores']:02d}{variant}"
    first = f"{size}-{trial['application']}-"
    last = f"-r{trial['replicate']:02d}"
    if not f"{found}-".startswith(first) or not found.endswith(last):
        raise _Unfit(f"its id says {found}, its trial fields say {first.rstrip('-')}{last}")
    if design is None:
        return
    if trial["plan_digest"] != design.get("plan_digest"):
        raise _Unfit(
            f"belongs to another plan: {trial['plan_digest']}, "
            f"design.json has {design.get('plan_digest')}"
        )
    planned = {entry["id"]: entry for entry in design.get("trials", [])}
    if found not in planned:
        raise _Unfit("is not among the trials that design.json plans")
    for key, value in {**trial, **result["settings"]}.items():
        wanted = planned[found].get(key, value)
        if value != wanted:
            raise _Unfit(f"has {key} {value!r}, design.json plans it with {wanted!r}")


def _check_evidence(trial_folder: Path, trial_id: str) -> None:
    """Raise `_Unfit` unless the placement of the trial was attested."""
    evidence = _read(trial_folder / "evidence.json", EVIDENCE_SCHEMA)
    if evidence.get("trial") != trial_id:
        raise _Unfit(f"evidence.json is of trial {evidence.get('trial')}")
    if evidence.get("attested") is not True:
        mismatches = "; ".join(map(str, evidence.get("mismatches") or ["no mismatch named"]))
        raise _Unfit(f"its placement was not attested: {mismatches}")


def _refuse_unlike(where: str, trials: pl.DataFrame) -> None:
    """Raise `AnalysisError` where a difference of the software would be read as a platform's."""
    kinds = {
        "images": (["image_digest"], pl.lit("")),
        "versions of one application": (
            ["application", "application_version"],
            pl.col("application"),
        ),
    }
    for what, (which, within) in kinds.items():
        found = trials.group_by(which).agg(pl.len().alias("n"), pl.col("trial").min().alias("one"))
        several = found.filter(pl.len().over(within) > 1).sort(which)
        if several.height:
            told = ", ".join(
                f"{' '.join(row[name] for name in which)} ({row['n']} trials, first {row['one']})"
                for row in several.to_dicts()
            )
            raise AnalysisError(
                f"{where}: results of {several.height} {what} are not pooled, since a difference "
                f"between them would be read as one between platforms: {told}. Move the trials "
                "of all but one out of the folder, or sweep again under another name"
            )


_SETTINGS = ("scenario", "rules", "thread_policy", "slowdown")


def _trial_row(result: Json) -> Json:
    trial, environment, frameworks = (
        result["trial"],
        result["environment"],
        result["application"]["frameworks"],
    )
    return {
        **{column: trial.get(column) for column in TRIAL_COLUMNS},
        "trial": trial["id"],
        # Either mark is enough: an emulated figure taken for a real one does the greater harm.
        "emulated": trial["emulated"] or trial["accelerator"] == "tcg",
        "application_version": str(result["application"]["version"]),
        "model": result["application"]["model"],
        "weights": result["application"]["weights"],
        "tensorflow": frameworks.get("tensorflow"),
        "keras": frameworks.get("keras"),
        "python": environment["python"],
        "kernel": environment["kernel"],
        "onednn_isa": environment["onednn_isa"],
        **{key: result["settings"][key] for key in _SETTINGS},
        "loadgen_validity": result["loadgen"]["validity"],
        "answers_digest": result["answers"]["digest"],
        "peak_memory_kib": result["memory_kib"]["peak"],
        "input_seed": result["settings"]["seed"],
        **result["startup"],
        "warnings": result["warnings"],
        "suspicions": suspicions(result),
    }


def _sample_rows(result: Json) -> Iterator[Json]:
    for index, sample in enumerate(result["samples"]):
        yield {"trial": result["trial"]["id"], "sample": index, **sample}
