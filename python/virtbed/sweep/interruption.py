"""Interruption of a sweep by signals, and the errors that end a sweep.

The first signal ends the running playbook, and the running instance is released. A second one,
some seconds later, ends the release too.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Signals closer together count as one: Ctrl-C reaches virtbed, and also the Ansible that started
# it, which passes the signal on.
_ONE_REQUEST_S = 5.0


class SweepError(RuntimeError):
    """A sweep that cannot start or continue; the message states what to do."""


class NoRoomError(SweepError):
    """A disk has too little free space. The running instance is released; the next call continues.

    Args:
        why: The space found, the space needed, and what to do.
    """

    def __init__(self, why: str) -> None:
        super().__init__(f"{why}; everything is released, and the next call continues")


class HostFullError(NoRoomError):
    """A disk of one bench host is full, not one of this machine: other hosts can continue."""


class HostRebootedError(SweepError):
    """A bench host has rebooted since its examination, so its settings are not those any more."""


class HostLostError(SweepError):
    """One of several bench hosts is unreachable; its instance may still exist."""


class Kept(SweepError):
    """A trial failed, and its instance is kept; the message states how to log in to it."""


class Interrupted(SweepError):
    """The user ended the sweep; the running instance is released, and the next call continues."""


class Interruption:
    """The user's request to end the sweep, from signals.

    Attributes:
        wanted: True after a signal: the playbook ends, and the running instance is released.
        insisted: True after another signal, seconds later: the release ends, too.
    """

    def __init__(self) -> None:
        self.wanted = False
        self.insisted = False
        self._since = 0.0

    def end(self) -> None:
        """Request the end without a signal, because of an error that concerns all hosts."""
        self.wanted = True

    def check(self) -> None:
        """Raise Interrupted if the end was requested."""
        if self.wanted:
            raise Interrupted("interrupted; everything is released, and the next call continues")

    @contextmanager
    def by_signals(self) -> Iterator[None]:
        """Handle SIGINT, SIGTERM and SIGHUP as requests to end, within the context."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        earlier = {number: signal.signal(number, self._signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)

    def _signal(self, *_: object) -> None:
        now = time.monotonic()
        if not self._since:  # the first signal, even if `end` was called before
            self.wanted, self._since = True, now
            line = b"\nending: releasing the running instance\n"
        elif now - self._since > _ONE_REQUEST_S:
            self.insisted = True
            line = b"\nending at once: the next sweep releases the running instance\n"
        else:
            return
        # The process that reads our output may have been ended by the same Ctrl-C.
        with suppress(OSError):
            os.write(sys.stderr.fileno(), line)
