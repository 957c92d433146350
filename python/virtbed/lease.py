"""Who carries a results folder out: one controller at a time, and whether it is still there.

Two means, since neither is enough alone. A lock on a file in the folder holds among processes of
one kernel, and is gone with its process. A lease in the ledger holds among machines that share the
folder, where such a lock may not reach; it names its holder, and ends by itself.
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
"""A lease outlasts the step that it is for by so long: to end a playbook takes its time, too."""
_LOCK = ".lock"


class LeaseError(RuntimeError):
    """Another controller carries the folder out; the message names it and until when."""


@dataclass(frozen=True)
class Holder:
    """A process, distinguished from any other that had or will have its number.

    Attributes:
        host: Name of the machine.
        pid: Number of the process.
        boot: The kernel's boot id: another one, and no process of then is left.
        started: When it started, in the kernel's ticks since boot; empty where that is unknown.
    """

    host: str
    pid: int
    boot: str
    started: str

    @classmethod
    def here(cls, proc: Path = Path("/proc")) -> Holder:
        """Return this process."""
        pid = os.getpid()
        return cls(os.uname().nodename, pid, _boot(proc), _started(pid, proc))

    def gone(self, proc: Path = Path("/proc")) -> bool:
        """Return whether the process is known to have ended: False where that cannot be seen."""
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
        # The name, which may hold spaces and parentheses, ends at the last parenthesis.
        fields = (proc / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        return fields[19]
    except (OSError, IndexError):
        return ""


def until(limit_s: float) -> float:
    """Return when a lease ends that is taken now for a step with a limit, in seconds since 1970."""
    return time.time() + limit_s + SLACK_S


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a results folder.

    Raises:
        LeaseError: another process of this machine holds it.
        OSError: the folder cannot be written.
    """
    # Whoever can open it can lock it, and keep every controller out.
    opened = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with suppress(OSError):  # one that was made before for all to read
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
