"""Replicates handed to whichever host is free: each is one host's, and no two have one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from threading import Condition

_LOOK_S = 1.0
"""How often a host that has nothing to do looks whether it is to end."""


class Replicates:
    """The replicates of a sweep that are not whole yet. Threads may share it.

    Ratios are made within a replicate, and so within a host. A replicate that was started stays
    with its host; it is taken over, and started again, only if that host does not take part any
    more and no replicate is left that nobody has started.

    Args:
        missing: Numbers of those of which trials are missing.
        bound: The host of each replicate that was started.
    """

    def __init__(self, missing: Iterable[int], bound: Mapping[int, str]) -> None:
        self._missing = set(missing)
        self._bound = dict(bound)
        self._held: set[int] = set()
        self._present: set[str] = set()
        self._changed = Condition()

    @property
    def left(self) -> list[int]:
        """The numbers of those that are not whole yet."""
        with self._changed:
            return sorted(self._missing)

    def enter(self, host: str) -> None:
        """Let a host take part."""
        with self._changed:
            self._present.add(host)

    def leave(self, host: str) -> None:
        """A host takes part no longer: what it has started may be taken over."""
        with self._changed:
            self._present.discard(host)
            self._changed.notify_all()

    def take(self, host: str, ends: Callable[[], bool]) -> tuple[int, str] | None:
        """Return a replicate for a host and the host that had started it; wait for one if need be.

        As long as another host carries one out, that one may yet be given back.

        Args:
            host: The host's own name.
            ends: Looked at every second; True ends the waiting.

        Returns:
            None if none is left, or it is to end. The name is empty for one that is new, and the
            host's own for one that goes on.
        """
        with self._changed:
            while self._missing and not ends():
                number = self._next(host)
                if number is not None:
                    before = self._bound.get(number, "")
                    self._bound[number] = host
                    self._held.add(number)
                    return number, before
                self._changed.wait(_LOOK_S)
        return None

    def _next(self, host: str) -> int | None:
        free = self._missing - self._held
        own = {number for number in free if self._bound.get(number) == host}
        new = {number for number in free if number not in self._bound}
        left = {number for number in free if self._bound.get(number) not in self._present}
        return min(own or new or left, default=None)

    @contextmanager
    def held(self, number: int) -> Iterator[None]:
        """Have a replicate meanwhile; it is whole unless an error ends it."""
        try:
            yield
            with self._changed:
                self._missing.discard(number)
        finally:
            with self._changed:
                self._held.discard(number)
                self._changed.notify_all()

    def wait(self, seconds: float, ends: Callable[[], bool]) -> bool:
        """Wait for some time; return whether there is still something to do then.

        Args:
            seconds: How long.
            ends: Looked at every second; True ends the waiting.
        """
        until = time.monotonic() + seconds
        with self._changed:
            while self._missing and not ends() and (left_s := until - time.monotonic()) > 0:
                self._changed.wait(min(_LOOK_S, left_s))
            return bool(self._missing) and not ends()
