"""The journal of a sweep: which trials are done; it survives any kill."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Self

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sweep (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS trial (
    id TEXT PRIMARY KEY,
    position INTEGER NOT NULL UNIQUE,
    platform TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'planned' CHECK (status IN ('planned', 'done', 'failed')),
    attempts INTEGER NOT NULL DEFAULT 0,
    seconds REAL
) STRICT;
CREATE TABLE IF NOT EXISTS measured (
    trial TEXT NOT NULL REFERENCES trial (id),
    input TEXT NOT NULL,
    log_mean REAL NOT NULL,
    PRIMARY KEY (trial, input)
) STRICT;
"""


class LedgerError(RuntimeError):
    """The sweep on disk is not the one that is asked for, or its journal cannot be written."""


class Ledger:
    """A sweep's journal in one SQLite file. Every method commits before it returns.

    Each raises LedgerError where the file cannot be written, on a full disk, say.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._told():
            self._db = sqlite3.connect(path, isolation_level=None)
            # Full: a trial that was marked done stays done, also when the power goes.
            self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;" + _SCHEMA)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say in words what SQLite cannot do, and with which file."""
        try:
            yield
        except sqlite3.Error as error:
            raise LedgerError(f"{self._path}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def begin(self, identity: dict[str, str], trials: Iterable[tuple[str, int, str]]) -> None:
        """Write a new sweep, or check that the one there is the same or has fewer replicates.

        Args:
            identity: What must not change between two calls (plan, image, host, its kernel…).
            trials: (id, position, platform) of each.

        Raises:
            LedgerError: another sweep is there, or one of more replicates; the message names what
                differs.
        """
        asked = list(trials)
        there = dict(self._db.execute("SELECT key, value FROM sweep"))
        if there:
            for key, value in identity.items():
                if there.get(key) != value:
                    raise LedgerError(
                        f"{self._path.parent} was started with {key} {there.get(key)}, now it is "
                        f"{value}; results of both must not mix: give the plan another name, or "
                        "move that folder away"
                    )
        known = {row[0] for row in self._db.execute("SELECT id FROM trial")}
        if left_out := sorted(known - {trial[0] for trial in asked}):
            raise LedgerError(
                f"{self._path.parent} has {len(known)} trials, now {len(asked)} are asked for, "
                f"without {left_out[-1]}: fewer replicates than before; give as many as before "
                "(virtbed sweep … --replicates N, or replicates: N in the plan)"
            )
        new = [trial for trial in asked if trial[0] not in known]
        with self._told():
            self._db.execute("BEGIN")
            if not there:
                self._db.executemany("INSERT INTO sweep VALUES (?, ?)", identity.items())
            self._db.executemany("INSERT INTO trial (id, position, platform) VALUES (?, ?, ?)", new)
            self._db.execute("COMMIT")

    def done(self) -> set[str]:
        """Return the ids of the trials that need no further attempt."""
        return {row[0] for row in self._db.execute("SELECT id FROM trial WHERE status = 'done'")}

    def attempt(self, trial: str) -> int:
        """Count one more attempt at a trial, and return its number, from 1."""
        sql = "UPDATE trial SET attempts = attempts + 1 WHERE id = ? RETURNING attempts"
        with self._told(), closing(self._db.execute(sql, (trial,))) as rows:
            return int(rows.fetchone()[0])

    def close(self, trial: str, status: str, seconds: float) -> None:
        """Mark a trial done or failed, with the wall seconds that it took."""
        with self._told():
            self._db.execute(
                "UPDATE trial SET status = ?, seconds = ? WHERE id = ?", (status, seconds, trial)
            )

    def measure(self, trial: str, log_means: Mapping[str, float]) -> None:
        """Keep what the stopping rule needs of a result: a number per input."""
        rows = [(trial, name, value) for name, value in log_means.items()]
        with self._told():
            self._db.execute("BEGIN")
            self._db.executemany("INSERT OR REPLACE INTO measured VALUES (?, ?, ?)", rows)
            self._db.execute("COMMIT")

    def measured(self) -> dict[str, dict[str, float]]:
        """Return what `measure` kept of each trial that is done."""
        sql = (
            "SELECT trial, input, log_mean FROM measured JOIN trial ON id = trial "
            "WHERE status = 'done'"
        )
        found: dict[str, dict[str, float]] = {}
        for trial, name, value in self._db.execute(sql):
            found.setdefault(trial, {})[name] = value
        return found

    def counts(self) -> Counter[str]:
        """Return how many trials have each status."""
        return Counter(dict(self._db.execute("SELECT status, count(*) FROM trial GROUP BY status")))

    def seconds(self) -> dict[str, float]:
        """Return the mean wall seconds of the trials done so far, by platform."""
        return dict(
            self._db.execute(
                "SELECT platform, avg(seconds) FROM trial WHERE status = 'done' GROUP BY platform"
            )
        )
