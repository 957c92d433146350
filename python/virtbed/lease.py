"""Mutual exclusion of controllers on one results folder: a file lock and a lease.

Neither is enough alone. The lock on a file in the folder works between processes of one kernel, and
ends with its process. The lease in the ledger works between machines that share the folder, where a
file lock may not; it names its holder, and expires by itself. `virtbed.ledger` stores the lease.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

SLACK_S = 60.0
"""A lease lasts this much longer than the step that it is for, since ending a playbook takes time.
"""
_LOCK = ".lock"


class LeaseError(RuntimeError):
    """Another controller has the folder; the message names it and the end of its lease."""


@dataclass(frozen=True)
class Holder:
    """A process of a controller, identified uniquely even when its number is used again.

    Attributes:
        host: Name of the machine.
        pid: Number of the process.
        boot: The kernel's boot id; after another boot, no earlier process exists.
        started: When the process started, in the kernel's ticks since boot; empty if unknown.
    """

    host: str
    pid: int
    boot: str
    started: str

    @classmethod
    def here(cls, proc: Path = Path("/proc"), pid: int | None = None) -> Holder:
        """Return this process, or another one of this machine by its number."""
        pid = os.getpid() if pid is None else pid
        return cls(os.uname().nodename, pid, _boot(proc), _started(pid, proc))

    def gone(self, proc: Path = Path("/proc")) -> bool:
        """Return whether the process is known to have ended; False if it is on another machine."""
        if self.host != os.uname().nodename:
            return False
        return self.boot != _boot(proc) or self.started != _started(self.pid, proc)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def _boot(proc: Path) -> str:
    try:
        return (proc / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _started(pid: int, proc: Path) -> str:
    try:
        # The process's name may contain spaces and parentheses; it ends at the last parenthesis.
        fields = (proc / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        return fields[19]
    except (OSError, IndexError):
        return ""


def until(limit_s: float) -> float:
    """Return the end of a lease, in seconds since 1970, for a step that starts now.

    Args:
        limit_s: Seconds that the step may take.
    """
    return time.time() + limit_s + SLACK_S


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the file lock of a results folder.

    Raises:
        LeaseError: another process of this machine holds it.
        OSError: the folder cannot be written.
    """
    # Mode 0600: any user who can open the file can lock it, and so block every controller.
    opened = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with suppress(OSError):  # a lock file of an earlier version was readable by all
            os.fchmod(opened, 0o600)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LeaseError(
                f"{folder} is being carried out by another process; wait for its end, or end it"
            ) from None
        yield
    finally:
        os.close(opened)
