"""How a sweep is interrupted: a signal ends what runs, and what is standing is released."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Signals closer together are one wish: Ctrl-C reaches virtbed and the Ansible that started it,
# which passes it on.
_ONE_WISH_S = 5.0


class SweepError(RuntimeError):
    """A sweep that cannot start or go on; the message says what to do."""


class NoRoomError(SweepError):
    """A disk has too little room to go on. What was standing is released; the next call goes on.

    Args:
        why: What was found and needed, and what to do.
    """

    def __init__(self, why: str) -> None:
        super().__init__(f"{why}; nothing is left standing, and the next call goes on")


class HostFullError(NoRoomError):
    """It is a disk of the bench host, not of this machine: another host has room."""


class HostLostError(SweepError):
    """One of several bench hosts cannot be reached any more; what stood there may stand still."""


class Kept(SweepError):
    """A trial failed, and its instance stands as it was; the message says how to look into it."""


class Interrupted(SweepError):
    """The user ended the sweep; what was standing is released, and the next call goes on."""


class Interruption:
    """Whether the user wants the sweep to end.

    Attributes:
        wanted: There was a signal: the playbook ends, and what is standing is released.
        insisted: There was another one, seconds later: the release ends, too.
    """

    def __init__(self) -> None:
        self.wanted = False
        self.insisted = False
        self._since = 0.0

    def end(self) -> None:
        """End what runs as a signal would: something is wrong that concerns all of it."""
        self.wanted = True

    def check(self) -> None:
        """Raise Interrupted if the user wants the sweep to end."""
        if self.wanted:
            raise Interrupted("interrupted; nothing is left standing, and the next call goes on")

    @contextmanager
    def by_signals(self) -> Iterator[None]:
        """Take SIGINT, SIGTERM and SIGHUP for the wish to end, meanwhile."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, self._signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _signal(self, *_: object) -> None:
        now = time.monotonic()
        if not self._since:  # also where an error had ended it already
            self.wanted, self._since = True, now
            said = b"\nending: releasing what is standing\n"
        elif now - self._since > _ONE_WISH_S:
            self.insisted = True
            said = b"\nending at once: what is standing is released by the next sweep\n"
        else:
            return
        # Whoever reads our output may have been ended by the same Ctrl-C.
        with suppress(OSError):
            os.write(sys.stderr.fileno(), said)
