"""The ledger of a sweep: the state of each trial, and which controller carries the sweep out.

One SQLite file per results folder, written so that it survives a kill at any time. Everything in it
about results can be read from the results again: `virtbed.sweep.standing` rebuilds a lost or
damaged ledger. Programs that only look use `virtbed.ledger_view`.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
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
_WAIT_S = 5.0
"""Seconds that an access waits for another process that is writing."""
_TURN_S = 60.0
"""Seconds that a thread waits for the others: a write takes milliseconds, but there may be hundreds
of threads. The limit matters if another process blocks the file: then every thread fails at about
the same time, instead of one after the other."""
PARTS = ("", "-wal", "-shm", "-journal")
"""Suffixes of the ledger's files: the database itself, and the files that SQLite adds to it."""


class LedgerError(RuntimeError):
    """The sweep on disk is another one than the requested, or its ledger cannot be used."""


class LedgerDamagedError(LedgerError):
    """The file is no ledger, is damaged, or has another version."""


def is_damage(error: Exception) -> bool:
    """Return whether an error of reading a ledger shows that it is damaged, not only locked, say.

    Values of the wrong type (TypeError) show it, too.
    """
    # The last byte of an extended error code is the primary code.
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    return isinstance(error, TypeError) or code in _DAMAGED


@dataclass(frozen=True)
class Digests:
    """SHA-256 of a trial's result.json and evidence.json, to detect later changes."""

    result: str
    evidence: str


