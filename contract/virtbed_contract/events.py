"""Events that the playbooks of a sweep report to the controller: results of two action plugins.

``block_started`` returns `BlockStart`; ``trial_outcome`` returns `TrialOutcome` as ``outcome``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from .codec import described
from .documents import KERNEL_LIST
from .limits import DiskFree
from .result import Count, Text
from .sweep import Reading


@dataclass(frozen=True)
class BlockStart:
    """The start of a block: its instance is about to be provisioned."""

    instance: Text = described("Id of the instance.")
    bench: Text = described("Host name of the bench host.")
    cpus: str = described("CPUs that the controller uses during the block.", pattern=KERNEL_LIST)
    here: bool = described("Whether the controller runs on the bench host.")
    disks: tuple[DiskFree, ...] = described("Free space on the bench host's disks.", default=())


@dataclass(frozen=True)
class FetchedFile:
    """A file that a playbook fetched to the controller."""

    path: Text = described("Path of the file on the controller.")
    size: Count = described("Size of the file, in bytes.")
    sha256: str = described("SHA-256 of the file's content.", pattern="^[0-9a-f]{64}$")


@dataclass(frozen=True)
class TaskFailure:
    """The task that failed a trial."""

    task: str = described("Name of the task.")
    message: str = described("Message of the task.")


@dataclass(frozen=True)
class Readings:
    """Readings before, inside and after a trial."""

    before: Optional[Reading] = described(
        "Reading before the trial; null if the playbook failed earlier.", default=None
    )
    inside: Optional[dict[str, Any]] = described(
        "Reading by the application: its `environment`.", default=None
    )
    after: Optional[Reading] = described(
        "Reading after the trial; null if the playbook failed earlier.", default=None
    )


@dataclass(frozen=True)
class TrialOutcome:
    """The outcome of a trial: its result and readings, or its failure."""

    id: Text = described("Id of the trial.")
    started_at: str = described("When the trial started, UTC.", format="date-time")
    result: Optional[FetchedFile] = described(
        "The document that the harness printed; null if there is none."
    )
    process_wall_ns: Optional[Count] = described(
        "Wall time of the process, in nanoseconds; null if none ran."
    )
    evidence: Readings = described("Readings before, inside and after the trial.")
    failure: Optional[TaskFailure] = described(
        "The task that failed the trial; null if the trial succeeded.", default=None
    )
