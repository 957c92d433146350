"""The ledger of a sweep on several hosts: which host carries out which replicate."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from virtbed.ledger import Ledger, LedgerError, check_identity, check_trials

SEVERAL = {"hosts": "several"}
"""Part of the identity of a sweep on several hosts; a sweep on one host has its name as `host`."""
UNKNOWN = "?"
"""Stands for the name of a host whose report cannot be read."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS replicate (number INTEGER PRIMARY KEY, host TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS host (
    name TEXT PRIMARY KEY,
    replicate INTEGER,
    aside TEXT NOT NULL
) STRICT;
"""
_OF = " of "


class FleetLedger(Ledger):
    """A sweep's ledger, with its hosts; all workers share it."""

    def _open(self) -> None:
        super()._open()
        self._db.executescript(_SCHEMA)

    def of_one_host(self, reported: str) -> str:
        """Return the host of a sweep that was started on one host; empty for any other sweep.

        Args:
            reported: Name of the host whose report is in the results folder, if there is one; used
                if the ledger was lost. `UNKNOWN` if that report cannot be read.

        Raises:
            LedgerError: the sweep was merged from sweeps on one host each, or the name is lost.
        """
        one = self._rows("SELECT value FROM sweep WHERE key = 'host'")
        name = str(one[0][0]) if one else reported if self.new() else ""
        if ", " in name:
            raise LedgerError(
                f"{self._path.parent} was merged from sweeps of one host each, {name}; run the "
                "trials that are missing in their own folders, and virtbed merge again"
            )
        if name == UNKNOWN:
            raise LedgerError(
                f"{self._path.parent} was started on one host, but its ledger is lost, and "
                "doctor.json cannot be read; name that host alone (--limit), which writes both "
                "again, and then all"
            )
        return name

    def started(self, shared: Mapping[str, str], replicates: Mapping[str, int]) -> set[int]:
        """Return the replicates with a trial that was started.

        Args:
            shared: The part of the sweep's identity that all hosts share, as requested now.
            replicates: The replicate of each requested trial, by the trial's id.

        Raises:
            LedgerError: the ledger has another sweep, or one with more replicates.
        """
        check_identity(self._path.parent, dict(self._rows("SELECT key, value FROM sweep")), shared)
        known = {row[0] for row in self._rows("SELECT id FROM trial")}
        check_trials(self._path.parent, known, replicates.keys())
        sql = "SELECT id FROM trial WHERE status != 'todo' OR attempts > 0"
        return {replicates[row[0]] for row in self._rows(sql)}

    def widen(self, host: str, shared: Collection[str], started: Collection[int]) -> None:
        """Turn the ledger of a sweep on one host into that of a sweep on several.

        Args:
            host: The host, which becomes one of several.
            shared: Names of the parts of the sweep's identity that all hosts share.
            started: The replicates that the host has started, and keeps.
        """
        stored = dict(self._rows("SELECT key, value FROM sweep"))
        own = {key if key in shared else f"{key}{_OF}{host}": stored[key] for key in stored}
        with self._writing() as db:
            db.execute("DELETE FROM sweep")
            db.executemany("INSERT INTO sweep VALUES (?, ?)", (own | SEVERAL).items())
            rows = [(number, host) for number in started]
            db.executemany("INSERT OR REPLACE INTO replicate VALUES (?, ?)", rows)

    def join(self, host: str, own: Mapping[str, str]) -> None:
        """Add a host to the sweep, or check that it has not changed since an earlier call.

        Args:
            host: The host's own name.
            own: Its properties that must be the same in every call, by name.

        Raises:
            LedgerError: a property has changed; the message names it.
        """
        present = {f"{key}{_OF}{host}": value for key, value in own.items()}
        stored = dict(self._rows("SELECT key, value FROM sweep"))
        if host in self.hosts():
            check_identity(self._path.parent, stored, present)
            return
        with self._writing() as db:
            db.executemany("INSERT OR REPLACE INTO sweep VALUES (?, ?)", present.items())

    def hosts(self) -> set[str]:
        """Return the own names of all hosts of the sweep so far."""
        return {row[0] for row in self._rows("SELECT value FROM sweep WHERE key LIKE 'host of %'")}

    def bind(self, replicate: int, host: str) -> None:
        """Assign a replicate to a host. All its trials must run there, since ratios are paired."""
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO replicate VALUES (?, ?)", (replicate, host))

    def bound(self) -> dict[int, str]:
        """Return the own name of the host of each assigned replicate, by its number."""
        return dict(self._rows("SELECT number, host FROM replicate"))

    def failed(self) -> list[str]:
        """Return the ids of the failed trials, in the order of the sweep."""
        sql = "SELECT id FROM trial WHERE status = 'failed' ORDER BY position"
        return [row[0] for row in self._rows(sql)]

    def note(self, name: str, replicate: int | None = None, aside: str = "") -> None:
        """Store what a host does, for `virtbed status`.

        Args:
            name: Its name in the inventory.
            replicate: The replicate that it carries out; None if it carries out none.
            aside: Why it is set aside; empty if it is not.
        """
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO host VALUES (?, ?, ?)", (name, replicate, aside))

    def forget_notes(self) -> None:
        """Remove the notes of an earlier call."""
        with self._writing() as db:
            db.execute("DELETE FROM host")