class Ledger:
    """A sweep's ledger in one SQLite file. Every method commits before it returns.

    Threads share one object and take turns. With a connection each they would wait for one another
    in SQLite, which sleeps and tries again, so that most of the time nobody writes.

    Raises:
        LedgerError: by every method, if the file cannot be read or written (a full disk, say).
        LedgerDamagedError: by every method, if the file is no ledger.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = RLock()
        with self._in_words():
            self._db = sqlite3.connect(
                path, isolation_level=None, timeout=_WAIT_S, check_same_thread=False
            )
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
                f"{self._path}: a ledger of version {version} found, {_VERSION} needed"
            )
        problem = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise LedgerDamagedError(f"{self._path}: {str(problem).splitlines()[0]}")
        # synchronous=FULL: a trial that was marked done stays done, even after a power failure.
        self._db.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
            f"{_SCHEMA} PRAGMA user_version={_VERSION};"
        )

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """Turn errors of SQLite into LedgerError, with the file's path and the remedy."""
        try:
            yield
        except sqlite3.Error as error:
            if is_damage(error):
                raise LedgerDamagedError(f"{self._path}: {error}") from error
            raise LedgerError(
                f"{self._path}: {error}; this user must be able to write the folder, it needs free "
                "space, and no other program may have this file open; nothing is lost"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Keep other threads off the connection; they would take part in its transaction."""
        with self._in_words():
            if not self._lock.acquire(timeout=_TURN_S):
                raise sqlite3.OperationalError(f"other threads have used it for {_TURN_S:.0f} s")
            try:
                yield
            finally:
                self._lock.release()

    def _rows(self, sql: str, *values: object) -> list[Any]:
        with self._turn():
            return self._db.execute(sql, values).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Run a transaction: all of its writes are committed, or none."""
        with self._turn():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # the error that caused the rollback is raised
                    self._db.execute("ROLLBACK")
                raise

    def new(self) -> bool:
        """Return whether no sweep was started in it yet."""
        return not self._rows("SELECT 1 FROM sweep LIMIT 1")

    def begin(self, identity: Mapping[str, str], trials: Iterable[tuple[str, int, str]]) -> None:
        """Start a sweep, or continue one: with the same trials, or with further replicates.

        Args:
            identity: What must be the same in every call of the sweep (plan, image, host, its
                kernel, …), by name.
            trials: (id, position, platform) of each trial.

        Raises:
            LedgerError: the ledger has another sweep, or one with more replicates; the message
                names what differs.
        """
        requested = list(trials)
        stored = dict(self._rows("SELECT key, value FROM sweep"))
        if stored:
            check_identity(self._path.parent, stored, identity)
        known = dict(self._rows("SELECT id, position FROM trial"))
        check_trials(self._path.parent, known.keys(), {trial[0] for trial in requested})
        new = [trial for trial in requested if trial[0] not in known]
        taken = set(known.values())
        if further := sorted(trial for trial, position, _ in new if position in taken):
            raise LedgerError(
                f"{self._path.parent} was started with other cells, without {further[0]}, which "
                "can run now; trials of both must not mix: give the plan another name, or move "
                "that folder away"
            )
        with self._writing() as db:
            if not stored:
                db.executemany("INSERT INTO sweep VALUES (?, ?)", identity.items())
            db.executemany("INSERT INTO trial (id, position, platform) VALUES (?, ?, ?)", new)

    def take(self, holder: Holder, expires: float) -> list[str]:
        """Become the only controller of the sweep until a point in time.

        Args:
            holder: This controller's process.
            expires: When the lease ends, in seconds since 1970.

        Returns:
            Ids of the trials that a controller was carrying out that has ended since.

        Raises:
            LeaseError: another controller carries the sweep out, and is not known to have ended.
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
            pending = [
                row[0] for row in db.execute("SELECT id FROM trial WHERE leased ORDER BY id")
            ]
            db.execute("UPDATE trial SET leased = 0")
            db.execute("DELETE FROM holder")
            mine = (holder.host, holder.pid, holder.boot, holder.started, expires)
            db.execute("INSERT INTO holder VALUES (1, ?, ?, ?, ?, ?)", mine)
        return pending

    def renew(self, holder: Holder, expires: float, *, no_sooner: bool = False) -> None:
        """Set when the lease of this controller ends.

        Args:
            holder: This controller's process.
            expires: The new end, in seconds since 1970.
            no_sooner: Whether to keep the present end if it is later.

        Raises:
            LeaseError: the lease had ended, and another controller has taken the sweep.
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
        """Mark trials as being carried out by this controller, until `close` or `free`."""
        with self._writing() as db:
            db.executemany("UPDATE trial SET leased = 1 WHERE id = ?", [(t,) for t in trials])

    def free(self, trials: Iterable[str]) -> None:
        """End the lease of trials; those that were not closed must be done again."""
        with self._writing() as db:
            db.executemany("UPDATE trial SET leased = 0 WHERE id = ?", [(t,) for t in trials])

    @contextmanager
    def left(self, holder: Holder | None = None) -> Iterator[None]:
        """Stop being the controller of the sweep at the end of the block, whatever happens."""
        mine = holder or Holder.here()
        try:
            yield
        finally:
            with suppress(LedgerError), self._writing() as db:  # the lease also ends by itself
                who = (mine.host, mine.pid, mine.boot, mine.started)
                db.execute(f"DELETE FROM holder WHERE {_HOLDER}", who)  # nosec B608 # a constant

    def done(self) -> set[str]:
        """Return the ids of the trials that are done."""
        return {row[0] for row in self._rows("SELECT id FROM trial WHERE status = 'done'")}

    def digests(self) -> dict[str, Digests]:
        """Return the digests of the files of each done trial, by id, as far as they are known."""
        sql = (
            "SELECT id, result, evidence FROM trial WHERE status = 'done' AND result IS NOT NULL "
            "AND evidence IS NOT NULL"
        )
        return {trial: Digests(*rest) for trial, *rest in self._rows(sql)}

    def given_up(self, attempts: int) -> dict[str, str]:
        """Return the failed trials with `attempts` or more attempts: reasons by id."""
        sql = "SELECT id, reason FROM trial WHERE status = 'failed' AND attempts >= ?"
        return dict(self._rows(sql, attempts))

    def attempts(self, trial: str) -> int:
        """Return the number of attempts at a trial that have started."""
        return int(self._rows("SELECT attempts FROM trial WHERE id = ?", trial)[0][0])

    def attempt(self, trial: str) -> int:
        """Count a starting attempt at a trial; return its number, from 1."""
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
            status: "done" or "failed".
            seconds: Its wall time in seconds, if known.
            reason: Why it failed.
            digests: Digests of its files; None keeps those of an earlier attempt.
        """
        kept = (digests.result, digests.evidence) if digests else (None, None)
        with self._writing() as db:
            db.execute(
                "UPDATE trial SET status = ?, seconds = ?, reason = ?, leased = 0, "
                "result = coalesce(?, result), evidence = coalesce(?, evidence) WHERE id = ?",
                (status, seconds, reason, *kept, trial),
            )

    def fill(self, rows: Iterable[tuple[str, str, int, str, Digests | None]]) -> None:
        """Store the state of trials that another ledger has.

        Args:
            rows: (id, status, attempts, reason, digests) of each trial.
        """
        values = [
            (status, attempts, reason, *((d.result, d.evidence) if d else (None, None)), trial)
            for trial, status, attempts, reason, d in rows
        ]
        with self._writing() as db:
            db.executemany(
                "UPDATE trial SET status = ?, attempts = ?, reason = ?, result = ?, evidence = ? "
                "WHERE id = ?",
                values,
            )

    def at_least(self, trial: str, attempts: int) -> None:
        """Raise a trial's number of attempts to `attempts`, if it is lower."""
        if attempts > self.attempts(trial):
            with self._writing() as db:
                db.execute("UPDATE trial SET attempts = ? WHERE id = ?", (attempts, trial))

    def forget(self, trial: str) -> None:
        """Mark a trial to be done again, because its files are not a good result."""
        with self._writing() as db:
            db.execute(
                "UPDATE trial SET status = 'todo', result = NULL, evidence = NULL WHERE id = ?",
                (trial,),
            )
            db.execute("DELETE FROM measured WHERE trial = ?", (trial,))

    def measure(self, trial: str, log_means: Mapping[str, float]) -> None:
        """Store the mean log time per input of a trial, for the stopping rule (`precision`)."""
        rows = [(trial, name, value) for name, value in log_means.items()]
        with self._writing() as db:
            db.executemany("INSERT OR REPLACE INTO measured VALUES (?, ?, ?)", rows)

    def measured(self) -> dict[str, dict[str, float]]:
        """Return what `measure` stored: mean log time by input, by id of each done trial."""
        sql = (
            "SELECT trial, input, log_mean FROM measured JOIN trial ON id = trial "
            "WHERE status = 'done'"
        )
        means: dict[str, dict[str, float]] = {}
        for trial, name, value in self._rows(sql):
            means.setdefault(trial, {})[name] = value
        return means

    def counts(self) -> Counter[str]:
        """Return the number of trials per state: todo, leased, done, failed."""
        sql = (
            "SELECT iif(leased AND EXISTS (SELECT 1 FROM holder), 'leased', status) AS state, "
            "count(*) FROM trial GROUP BY state"
        )
        return Counter(dict(self._rows(sql)))

    def seconds(self) -> dict[str, float]:
        """Return the mean wall seconds per done trial, by platform."""
        sql = (
            "SELECT platform, avg(seconds) FROM trial WHERE status = 'done' AND seconds IS NOT "
            "NULL GROUP BY platform"
        )
        return dict(self._rows(sql))


_Ledger = TypeVar("_Ledger", bound=Ledger)


def check_identity(folder: Path, stored: Mapping[str, str], requested: Mapping[str, str]) -> None:
    """Raise LedgerError if a folder's sweep is not the requested one.

    Args:
        folder: The results folder.
        stored: The identity of its sweep, by name.
        requested: The identity that is needed; other names are ignored.
    """
    for key, value in requested.items():
        if stored.get(key) != value:
            raise LedgerError(
                f"{folder} was started with {key} {stored.get(key)}, now it is {value}; results of "
                "both must not mix: give the plan another name, or move that folder away"
            )


def check_trials(folder: Path, known: Set[str], requested: Set[str]) -> None:
    """Raise LedgerError if a folder's sweep has trials (`known`) that are not requested now."""
    if left_out := sorted(known - requested):
        raise LedgerError(
            f"{folder} has {len(known)} trials, now {len(requested)} are requested, without "
            f"{left_out[-1]}: fewer replicates than before; take at least as many as before "
            "(virtbed sweep … --replicates N, or replicates: N in the plan)"
        )


def opened(path: Path, kind: type[_Ledger]) -> tuple[_Ledger, str]:
    """Open a ledger; move a damaged one aside and create a new one.

    Args:
        path: The ledger's file.
        kind: The class to open it with.

    Returns:
        The ledger, and what was wrong with the damaged one; empty if nothing was.

    Raises:
        LedgerError: it cannot be opened, written, or moved aside.
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
