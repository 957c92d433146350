"""State of a sweep's folder when a call begins: which results are valid, which are repeated.

A trial that the ledger marks as done is done if its files have the digests that were written then,
and the report would accept them. A result that the ledger does not know (the call was killed before
it was marked, or the ledger is lost) is adopted if it is a valid result of this trial. Any other
result is reported, moved to ``aside/ID-N``, and its trial repeated. So no file is overwritten or
lost.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from virtbed import records
from virtbed.ledger import Digests, Ledger, check_identity, check_trials
from virtbed.records import RecordError
from virtbed.sweep.admission import placement_words
from virtbed.sweep.interruption import SweepError
from virtbed.trial import Trial
from virtbed_contract import json_file
from virtbed_contract.codec import DocumentError, decode, encode
from virtbed_contract.identifiers import DESIGN, FAILURE, RESULT
from virtbed_contract.objections import Planned
from virtbed_contract.sweep import Design, Evidence, HostReport

ASIDE = "aside"
"""The folder in a sweep's folder for files that were replaced."""
# The fields of an instance that state its placement: one sweep has one placement per size.
_PLACEMENT = ("cpus", "mems", "housekeeping", "allowed")
Json = Mapping[str, Any]


class BadResultError(ValueError):
    """A trial's files are no valid result of it; the message states what is found and needed."""


@dataclass(frozen=True)
class Standing:
    """The results of a sweep's folder, compared with its ledger.

    Attributes:
        folder: The sweep's folder.
        design: Its design, as this call lays it out.
        hosts: The hosts that may have results here, by name: the trials by id, as placed on that
            host; None for a host that is not available, whose placement is unknown.
        say: Prints a line.
        bound: The host of each replicate, as far as known, by number: all of the replicate's
            trials run there. Adopted results add to it.
    """

    folder: Path
    design: Design
    hosts: Mapping[str, Mapping[str, Trial] | None]
    say: Callable[[str], None]
    bound: dict[int, str] = field(default_factory=dict)

    @cached_property
    def _planned(self) -> Planned:
        return Planned.of(self.design)

    def settle(
        self, trials: tuple[Trial, ...], ledger: Ledger, cut_off: Collection[str] = ()
    ) -> list[Trial]:
        """Bring the ledger up to date with the files; return the trials that are missing.

        Args:
            trials: Every trial of the sweep.
            ledger: Its ledger.
            cut_off: Ids of the trials that were running when an earlier call was killed.

        Raises:
            OSError: The files of a trial that is repeated cannot be moved.
        """
        done, known = ledger.done(), ledger.digests()
        missing = []
        for trial in trials:
            folder = self.folder / "trials" / trial.id
            if trial.id not in done and not os.path.lexists(folder / "result.json"):
                ledger.at_least(trial.id, self._attempts_of(trial.id))
                missing.append(trial)
                continue
            try:
                self._check(folder, trial, known.get(trial.id), ledger, trial.id in cut_off)
            except BadResultError as error:
                self._repeat(folder, trial, ledger, str(error))
                missing.append(trial)
        return missing

    def _check(
        self, folder: Path, trial: Trial, known: Digests | None, ledger: Ledger, cut_off: bool
    ) -> None:
        """Check a trial's files against the ledger's digests, or adopt them if it has none.

        Raises:
            BadResultError: The files are no valid result, were changed, or the report would leave
                them out.
        """
        try:
            if known is not None:
                unchanged(folder, known)
                trusted(*read_result(folder), self._planned)
                return
        except BadResultError:
            # If the trial was running, this may be a newer result that was not marked before the
            # kill.
            if not cut_off:
                raise
        self._adopt(folder, trial, ledger)

    def _adopt(self, folder: Path, trial: Trial, ledger: Ledger) -> None:
        """Enter a valid result into the ledger, which does not know it.

        Raises:
            BadResultError: The files are no valid result.
        """
        result = self._good(folder, trial)
        self.bound[trial.replicate] = result["trial"]["host"]
        attempts = max(result["trial"]["attempt"], _earlier(self.folder, trial.id))
        ledger.forget(trial.id)
        ledger.at_least(trial.id, attempts)
        try:
            ledger.close(trial.id, "done", None, digests=records.digests(folder))
        except OSError as error:
            raise BadResultError(f"{error}") from error
        self.say(f"{trial.id}: its result is valid and was not in the ledger: it is kept")

    def _attempts_of(self, trial: str) -> int:
        """Return the number of attempts at a trial, from its files and its earlier results."""
        return max(_attempts(self.folder / "trials" / trial, trial), _earlier(self.folder, trial))

    def _good(self, folder: Path, trial: Trial) -> Json:
        """Return the result in a trial's folder if it is valid.

        Raises:
            BadResultError: Result or evidence is damaged, or belongs to another trial, plan,
                image, host or placement; or the report would leave it out.
        """
        result, proof = read_result(folder)
        host = self._host_of(result["trial"], trial)
        for name, found, needed in _labels(result["trial"], self.design, host, trial):
            if found != needed:
                raise BadResultError(f"result.json: {name} {found!r} found, {needed!r} needed")
        placed = (self.hosts.get(host) or {}).get(trial.id)
        for name in _PLACEMENT:
            found = getattr(proof.asked, name)
            needed = getattr(placed.instance, name) if placed else found
            if found != needed:
                raise BadResultError(f"evidence.json: {name} {found!r} found, {needed!r} needed")
        trusted(result, proof, self._planned)
        return result

    def _host_of(self, labels: Json, trial: Trial) -> str:
        """Return the host that a result must name: its own if its replicate may run there."""
        named = labels.get("host")
        bound = self.bound.get(trial.replicate)
        possible = [bound] if bound else list(self.hosts)
        return str(named) if named in possible else " or ".join(possible)

    def _repeat(self, folder: Path, trial: Trial, ledger: Ledger, why: str) -> None:
        """Move a trial's files aside, mark it as missing, and report why."""
        place = put_aside(self.folder, folder, trial.id, ledger, self._attempts_of(trial.id))
        kept = f"; its files are kept in {place.relative_to(self.folder)}" if place else ""
        self.say(f"{trial.id} is repeated: {why}{kept}")


