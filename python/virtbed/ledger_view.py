"""Read a sweep's ledger without writing to it, and without blocking the sweep.

`virtbed status` uses it, also for results folders of other users. The content is checked, because
the file may have been changed by others.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from virtbed.lease import Holder
from virtbed.ledger import Digests, LedgerDamagedError, LedgerError, is_damage

_Found = TypeVar("_Found")
_WAIT_S = 5.0
MOST_S = 20.0
"""Limit for reading a ledger: the largest takes less than one second, a malicious one any time."""
_STATES = ("todo", "leased", "done", "failed")


@dataclass(frozen=True)
class Row:
    """One trial of a ledger; `status` is todo, leased, done or failed."""

    id: str
    platform: str
    status: str
    attempts: int
    reason: str


@dataclass(frozen=True)
class Host:
    """One host of a sweep on several hosts.

    Attributes:
        name: Its name in the inventory.
        replicate: The replicate that it carries out; None if it carries out none.
        aside: Why it is set aside; empty if it is not.
    """

    name: str
    replicate: int | None
    aside: str


@dataclass(frozen=True)
class View:
    """The content of a ledger.

    Attributes:
        rows: Every trial, in the order of the sweep.
        seconds: Mean wall seconds per trial by platform, as far as known.
        holder: The controller that carries the sweep out; None if there is none.
        left_by: A controller that was killed while carrying it out; None if there is none.
        hosts: The hosts of a sweep on several hosts, in the state of the last call.
    """

    rows: tuple[Row, ...]
    seconds: dict[str, float]
    holder: Holder | None
    left_by: Holder | None
    hosts: tuple[Host, ...] = ()

    @property
    def counts(self) -> Counter[str]:
        """The number of trials per status."""
        return Counter(row.status for row in self.rows)


def look(path: Path) -> View:
    """Read a ledger.

    Raises:
        LedgerDamagedError: the file is no ledger.
        LedgerError: it cannot be read.
    """
    return _looked(path, _read)


def digests(path: Path) -> dict[str, Digests]:
    """Return the digests of each done trial's files, by id, as far as a ledger has them.

    Raises:
        LedgerDamagedError: the file is no ledger.
        LedgerError: it cannot be read.
    """
    return _looked(path, _digests)


def shared_by_hosts(path: Path) -> bool:
    """Return whether a ledger is that of a sweep on several hosts, not of one host or merged.

    Raises:
        LedgerDamagedError: the file is no ledger.
        LedgerError: it cannot be read.
    """
    sql = "SELECT 1 FROM sqlite_master WHERE name = 'replicate'"
    return _looked(path, lambda db: db.execute(sql).fetchone() is not None)


def _looked(path: Path, read: Callable[[sqlite3.Connection], _Found]) -> _Found:
    # Without a -wal file no process has the ledger open; then immutable=1 keeps SQLite from
    # creating files next to it.
    mode = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
    try:
        opened = sqlite3.connect(f"file:{quote(str(path))}?{mode}", uri=True, timeout=_WAIT_S)
        ends = time.monotonic() + MOST_S
        with closing(opened) as db:
            db.set_progress_handler(lambda: time.monotonic() > ends, 10_000)
            return read(db)
    except (sqlite3.Error, TypeError) as error:
        kind = LedgerDamagedError if is_damage(error) else LedgerError
        raise kind(f"{path}: cannot be read: {error}") from error


def _digests(db: sqlite3.Connection) -> dict[str, Digests]:
    by_trial = {}
    sql = (
        "SELECT id, result, evidence FROM trial WHERE status = 'done' AND result IS NOT NULL "
        "AND evidence IS NOT NULL"
    )
    for trial, *both in db.execute(sql):
        _check((trial, *both), True, trial, *both)
        by_trial[trial] = Digests(*both)
    return by_trial


def _read(db: sqlite3.Connection) -> View:
    db.execute("BEGIN")  # read one consistent state, whatever is written meanwhile
    holders = db.execute("SELECT host, pid, boot, started, expires FROM holder").fetchall()
    now = time.time()
    for *who, ends in holders:
        _check(who, type(who[1]) is int and isinstance(ends, float), *who[:1], *who[2:])
    held = [Holder(*who) for *who, ends in holders]
    live = [h for h, (*_, ends) in zip(held, holders, strict=True) if ends > now and not h.gone()]
    sql = "SELECT id, platform, status, leased, attempts, reason FROM trial ORDER BY position"
    rows = []
    for name, platform, status, leased, attempts, reason in db.execute(sql):
        whole = type(attempts) is int and status in _STATES
        _check((name, status, attempts), whole, name, platform, reason)
        state = "leased" if leased and live else status
        rows.append(Row(name, platform, state, attempts, reason))
    seconds = dict(
        db.execute(
            "SELECT platform, avg(seconds) FROM trial WHERE status = 'done' AND seconds IS NOT "
            "NULL GROUP BY platform"
        ).fetchall()
    )
    for platform, value in seconds.items():
        _check((platform, value), math.isfinite(value) and value >= 0, platform)
    gone = [holder for holder in held if holder not in live]
    return View(
        tuple(rows), seconds, live[0] if live else None, gone[0] if gone else None,
        tuple(_hosts(db)),
    )  # fmt: skip


def _hosts(db: sqlite3.Connection) -> Iterator[Host]:
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'host'").fetchone():
        return  # the sweep has one host
    for name, replicate, aside in db.execute("SELECT * FROM host ORDER BY name"):
        _check((name, replicate), replicate is None or type(replicate) is int, name, aside)
        yield Host(name, replicate, aside)


def _check(found: object, whole: bool, *texts: object) -> None:
    """Raise TypeError if values of a ledger are not of the kind that virtbed writes.

    Args:
        found: The values, for the message.
        whole: Whether the numbers among them are good.
        *texts: Those that must be texts.
    """
    if not whole or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"{str(found)[:200]} found, a trial or holder as virtbed writes it needed")
