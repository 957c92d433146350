"""A sweep's journal as whoever only looks sees it: nothing is written, nothing is waited for."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from virtbed.lease import Holder
from virtbed.ledger import LedgerError

_WAIT_S = 5.0


@dataclass(frozen=True)
class Row:
    """A trial as the journal has it; `status` is todo, leased, done or failed."""

    id: str
    platform: str
    status: str
    attempts: int
    reason: str


@dataclass(frozen=True)
class View:
    """What a journal says.

    Attributes:
        rows: Every trial, in the order of the sweep.
        seconds: Mean wall seconds of a trial by platform, as far as known.
        holder: Who carries the sweep out; None if nobody does.
        left_by: Who did, and is gone without having said so.
    """

    rows: tuple[Row, ...]
    seconds: dict[str, float]
    holder: Holder | None
    left_by: Holder | None

    @property
    def counts(self) -> Counter[str]:
        """How many trials are todo, leased, done and failed."""
        return Counter(row.status for row in self.rows)


def look(path: Path) -> View:
    """Read a journal.

    Raises:
        LedgerError: it is none, or cannot be read.
    """
    # A journal that nobody writes needs no files next to it, which a reader would make.
    mode = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
    try:
        opened = sqlite3.connect(f"file:{quote(str(path))}?{mode}", uri=True, timeout=_WAIT_S)
        with closing(opened) as db:
            return _read(db)
    except sqlite3.Error as error:
        raise LedgerError(f"{path}: cannot be read: {error}") from error


def _read(db: sqlite3.Connection) -> View:
    db.execute("BEGIN")  # one state of it, whatever is written meanwhile
    holders = db.execute("SELECT host, pid, boot, started, expires FROM holder").fetchall()
    now = time.time()
    held = [Holder(*who) for *who, ends in holders]
    live = [h for h, (*_, ends) in zip(held, holders, strict=True) if ends > now and not h.gone()]
    sql = "SELECT id, platform, status, leased, attempts, reason FROM trial ORDER BY position"
    rows = tuple(
        Row(name, platform, "leased" if leased and live else status, attempts, reason)
        for name, platform, status, leased, attempts, reason in db.execute(sql)
    )
    seconds = dict(
        db.execute(
            "SELECT platform, avg(seconds) FROM trial WHERE status = 'done' AND seconds IS NOT "
            "NULL GROUP BY platform"
        ).fetchall()
    )
    gone = [holder for holder in held if holder not in live]
    return View(rows, seconds, live[0] if live else None, gone[0] if gone else None)