def read_result(folder: Path) -> tuple[Json, Evidence]:
    """Read result and evidence of a trial, and check them against their schemas.

    Raises:
        BadResultError: One is damaged or missing.
    """
    try:
        result = json_file.read(folder / "result.json")
        if result.get("schema") != RESULT:
            raise BadResultError(f"schema {result.get('schema')!r} found, {RESULT} needed")
        records.check_result(result)
        return result, decode(Evidence, json_file.read(folder / "evidence.json"), "evidence.json")
    except (DocumentError, RecordError) as error:
        raise BadResultError(str(error)) from error


def trusted(result: Json, proof: Evidence, planned: Planned) -> None:
    """Raise BadResultError if the report would leave a result out."""
    try:
        records.check_trust(result, proof, planned)
    except RecordError as error:
        raise BadResultError(str(error)) from error


def put_aside(
    sweep: Path, left: Path, trial: str, ledger: Ledger, attempts: int = 0
) -> Path | None:
    """Move a trial's files aside, and mark the trial in the ledger as missing.

    Args:
        sweep: The sweep's folder.
        left: The trial's folder, which need not exist.
        trial: Its id.
        ledger: The sweep's ledger.
        attempts: The least number of attempts that have started.

    Returns:
        The new place of the folder; None if there was none.
    """
    exists, number = os.path.lexists(left), 1
    while os.path.lexists(to := sweep / ASIDE / f"{trial}-{number}"):
        number += 1
    if exists:
        to.parent.mkdir(exist_ok=True)
        left.rename(to)
    ledger.forget(trial)
    ledger.at_least(trial, attempts)
    return to if exists else None


_OF_DESIGN = ("plan", "image variant", "image", "accelerator", "placement")


def check_folder(folder: Path, identity: Mapping[str, str], expected: Design) -> None:
    """Check, without a ledger, that a folder belongs to this sweep.

    The folder's identity is read from its design and the host's report or, without a design, from
    its results.

    Args:
        folder: The folder, which may be new.
        identity: The identity of this sweep, label and value.
        expected: The design of this sweep.

    Raises:
        LedgerError: It belongs to another sweep, or has more replicates.
        SweepError: It has results, and no file states to which sweep they belong.
    """
    design = _document(folder / "design.json", DESIGN)
    doctor = _document(folder / "doctor.json", "")
    known: dict[str, str] = {}
    if design is not None:
        known = {
            "plan": str(design.get("plan_digest")),
            "image": str(design.get("image_digest")),
            "accelerator": str(design.get("accelerator")),
            "placement": _placed(design),
            "image variant": str(design.get("image")),
        }
        planned = design.get("trials")
        rows = planned if isinstance(planned, list) else []
        ids = {str(row.get("id")) for row in rows if isinstance(row, dict)}
        check_trials(folder, ids, {trial.id for trial in expected.trials})
    if doctor is not None:
        known |= _of_host(doctor, identity)
    if design is None:
        known |= _of_results(folder)
    check_identity(folder, {**identity, **known}, identity)
    if design is None and not known and any(_results(folder)):
        raise SweepError(
            f"{folder} has results, but no ledger, design.json or readable result, one of which is "
            "needed to identify the sweep that they belong to; move that folder away"
        )


