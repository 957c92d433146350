"""The status of a sweep: counts, time to the end, and reasons of failed trials; read-only."""

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
    """Trials that failed for the same reason.

    Attributes:
        reason: The reason of the first of them.
        count: How many they are.
        trial: The id of the first of them.
        attempts: The most attempts that one of them has had.
    """

    reason: str
    count: int
    trial: str
    attempts: int


@dataclass(frozen=True)
class Status:
    """The status of one sweep.

    Attributes:
        sweep: Its name.
        counts: Number of trials per state: todo, leased, done, failed.
        left_s: Estimated seconds for the trials that are todo or leased, on all its hosts; None if
            the design is missing, or has a platform that no longer exists.
        failures: The failed trials by reason, the most frequent first.
        holder: The controller that carries it out, in words; empty if there is none.
        left_by: The controller that was killed while carrying it out, in words; empty if none was.
        hosts: The hosts of a sweep on several hosts, in the state of the last call.
    """

    sweep: str
    counts: dict[str, int]
    left_s: float | None
    failures: tuple[Failed, ...]
    holder: str
    left_by: str
    hosts: tuple[Host, ...] = ()


def status_of(folder: Path, guess_s: GuessS) -> Status:
    """Return the status of a sweep.

    Args:
        folder: Its results folder.
        guess_s: Estimates the seconds of a trial on a platform without measured times.

    Raises:
        LedgerError: the folder has no ledger, or one that cannot be read.
    """
    path = folder / NAME
    if not path.exists():
        raise LedgerError(
            f"no {path} found, the ledger of a sweep that was started is needed; start it with "
            "virtbed sweep"
        )
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
    """Return the estimated seconds for the trials that are not done; None if unknown."""
    try:
        design = decode(Design, json_file.read(folder / "design.json"), "design.json")
    except DocumentError:
        return None
    long = _by_mlperfs_rules(folder)
    planned = {row.id: row for row in design.trials}
    pending = [
        planned[r.id] for r in view.rows if r.status in ("todo", "leased") and r.id in planned
    ]
    try:
        seconds = sum(_seconds(row, view.seconds, guess_s, long) for row in pending)
        return seconds / max(1, sum(not host.aside for host in view.hosts))
    except KeyError:  # a platform that platforms.yml no longer has
        return None


def _seconds(
    row: PlannedTrial, seen_s: Mapping[str, float], guess_s: GuessS, long: set[tuple[str, str]]
) -> float:
    known = seen_s.get(row.platform) or guess_s(row.platform, row.emulated)
    study = (row.application, row.scenario) in long and not row.emulated
    return max(known, STUDY_S if study else 0.0)


def _by_mlperfs_rules(folder: Path) -> set[tuple[str, str]]:
    """Return (application, scenario) of the plan's applications with the study rules."""
    try:
        plan = load_plan(folder / "plan.yml")
    except PlanError:
        return set()
    return {(a.name, a.scenario) for a in plan.applications if a.rules == "study"}


def _number(found: re.Match[str]) -> str:
    """Return N for a (hexadecimal) number; words of hexadecimal digits, such as "bad", stay."""
    return "N" if any(map(str.isdigit, found[0])) else found[0]


def grouped(rows: Iterable[Row]) -> list[Failed]:
    """Group the failed trials by reason, the most frequent first.

    Reasons count as the same if they differ only in ids and numbers.
    """
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
