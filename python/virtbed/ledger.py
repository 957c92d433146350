"""The journal of a sweep: what became of each trial, and who carries it out; it survives any kill.

What is in it of the results can be read from the results: see `virtbed.sweep.standing`, which
rebuilds a lost or damaged one.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from virtbed.lease import Holder, LeaseError

NAME = "ledger.sqlite"
_VERSION = 2
_SCHEMA = """
CREATE TABLE IF NOT EXISTS sweep (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS trial (
    id TEXT PRIMARY KEY,
    position INTEGER NOT NULL UNIQUE,
    platform TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'todo' CHECK (status IN ('todo', 'done', 'failed')),
    attempts INTEGER NOT NULL DEFAULT 0,
    seconds REAL,
    reason TEXT NOT NULL DEFAULT '',
    result TEXT,
    evidence TEXT,
    leased INTEGER NOT NULL DEFAULT 0 CHECK (leased IN (0, 1))
) STRICT;
CREATE TABLE IF NOT EXISTS measured (
    trial TEXT NOT NULL REFERENCES trial (id),
    input TEXT NOT NULL,
    log_mean REAL NOT NULL,
    PRIMARY KEY (trial, input)
) STRICT;
CREATE TABLE IF NOT EXISTS holder (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    boot TEXT NOT NULL,
    started TEXT NOT NULL,
    expires REAL NOT NULL
) STRICT;
"""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
_HOLDER = "host = ? AND pid = ? AND boot = ? AND started = ?"
PARTS = ("", "-wal", "-shm", "-journal")
"""Endings of the file's name: itself, and what SQLite writes next to it."""


class LedgerError(RuntimeError):
    """The sweep on disk is not the one that is asked for, or its journal cannot be written."""


class LedgerDamagedError(LedgerError):
    """What is there is no journal, or no whole one, or one of another version."""


@dataclass(frozen=True)
class Digests:
    """SHA-256 of what a trial left, by which a file that was changed since is known."""

    result: str
    evidence: str


class Ledger:
    """A sweep's journal in one SQLite file. Every method commits before it returns.

    Each raises LedgerError where the file cannot be written, on a full disk, say, and
    LedgerDamagedError where it is no journal.
    """

    _wait_s = 5.0
    """How long whoever opens it, reads or writes waits for another that writes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._in_words():
            self._db = sqlite3.connect(path, isolation_level=None, timeout=self._wait_s)
        try:
            with self._in_words():
                self._open()
        except LedgerError:
            self._db.close()
            raise

    def _open(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        tables = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables and version != _VERSION:
            raise LedgerDamagedError(
                f"{self._path}: a journal of version {version} found, {_VERSION} needed"
            )
        said = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if said != "ok":
            raise LedgerDamagedError(f"{self._path}: {str(said).splitlines()[0]}")
        # Full: a trial that was marked done stays done, also when the power goes.
        self._db.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
            f"{_SCHEMA} PRAGMA user_version={_VERSION};"
        )

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """Say in words what SQLite cannot do, and with which file."""
        try:
            yield
        except sqlite3.Error as error:
            # Of an extended code the last byte is the kind.
            kind = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
            if kind in _DAMAGED:
                raise LedgerDamagedError(f"{self._path}: {error}") from error
            raise LedgerError(
                f"{self._path}: {error}; a folder that this user can write, with space left, and "
                "no other program that has this file open are needed; nothing is lost"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def _rows(self, sql: str, *values: object) -> list[Any]:
        with self._in_words():
            return self._db.execute(sql, values).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Write all of some rows, or none."""
        with self._in_words():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # the first error is reported
                    self._db.execute("ROLLBACK")
                raise

    def new(self) -> bool:
        """Return whether no sweep is in it yet."""
        return not self._rows("SELECT 1 FROM sweep LIMIT 1")

    def begin(self, identity: Mapping[str, str], trials: Iterable[tuple[str, int, str]]) -> None:
        """Write a new sweep, or check that the one there is the same or has fewer replicates.

        Args:
            identity: What must not change between two calls (plan, image, host, its kernel…).
            trials: (id, position, platform) of each.

        Raises:
            LedgerError: another sweep is there, or one of more replicates; the message names what
                differs.
        """
        asked = list(trials)
        there = dict(self._rows("SELECT key, value FROM sweep"))
        if there:
            check_identity(self._path.parent, there, identity)
        known = dict(self._rows("SELECT id, position FROM trial"))
        check_trials(self._path.parent, known.keys(), {trial[0] for trial in asked})
        new = [trial for trial in asked if trial[0] not in known]
        taken = set(known.values())
        if further := sorted(trial for trial, position, _ in new if position in taken):
            raise LedgerError(
                f"{self._path.parent} was started with other cells, without {further[0]}, which "
                "can run now; trials of both must not mix: give the plan another name, or move "
                "that folder away"
            )
        with self._writing() as db:
            if not there:
                db.executemany("INSERT INTO sweep VALUES (?, ?)", identity.items())
            db.executemany("INSERT INTO trial (id, position, platform) VALUES (?, ?, ?)", new)

    def take(self, holder: Holder, expires: float) -> list[str]:
        """Become the one controller of the sweep until some time (seconds since 1970).

        Returns:
            The trials that a controller had leased which has ended meanwhile.

        Raises:
            LeaseError: another controller carries it out, and is not known to have ended.
        """
        with self._writing() as db:
            rows = db.execute("SELECT host, pid, boot, started, expires FROM holder").fetchall()
            for *who, ends in rows:
                other = Holder(*who)
                if other != holder and not other.gone() and ends > time.time():
                    raise LeaseError(
                        f"{self._path.parent} is being carried out by {other}, whose lease ends in "
                        f"{ends - time.time():.0f} s unless it is renewed; wait, or end it"
                    )
            left = [row[0] for row in db.execute("SELECT id FROM trial WHERE leased ORDER BY id")]
            db.execute("UPDATE trial SET leased = 0")
            db.execute("DELETE FROM holder")
            mine = (holder.host, holder.pid, holder.boot, holder.started, expires)
            db.execute("INSERT INTO holder VALUES (1, ?, ?, ?, ?, ?)", mine)
        return left

    def renew(self, holder: Holder, expires: float, *, no_sooner: bool = False) -> None:
        """Hold the sweep until some time; with `no_sooner` a later end that it has stays.

        Raises:
            LeaseError: another controller has taken it, since the lease had ended.
        """
        ends = "max(expires, ?)" if no_sooner else "?"
        with self._writing() as db:
            changed = db.execute(
                f"UPDATE holder SET expires = {ends} WHERE {_HOLDER}",  # nosec B608 # constants
                (expires, holder.host, holder.pid, holder.boot, holder.started),
            ).rowcount
            if not changed:
                raise LeaseError(f"{self._path.parent} was taken over by another controller")

    def lease(self, trials: Iterable[str]) -> None:
        """Mark trials as being carried out by the holder; `close` and `free` end that."""
        with self._writing() as db:
            db.executemany("UPDATE trial SET leased = 1 WHERE id = ?", [(t,) for t in trials])

    def free(self, trials: Iterable[str]) -> None:
        """End the lease of trials: what was not closed is to be done again."""
        with self._writing() as db:
            db.executemany("UPDATE trial SET leased = 0 WHERE id = ?", [(t,) for t in trials])

    @contextmanager
    def left(self, holder: Holder | None = None) -> Iterator[None]:
        """Whatever happens meanwhile, be no longer the controller of the sweep at the end."""
        mine = holder or Holder.here()
        try:
            yield
        finally:
            with suppress(LedgerError), self._writing() as db:  # a lease ends by itself, too
                who = (mine.host, mine.pid, mine.boot, mine.started)
                db.execute(f"DELETE FROM holder WHERE {_HOLDER}", who)  # nosec B608 # a constant

    def done(self) -> set[str]:
        """Return the ids of the trials that need no further attempt."""
        return {row[0] for row in self._rows("SELECT id FROM trial WHERE status = 'done'")}

    def digests(self) -> dict[str, Digests]:
        """Return the digests of what each trial left that is done, as far as they are known."""
        sql = (
            "SELECT id, result, evidence FROM trial WHERE status = 'done' AND result IS NOT NULL "
            "AND evidence IS NOT NULL"
        )
        return {trial: Digests(*rest) for trial, *rest in self._rows(sql)}

    def given_up(self, attempts: int) -> dict[str, str]:
        """Return the trials that failed, and began so many times or more; each with its reason."""
        sql = "SELECT id, reason FROM trial WHERE status = 'failed' AND attempts >= ?"
        return dict(self._rows(sql, attempts))

    def attempts(self, trial: str) -> int:
        """Return how many attempts at a trial have started."""
        return int(self._rows("SELECT attempts FROM trial WHERE id = ?", trial)[0][0])

    def attempt(self, trial: str) -> int:
        """Count an attempt at a trial that begins, and return its number, from 1."""
        with self._writing() as db:
            sql = "UPDATE trial SET attempts = attempts + 1 WHERE id = ? RETURNING attempts"
            return int(db.execute(sql, (trial,)).fetchall()[0][0])

    def close(
        self, trial: str, status: str, seconds: float | None, *, reason: str = "",
        digests: Digests | None = None,
    ) -> None:  # fmt: skip
        """Mark a trial done or failed.

        Args:
            trial: Its id.
            status: done or failed.
            seconds: The wall seconds that it took, where that is known.
            reason: Why it failed.
            digests: Of the files that it left; None: those of an earlier attempt stay.
        """
        kept = (digests.result, digests.evidence) if digests else (None, None)
        with self._writing() as db:
            db.execute(
                "UPDATE trial SET status = ?, seconds = ?, reason = ?, leased = 0, "
                "result = coalesce(?, result), evidence = coalesce(?, evidence) WHERE id = ?",
                (status, seconds, reason, *kept, trial),
            )

    def fill(self, rows: Iterable[tuple[str, str, int, str, Digests | None]]) -> None:
        """Take over what became of trials elsewhere: id, status, attempts, reason, digests."""
        said = [
            (status, attempts, reason, *((d.result, d.evidence) if d else (None, None)), trial)
            for trial, status, attempts, reason, d in rows
        ]
        with self._writing() as db:
            db.executemany(
                "UPDATE trial SET status = ?, attempts = ?, reason = ?, result = ?, evidence = ? "
                "WHERE id = ?",
                said,
            )

    def at_least(self, trial: str, attempts: int) -> None:
        """Take over that so many attempts at a trial, or more, are known to have started."""
        if attempts > self.attempts(trial):
            with self._writing() as db:
                db.execute("UPDATE trial SET attempts = ? WHERE id = ?", (attempts, trial))

    def forget(self, trial: str) -> None:
        """Mark a trial to be done: what it left is not its result."""
        with self._writing() as db:
            db.execute(
                "UPDATE trial SET status = 'todo', result = NULL, evidence = NULL WHERE id = ?",
                (trial,),
            )
            db.execute("DELETE FROM measured WHERE trial = ?", (trial,))

    def measure(self, trial: str, log_means: Mapping[str, float]) -> None:
        """Keep what the stopping rule needs of a result: a number per input."""
        rows = [(trial, name, value) for name, value in log_means.items()]
        with self._writing() as db:
            db.executemany("INSERT OR REPLACE INTO measured VALUES (?, ?, ?)", rows)

    def measured(self) -> dict[str, dict[str, float]]:
        """Return what `measure` kept of each trial that is done."""
        sql = (
            "SELECT trial, input, log_mean FROM measured JOIN trial ON id = trial "
            "WHERE status = 'done'"
        )
        found: dict[str, dict[str, float]] = {}
        for trial, name, value in self._rows(sql):
            found.setdefault(trial, {})[name] = value
        return found

    def counts(self) -> Counter[str]:
        """Return how many trials are todo, leased, done and failed."""
        sql = (
            "SELECT iif(leased AND EXISTS (SELECT 1 FROM holder), 'leased', status) AS state, "
            "count(*) FROM trial GROUP BY state"
        )
        return Counter(dict(self._rows(sql)))

    def seconds(self) -> dict[str, float]:
        """Return the mean wall seconds of the trials done so far, by platform."""
        sql = (
            "SELECT platform, avg(seconds) FROM trial WHERE status = 'done' AND seconds IS NOT "
            "NULL GROUP BY platform"
        )
        return dict(self._rows(sql))


_Ledger = TypeVar("_Ledger", bound=Ledger)


def check_identity(folder: Path, there: Mapping[str, str], asked: Mapping[str, str]) -> None:
    """Raise LedgerError if what is asked for is another sweep than the one that is there."""
    for key, value in asked.items():
        if there.get(key) != value:
            raise LedgerError(
                f"{folder} was started with {key} {there.get(key)}, now it is {value}; results of "
                "both must not mix: give the plan another name, or move that folder away"
            )


def check_trials(folder: Path, known: Set[str], asked: Set[str]) -> None:
    """Raise LedgerError if fewer trials are asked for than are known."""
    if left_out := sorted(known - asked):
        raise LedgerError(
            f"{folder} has {len(known)} trials, now {len(asked)} are asked for, without "
            f"{left_out[-1]}: fewer replicates than before; give as many as before "
            "(virtbed sweep … --replicates N, or replicates: N in the plan)"
        )


def opened(path: Path, kind: type[_Ledger]) -> tuple[_Ledger, str]:
    """Open a journal; what is no journal, or no whole one, is moved aside and a new one made.

    Args:
        path: Its file.
        kind: Which kind of journal.

    Returns:
        The journal, and what was wrong with the one that was there; empty if nothing was.

    Raises:
        LedgerError: it cannot be opened or written, or not be moved aside.
    """
    try:
        return kind(path), ""
    except LedgerDamagedError as error:
        why = str(error)
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    try:
        for part in PARTS:
            with suppress(FileNotFoundError):
                path.with_name(path.name + part).rename(aside.with_name(aside.name + part))
    except OSError as error:
        raise LedgerError(f"{path}: cannot be moved aside: {error}") from error
    return kind(path), f"{why}; it is kept as {aside.name}"