def _placed(design: Json) -> str:
    """Return the placement part of a sweep's identity from the content of design.json."""
    try:
        return placement_words(design["placements"])
    except (KeyError, TypeError):
        return "unknown"


def _of_host(doctor: Json, identity: Mapping[str, str]) -> dict[str, str]:
    """Return the parts of a sweep's identity that a host's report states; empty if damaged."""
    try:
        report = decode(HostReport, doctor)
        facts = report.facts
        labels = {
            "host": report.host,
            "kernel": str(facts["kernel"]),
            "cpus": ",".join(map(str, facts["cpu"]["allowed"])),
        }
        engines = facts["engines"]
        others = identity.keys() - {*_OF_DESIGN, *labels}
        return labels | {name: str(engines[name]["version"]) for name in others}
    except (DocumentError, KeyError, TypeError):
        return {}


def _of_results(folder: Path) -> dict[str, str]:
    """Return the parts of a sweep's identity that all readable results agree on."""
    labels = set()
    for path in _results(folder):
        try:
            trial = json_file.read(path)["trial"]
            labels.add((trial["plan_digest"], trial["image_digest"], trial["host"]))
        except (DocumentError, KeyError, TypeError):
            continue
    if len(labels) != 1:  # differing ones are compared later, each with its own trial
        return {}
    return dict(zip(("plan", "image", "host"), map(str, labels.pop()), strict=True))


def _results(folder: Path) -> Iterator[Path]:
    yield from sorted((folder / "trials").glob("*/result.json"))


def _document(path: Path, schema: str) -> Json | None:
    """Return a JSON document, if it can be read and has the schema (if one is given)."""
    try:
        found = json_file.read(path)
    except DocumentError:
        return None
    return found if not schema or found.get("schema") == schema else None


def unchanged(folder: Path, known: Digests) -> None:
    """Raise BadResultError unless a trial's files have the digests that the ledger knows."""
    try:
        found = records.digests(folder)
    except FileNotFoundError as error:
        raise BadResultError(f"no {Path(str(error.filename)).name} found") from error
    except OSError as error:
        name = Path(str(error.filename)).name if error.filename else "a file of the trial"
        raise BadResultError(f"{name} cannot be read: {error.strerror}") from error
    for name in ("result", "evidence"):
        written, current = getattr(known, name), getattr(found, name)
        if written != current:
            raise BadResultError(
                f"{name}.json was changed after it was written: SHA-256 {current[:12]} found, "
                f"{written[:12]} needed"
            )


def _labels(
    found: Json, design: Design, host: str, trial: Trial
) -> Iterator[tuple[str, object, object]]:
    """Yield name, found value and needed value of each label of a result."""
    labels = {
        "id": trial.id,
        "sweep": design.sweep,
        "plan_digest": design.plan_digest,
        "image_digest": design.image_digest,
        "host": host,
        "accelerator": trial.instance.accelerator,
        "memory_mib": trial.instance.memory_mib,
        **encode(trial.planned()),
    }
    for name, needed in labels.items():
        if name in found:
            yield name, found[name], needed


def _attempts(folder: Path, trial: str) -> int:
    """Return the number of attempts at a trial that its failure and result state."""
    failed = 0
    failure = _document(folder / "failure.json", FAILURE)
    if failure is not None and failure.get("id") == trial:
        failed = _number(failure.get("attempt"))
    result = _document(folder / "result.json", RESULT)
    labels = result.get("trial") if result is not None else None
    return max(failed, _number(labels.get("attempt")) if isinstance(labels, dict) else 0)


def _earlier(sweep: Path, trial: str) -> int:
    """Return the last attempt at a trial with a result in earlier/; 0 if there is none."""
    names = (path.parent.name for path in sweep.glob(f"earlier/*/{trial}"))
    return max((int(n) for n in names if n.isascii() and n.isdigit() and len(n) < 10), default=0)


def _number(value: object) -> int:
    """Return a number of attempts that was read from JSON; 0 if it is no plausible one."""
    return value if type(value) is int and 0 <= value < 2**31 else 0
