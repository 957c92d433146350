"""What stands in a sweep's folder when a call begins: what is good, and what is to be repeated.

A trial that the ledger calls done is done if its files are, to the byte, what was written then. A
result that the ledger does not know of (the call was killed before it was marked, or the ledger is
lost) is taken if it is a good one of this very trial. Everything else is said, moved to
``aside/ID-N`` and repeated: nothing is overwritten, and nothing is lost.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from virtbed import records
from virtbed.ledger import Digests, Ledger, check_identity, check_trials
from virtbed.records import RecordError
from virtbed.sweep.admission import where
from virtbed.sweep.interruption import SweepError
from virtbed.trial import Trial
from virtbed_contract import json_file
from virtbed_contract.codec import DocumentError, decode, encode
from virtbed_contract.identifiers import DESIGN, FAILURE, RESULT
from virtbed_contract.sweep import Design, Evidence, HostReport

ASIDE = "aside"
# What tells of an instance where it was: one sweep has one placement per size.
_WHERE = ("cpus", "mems", "housekeeping", "allowed")
Json = Mapping[str, Any]


class BadResultError(ValueError):
    """What a trial left is not its result; the message says what was found and what is needed."""


@dataclass(frozen=True)
class Standing:
    """The results of a sweep's folder, compared with its ledger.

    Attributes:
        folder: The sweep's folder.
        design: Its design, as this call lays it out.
        hosts: By the name of each bench host that it may have results of: its trials by their ids,
            as they are placed there; None of one that is not there, whose placement is not known.
        say: Prints a line.
        bound: The host of each replicate, as far as known: all of its trials run there. What is
            found is added.
    """

    folder: Path
    design: Design
    hosts: Mapping[str, Mapping[str, Trial] | None]
    say: Callable[[str], None]
    bound: dict[int, str] = field(default_factory=dict)

    @cached_property
    def _planned(self) -> dict[str, Any]:
        return {row.id: encode(row) for row in self.design.trials}

    def settle(
        self, trials: tuple[Trial, ...], ledger: Ledger, cut_off: Collection[str] = ()
    ) -> list[Trial]:
        """Bring the ledger up to date with the files; return the trials that are missing.

        Args:
            trials: Every trial of the sweep.
            ledger: Its ledger.
            cut_off: Ids of those that were being carried out when a call was killed.

        Raises:
            OSError: what is to be repeated cannot be moved aside.
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
        try:
            if known is not None:
                unchanged(folder, known)
                return
        except BadResultError:
            if not cut_off:  # else it may be a new one, and the kill preceded the mark
                raise
        self._adopt(folder, trial, ledger)

    def _adopt(self, folder: Path, trial: Trial, ledger: Ledger) -> None:
        """Take a good result that the ledger does not know of.

        Raises:
            BadResultError: it is none.
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
        self.say(f"{trial.id}: its result is whole, and the ledger did not know of it: it stays")

    def _attempts_of(self, trial: str) -> int:
        """Return how many attempts at a trial its files, and results put aside, tell of."""
        return max(_attempts(self.folder / "trials" / trial, trial), _earlier(self.folder, trial))

    def _good(self, folder: Path, trial: Trial) -> Json:
        """Return the result of a trial's folder.

        Raises:
            BadResultError: it is torn, or of another trial, plan, image, host or place, or its
                evidence is; or, with virtbed-analysis installed, the report would leave it out.
        """
        try:
            result = json_file.read(folder / "result.json")
            if result.get("schema") != RESULT:
                raise BadResultError(f"schema {result.get('schema')!r} found, {RESULT} needed")
            records.check_result(result)
            proof = decode(Evidence, json_file.read(folder / "evidence.json"), "evidence.json")
        except (DocumentError, RecordError) as error:
            raise BadResultError(str(error)) from error
        host = self._host_of(result["trial"], trial)
        for name, found, needed in _labels(result["trial"], self.design, host, trial):
            if found != needed:
                raise BadResultError(f"result.json: {name} {found!r} found, {needed!r} needed")
        if (proof.trial, proof.attested) != (trial.id, True):
            said = "attested" if proof.attested else "not attested"
            raise BadResultError(
                f"evidence.json: of trial {proof.trial}, {said}, found; attested and of {trial.id} "
                "needed"
            )
        placed = (self.hosts.get(host) or {}).get(trial.id)
        for name in _WHERE:
            found = getattr(proof.asked, name)
            needed = getattr(placed.instance, name) if placed else found
            if found != needed:
                raise BadResultError(f"evidence.json: {name} {found!r} found, {needed!r} needed")
        self.reported(folder)
        return result

    def _host_of(self, found: Json, trial: Trial) -> str:
        """Return the host that a result must be of: any that its replicate may be of."""
        named = found.get("host")
        others = self.bound.get(trial.replicate)
        possible = [others] if others else list(self.hosts)
        return str(named) if named in possible else " or ".join(possible)

    def reported(self, folder: Path) -> None:
        """Raise BadResultError if the report would leave out the result of a trial's folder."""
        if not find_spec("virtbed_analysis"):
            return
        from virtbed_analysis.checking import checked
        from virtbed_analysis.reading import Unfit

        try:
            checked(folder, self.design, self._planned)
        except Unfit as error:
            raise BadResultError(f"result.json {error}") from error

    def _repeat(self, folder: Path, trial: Trial, ledger: Ledger, why: str) -> None:
        """Move what a trial left aside, and have it done again."""
        kept = put_aside(self.folder, folder, trial.id, ledger, self._attempts_of(trial.id))
        there = f"; what is there is kept in {kept.relative_to(self.folder)}" if kept else ""
        self.say(f"{trial.id} is repeated: {why}{there}")


