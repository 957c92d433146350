"""Reading a results folder for a merge: its identity, and which of its results are valid."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from virtbed import ledger_view, records
from virtbed.ledger import NAME, Digests, LedgerError
from virtbed.platforms import Platforms
from virtbed.sweep.admission import placement_words
from virtbed.sweep.judging import Judge
from virtbed.sweep.recording import DOCTOR
from virtbed.sweep.several import REPORTS
from virtbed.sweep.standing import BadResultError
from virtbed_contract import json_file
from virtbed_contract.codec import DocumentError, decode, encode
from virtbed_contract.identifiers import DESIGN, HOST_REPORT
from virtbed_contract.sweep import Design, Failure, HostReport, PlannedPlacement

_Document = TypeVar("_Document")


class MergeError(RuntimeError):
    """Folders that cannot be joined; the message has a line per reason. Nothing was written."""


@dataclass(frozen=True)
class Measured:
    """A valid result: its trial's folder, the host, the number of the attempt, the digests."""

    folder: Path
    host: str
    attempt: int
    digests: Digests


@dataclass(frozen=True)
class Source:
    """The content of a results folder.

    Attributes:
        folder: The folder.
        design: Its design.
        reports: The reports of its hosts, by the host's name.
        results: Its valid results, by the trial's id.
        failures: The failures of trials without a result, by the trial's id.
        earlier: The results in earlier/, by (trial, attempt).
        bad: The reason for each trial's folder without a valid result, by the trial's id.
        holder: The process that carries the sweep out, in words; empty if none does.
    """

    folder: Path
    design: Design
    reports: Mapping[str, HostReport]
    results: Mapping[str, Measured]
    failures: Mapping[str, Failure]
    earlier: Mapping[tuple[str, int], Measured]
    bad: Mapping[str, str]
    holder: str = ""

    def put_aside(self, trial: str, digests: Digests) -> bool:
        """Return whether a result is among this folder's earlier ones, which were replaced."""
        return any(
            own == trial and one.digests == digests for (own, _), one in self.earlier.items()
        )


def not_started(folder: Path) -> bool:
    """Return whether a folder is one of a task that has not admitted its host, or died before."""
    return (
        folder.is_dir()
        and not os.path.lexists(folder / "design.json")
        and next(folder.glob("trials/*/result.json"), None) is None
    )


def read_source(folder: Path) -> Source:
    """Read a results folder.

    Raises:
        MergeError: It is no results folder, or its design or a host's report cannot be read.
    """
    source = _read(folder)
    # A sweep may have changed a trial between the reading of its ledger and of its files.
    return _read(folder) if source.bad and source.holder else source


def _read(folder: Path) -> Source:
    design = _document(folder / "design.json", Design, DESIGN)
    if len({row.id for row in design.trials}) < len(design.trials):
        raise MergeError(f"{folder}/design.json: it lists a trial twice, each trial once is needed")
    plan = folder / "plan.yml"
    if os.path.lexists(plan) and (plan.is_symlink() or not plan.is_file()):
        raise MergeError(
            f"{plan}: it is no regular file; replace it by the plan itself, or move it away"
        )
    reports = dict(_reports(folder))
    results: dict[str, Measured] = {}
    failures: dict[str, Failure] = {}
    bad: dict[str, str] = {}
    judge = Judge(folder, design, reports.keys())
    for path in sorted((folder / "trials").glob("*")):
        try:
            if path.is_symlink() or os.path.lexists(path / "result.json"):
                trial, found = judge.check(path)
                results[path.name] = Measured(path, trial["host"], trial["attempt"], found)
            elif (path / "failure.json").exists():
                failures[path.name] = judge.failure(path)
        except BadResultError as error:
            bad[path.name] = str(error)
    for name in judge.known.keys() - results.keys() - bad.keys():
        bad[name] = "no result.json found, one needed: the folder's ledger marks the trial as done"
    earlier = dict(_earlier(folder))
    return Source(folder, design, reports, results, failures, earlier, bad, _holder(folder))


def identity(design: Design, report: HostReport, platforms: Platforms) -> dict[str, str]:
    """Return what must be alike in joined folders, label and value, except the host's name.

    The labels are those of `virtbed.sweep.admission.identity` and the CPU's model, without those
    of a GPU, since no plan can use one yet.

    Raises:
        MergeError: The report lacks one of these facts.
    """
    names = [entry.name for entry in design.platforms if entry.name in platforms.entries]
    roles = {role for name in names for role in platforms.host_roles(name)}
    engines = sorted({engine for role in roles for engine in platforms.roles[role].engines})
    facts = report.facts
    try:
        return {
            "plan": design.plan_digest,
            "image variant": design.image,
            "image": design.image_digest,
            "accelerator": str(design.accelerator),
            "kernel": str(facts["kernel"]),
            "cpus": ",".join(map(str, facts["cpu"]["allowed"])),
            "placement": placement_words(encode(size) for size in placements(design, report.host)),
            "CPU model": str(facts["cpu"].get("model")),
            **{engine: str(facts["engines"][engine]["version"]) for engine in engines},
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise MergeError(
            f"the report of the host {report.host} lacks a fact that is needed: {error!r}"
        ) from error


def placements(design: Design, host: str) -> tuple[PlannedPlacement, ...]:
    """Return where pinned instances run on a host of a design."""
    return {one.host: one.placements for one in design.hosts}.get(host, design.placements)


def _reports(folder: Path) -> Iterator[tuple[str, HostReport]]:
    """Yield name and report of each host of a folder."""
    several = sorted((folder / REPORTS).glob("*.json"))
    one = folder / DOCTOR  # a killed merge may leave it next to the reports of several hosts
    for path in [one, *several] if one.exists() or not several else several:
        report = _document(path, HostReport, HOST_REPORT)
        yield report.host, report


def _document(path: Path, kind: type[_Document], schema: str) -> _Document:
    """Read a document of a results folder; raise MergeError if it is no valid one."""
    try:
        found = json_file.read(path)
        if found.get("schema") != schema:
            raise DocumentError(f"schema {found.get('schema')!r} found, {schema} needed")
        return decode(kind, found, path.name)
    except DocumentError as error:
        raise MergeError(
            f"{path.parent}: {error}; the results folder of a sweep that was started is needed"
        ) from error


def _holder(folder: Path) -> str:
    """Return the process that carries a folder's sweep out, in words; empty if none does."""
    try:
        return str(ledger_view.look(folder / NAME).holder or "") if (folder / NAME).exists() else ""
    except LedgerError:
        return ""


def _earlier(folder: Path) -> Iterator[tuple[tuple[str, int], Measured]]:
    """Yield (trial, attempt) and the result for each readable result in earlier/."""
    for path in sorted(folder.glob("earlier/*/*")):
        if path.is_symlink() or not path.parent.name.isdecimal():
            continue
        try:
            attempt = int(path.parent.name)
            host = json_file.read(path / "result.json")["trial"]["host"]
            yield (path.name, attempt), Measured(path, host, attempt, records.digests(path))
        except (OSError, DocumentError, KeyError, TypeError):
            # Incomplete: the move to earlier/ was interrupted, and the result is still in trials/.
            continue
