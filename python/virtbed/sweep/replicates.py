"""Assignment of replicates to the hosts of a fleet: each replicate runs on exactly one host."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import inf
from threading import Condition

_POLL_S = 1.0
"""Interval at which a waiting host checks whether it must end, in seconds."""


class Replicates:
    """The incomplete replicates of a sweep, shared by the threads of its hosts (thread-safe).

    Ratios are paired within a replicate, and so within a host. A replicate that a host has started
    stays with it. Another host takes it over, and starts it again, only if that host no longer
    takes part and every other replicate was started.

    Args:
        missing: Numbers of the replicates with missing trials.
        bound: The host of each replicate that was started, by number.
    """

    def __init__(self, missing: Iterable[int], bound: Mapping[int, str]) -> None:
        self._missing = set(missing)
        self._bound = dict(bound)
        self._held: set[int] = set()
        self._present: set[str] = set()
        self._changed = Condition()

    @property
    def left(self) -> list[int]:
        """The numbers of the replicates that are not complete yet."""
        with self._changed:
            return sorted(self._missing)

    def enter(self, host: str) -> None:
        """Let a host take part."""
        with self._changed:
            self._present.add(host)

    def leave(self, host: str) -> None:
        """Let a host take part no longer: others may take over the replicates it has started."""
        with self._changed:
            self._present.discard(host)
            self._changed.notify_all()

    def take(
        self, host: str, ends: Callable[[], bool], wait_s: float = inf
    ) -> tuple[int, str] | None:
        """Take a replicate for a host; wait if none is free, since another host may return one.

        Args:
            host: The host's own name.
            ends: Called every second; True ends the wait.
            wait_s: The longest wait.

        Returns:
            The replicate's number and the host that had started it: empty for a new replicate,
            `host` for one that it continues. None if no replicate is left, if none was free within
            `wait_s`, or if `ends` was True.
        """
        until = time.monotonic() + wait_s
        with self._changed:
            while self._missing and not ends():
                number = self._next(host)
                if number is not None:
                    earlier_host = self._bound.get(number, "")
                    self._bound[number] = host
                    self._held.add(number)
                    return number, earlier_host
                if (left_s := until - time.monotonic()) <= 0:
                    break
                self._changed.wait(min(_POLL_S, left_s))
        return None

    def _next(self, host: str) -> int | None:
        """Return the replicate that a host takes next: its own, a new one, or an abandoned one."""
        free = self._missing - self._held
        own = {number for number in free if self._bound.get(number) == host}
        new = {number for number in free if number not in self._bound}
        abandoned = {number for number in free if self._bound.get(number) not in self._present}
        return min(own or new or abandoned, default=None)

    @contextmanager
    def held(self, number: int) -> Iterator[None]:
        """Hold a taken replicate within the context; without an error it is complete afterwards."""
        try:
            yield
            with self._changed:
                self._missing.discard(number)
        finally:
            with self._changed:
                self._held.discard(number)
                self._changed.notify_all()

    def wait(self, seconds: float, ends: Callable[[], bool]) -> bool:
        """Wait; return whether replicates are still missing then, and `ends` was not True.

        Args:
            seconds: The time to wait.
            ends: Called every second; True ends the wait.
        """
        until = time.monotonic() + seconds
        with self._changed:
            while self._missing and not ends() and (left_s := until - time.monotonic()) > 0:
                self._changed.wait(min(_POLL_S, left_s))
            return bool(self._missing) and not ends()