def put_aside(
    sweep: Path, left: Path, trial: str, ledger: Ledger, attempts: int = 0
) -> Path | None:
    """Move what a trial left aside, and mark it to be done.

    Args:
        sweep: The sweep's folder.
        left: What the trial left, if it is there.
        trial: Its id.
        ledger: The sweep's ledger.
        attempts: How many attempts at it, or more, have started.

    Returns:
        Where it lies now; None if there was nothing.
    """
    there, number = os.path.lexists(left), 1
    while os.path.lexists(to := sweep / ASIDE / f"{trial}-{number}"):
        number += 1
    if there:
        to.parent.mkdir(exist_ok=True)
        left.rename(to)
    ledger.forget(trial)
    ledger.at_least(trial, attempts)
    return to if there else None


_OF_DESIGN = ("plan", "image variant", "image", "accelerator", "placement")


def recognized(folder: Path, identity: Mapping[str, str], expected: Design) -> None:
    """Check, without a ledger, that a folder is of the sweep that is asked for.

    Its design and the host's report say so; without these, its results.

    Raises:
        LedgerError: it is of another sweep, or of one of more replicates.
        SweepError: it has results, and nothing tells of which sweep they are.
    """
    design = _document(folder / "design.json", DESIGN)
    doctor = _document(folder / "doctor.json", "")
    there: dict[str, str] = {}
    if design is not None:
        there = {
            "plan": str(design.get("plan_digest")),
            "image": str(design.get("image_digest")),
            "accelerator": str(design.get("accelerator")),
            "placement": _placed(design),
            "image variant": str(design.get("image")),
        }
        found = design.get("trials")
        rows = found if isinstance(found, list) else []
        known = {str(row.get("id")) for row in rows if isinstance(row, dict)}
        check_trials(folder, known, {trial.id for trial in expected.trials})
    if doctor is not None:
        there |= _of_host(doctor, identity)
    if design is None:
        there |= _of_results(folder)
    check_identity(folder, {**identity, **there}, identity)
    if design is None and not there and any(_results(folder)):
        raise SweepError(
            f"{folder} has results, and neither ledger nor design.json nor a readable result, one "
            "of which is needed to tell of which sweep they are; move that folder away"
        )


