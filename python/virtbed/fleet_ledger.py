"""The journal of a sweep that several hosts carry out: which replicate is whose."""

from __future__ import annotations

from collections.abc import Mapping

from virtbed.ledger import Ledger, LedgerError, check_identity

SEVERAL = {"hosts": "several"}
"""What the identity of a sweep of several hosts has; one of one host names it as `host`."""
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
    """A sweep's journal, with its hosts. Each worker has a connection of its own."""

    _wait_s = 60.0  # a write takes milliseconds, but every host's worker writes

    def _open(self) -> None:
        super()._open()
        self._db.executescript(_SCHEMA)

    def refuse_one_host(self, reported: str) -> None:
        """Raise LedgerError if the sweep was started on one host alone, or joined of such.

        Args:
            reported: The one host that the sweep's folder has a report of, if it has one: what
                tells where the journal was lost.
        """
        one = self._rows("SELECT value FROM sweep WHERE key = 'host'")
        name = one[0][0] if one else reported if self.new() else ""
        if ", " in name:
            raise LedgerError(
                f"{self._path.parent} was joined of sweeps of one host each, {name}; carry out "
                "what is missing of these in their own folders, and virtbed merge again"
            )
        if name:
            raise LedgerError(
                f"{self._path.parent} was started on one host, {name}, now several are named; "
                "name that one alone (--limit), give the plan another name, or move that folder "
                "away"
            )

    def join(self, host: str, own: Mapping[str, str]) -> None:
        """Let a host take part, or check that it is as it was.

        Args:
            host: Its own name.
            own: What must not change of it between two calls.

        Raises:
            LedgerError: it has changed; the message names what.
        """
        asked = {f"{key}{_OF}{host}": value for key, value in own.items()}
        there = dict(self._rows("SELECT key, value FROM sweep"))
        if host in self.hosts():
            check_identity(self._path.parent, there, asked)
            return
        with self._writing() as db:
            db.executemany("INSERT OR REPLACE INTO sweep VALUES (?, ?)", asked.items())

    def hosts(self) -> set[str]:
        """Return the own names of all hosts that took part so far."""
        return {row[0] for row in self._rows("SELECT value FROM sweep WHERE key LIKE 'host of %'")}

    def bind(self, replicate: int, host: str) -> None:
        """Let a replicate be a host's: its trials run there, or are none of a pair."""
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO replicate VALUES (?, ?)", (replicate, host))

    def bound(self) -> dict[int, str]:
        """Return the own name of the host of each replicate that has one."""
        return dict(self._rows("SELECT number, host FROM replicate"))

    def failed(self) -> list[str]:
        """Return the trials that failed, in order."""
        sql = "SELECT id FROM trial WHERE status = 'failed' ORDER BY position"
        return [row[0] for row in self._rows(sql)]

    def note(self, name: str, replicate: int | None = None, aside: str = "") -> None:
        """Note what a host does, for whoever looks.

        Args:
            name: Its name in the inventory.
            replicate: The replicate that it carries out; None for none.
            aside: Why it is set aside; empty if it is not.
        """
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO host VALUES (?, ?, ?)", (name, replicate, aside))

    def forget_notes(self) -> None:
        """Forget what hosts did in an earlier call."""
        with self._writing() as db:
            db.execute("DELETE FROM host")
