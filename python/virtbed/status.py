"""How far a sweep is: counts, what is left to do, and why trials failed. Changes nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from virtbed import ledger_view
from virtbed.ledger import NAME, LedgerError
from virtbed.ledger_view import Host, Row, View
from virtbed.plan import PlanError, load_plan
from virtbed.progress import STUDY_S, GuessS
from virtbed_contract import json_file
from virtbed_contract.codec import DocumentError, decode
from virtbed_contract.sweep import Design, PlannedTrial

STATES = ("todo", "leased", "done", "failed")
_IDS = re.compile(r"virtbed-[a-z0-9_-]+|\b[a-z0-9_]+-(?:vanilla|pinned)-c\d\d[a-z0-9_-]*")
_NUMBERS = re.compile(r"\b(?:0x)?[0-9a-f]+\b")


@dataclass(frozen=True)
class Failed:
    """Trials that failed for one reason; `reason` is the first one's, `trial` its id."""

    reason: str
    count: int
    trial: str
    attempts: int


@dataclass(frozen=True)
class Status:
    """How far a sweep is.

    Attributes:
        sweep: Its name.
        counts: How many trials are todo, leased, done and failed.
        left_s: Seconds that what is todo or leased will take, on the hosts that take part; None if
            the design is not there, or names a platform that there is no longer.
        failures: The failed ones by their reason, most first.
        holder: Who carries it out, in words; empty if nobody does.
        left_by: Who was killed while carrying it out, in words.
        hosts: The hosts of a sweep of several, as the last call left them.
    """

    sweep: str
    counts: dict[str, int]
    left_s: float | None
    failures: tuple[Failed, ...]
    holder: str
    left_by: str
    hosts: tuple[Host, ...] = ()


def status_of(folder: Path, guess_s: GuessS) -> Status:
    """Return the status of a sweep's folder.

    Args:
        folder: The folder.
        guess_s: Seconds that a trial takes on a platform that has shown no times yet.

    Raises:
        LedgerError: it has no ledger, or one that cannot be read.
    """
    path = folder / NAME
    if not path.exists():
        raise LedgerError(f"no {path} found, the ledger of a sweep that was started is needed")
    view = ledger_view.look(path)
    return Status(
        sweep=folder.name,
        counts={state: view.counts[state] for state in STATES},
        left_s=_left_s(folder, view, guess_s),
        failures=tuple(grouped(view.rows)),
        holder=str(view.holder or ""),
        left_by=str(view.left_by or ""),
        hosts=view.hosts,
    )


def _left_s(folder: Path, view: View, guess_s: GuessS) -> float | None:
    try:
        design = decode(Design, json_file.read(folder / "design.json"), "design.json")
    except DocumentError:
        return None
    long = _by_mlperfs_rules(folder)
    planned = {row.id: row for row in design.trials}
    left = [planned[r.id] for r in view.rows if r.status in ("todo", "leased") and r.id in planned]
    try:
        seconds = sum(_seconds(row, view.seconds, guess_s, long) for row in left)
        return seconds / max(1, sum(not host.aside for host in view.hosts))
    except KeyError:  # a platform that platforms.yml has no longer
        return None


def _seconds(
    row: PlannedTrial, seen_s: Mapping[str, float], guess_s: GuessS, long: set[tuple[str, str]]
) -> float:
    known = seen_s.get(row.platform) or guess_s(row.platform, row.emulated)
    study = (row.application, row.scenario) in long and not row.emulated
    return max(known, STUDY_S if study else 0.0)


def _by_mlperfs_rules(folder: Path) -> set[tuple[str, str]]:
    """Return (application, scenario) of those that take ten minutes at least."""
    try:
        plan = load_plan(folder / "plan.yml")
    except PlanError:
        return set()
    return {(a.name, a.scenario) for a in plan.applications if a.rules == "study"}


def _number(found: re.Match[str]) -> str:
    """Return what stands for a number; "bad" and "face" are words, and stay."""
    return "N" if any(map(str.isdigit, found[0])) else found[0]


def grouped(rows: Iterable[Row]) -> list[Failed]:
    """Return the failed trials by reason: names of instances and numbers make none different."""
    failed = [row for row in rows if row.status == "failed"]
    keys = [_NUMBERS.sub(_number, _IDS.sub("ID", row.reason)) for row in failed]
    counts = Counter(keys)
    first: dict[str, Row] = {}
    attempts: dict[str, int] = {}
    for key, row in zip(keys, failed, strict=True):
        first.setdefault(key, row)
        attempts[key] = max(attempts.get(key, 0), row.attempts)
    return [
        Failed(first[key].reason or "no reason is known", number, first[key].id, attempts[key])
        for key, number in counts.most_common()
    ]