def _placed(design: Json) -> str:
    try:
        return where(design["placements"])
    except (KeyError, TypeError):
        return "unknown"


def _of_host(doctor: Json, identity: Mapping[str, str]) -> dict[str, str]:
    """Return what a host's report tells of a sweep's identity."""
    try:
        report = decode(HostReport, doctor)
        facts = report.facts
        found = {
            "host": report.host,
            "kernel": str(facts["kernel"]),
            "cpus": ",".join(map(str, facts["cpu"]["allowed"])),
        }
        engines = facts["engines"]
        others = identity.keys() - {*_OF_DESIGN, *found}
        return found | {name: str(engines[name]["version"]) for name in others}
    except (DocumentError, KeyError, TypeError):
        return {}


def _of_results(folder: Path) -> dict[str, str]:
    """Return what results tell of a sweep's identity, if all that can be read say the same."""
    found = set()
    for path in _results(folder):
        try:
            trial = json_file.read(path)["trial"]
            found.add((trial["plan_digest"], trial["image_digest"], trial["host"]))
        except (DocumentError, KeyError, TypeError):
            continue
    if len(found) != 1:  # of several, each is compared with the trial that it should be
        return {}
    return dict(zip(("plan", "image", "host"), map(str, found.pop()), strict=True))


def _results(folder: Path) -> Iterator[Path]:
    yield from sorted((folder / "trials").glob("*/result.json"))


def _document(path: Path, schema: str) -> Json | None:
    try:
        found = json_file.read(path)
    except DocumentError:
        return None
    return found if not schema or found.get("schema") == schema else None


def unchanged(folder: Path, known: Digests) -> None:
    """Raise BadResultError unless a trial's files are those that were written."""
    try:
        found = records.digests(folder)
    except FileNotFoundError as error:
        raise BadResultError(f"no {Path(str(error.filename)).name} found") from error
    except OSError as error:
        name = Path(str(error.filename)).name if error.filename else "a file of it"
        raise BadResultError(f"{name} cannot be read: {error.strerror}") from error
    for name in ("result", "evidence"):
        was, now = getattr(known, name), getattr(found, name)
        if was != now:
            raise BadResultError(
                f"{name}.json was changed after it was written: SHA-256 {now[:12]} found, "
                f"{was[:12]} needed"
            )


def _labels(
    found: Json, design: Design, host: str, trial: Trial
) -> Iterator[tuple[str, object, object]]:
    """Give what a result says of its trial, and what it must say."""
    wanted = {
        "id": trial.id,
        "sweep": design.sweep,
        "plan_digest": design.plan_digest,
        "image_digest": design.image_digest,
        "host": host,
        "accelerator": trial.instance.accelerator,
        "memory_mib": trial.instance.memory_mib,
        **encode(trial.planned()),
    }
    for name, needed in wanted.items():
        if name in found:
            yield name, found[name], needed


def _attempts(folder: Path, trial: str) -> int:
    """Return how many attempts at a trial its files tell of."""
    counted = 0
    failure = _document(folder / "failure.json", FAILURE)
    if failure is not None and failure.get("id") == trial:
        counted = _number(failure.get("attempt"))
    result = _document(folder / "result.json", RESULT)
    head = result.get("trial") if result is not None else None
    return max(counted, _number(head.get("attempt")) if isinstance(head, dict) else 0)


def _earlier(sweep: Path, trial: str) -> int:
    """Return the last attempt at a trial whose result was put aside; 0 if none was."""
    names = (path.parent.name for path in sweep.glob(f"earlier/*/{trial}"))
    return max((int(n) for n in names if n.isascii() and n.isdigit() and len(n) < 10), default=0)


def _number(value: object) -> int:
    return value if type(value) is int and 0 <= value < 2**31 else 0
