"""What a sweep's playbooks tell the controller: the results of two action plugins.

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
    """A block has started: its instance is about to be provisioned."""

    instance: Text = described("Id of the instance.")
    bench: Text = described("The bench host's own name.")
    cpus: str = described("CPUs that the controller keeps to meanwhile.", pattern=KERNEL_LIST)
    here: bool = described("Whether the controller runs on the bench host.")
    disks: tuple[DiskFree, ...] = described("What is free on the bench host's disks.", default=())


@dataclass(frozen=True)
class FetchedFile:
    """A file that a playbook fetched to the controller."""

    path: Text = described("Where it lies on the controller.")
    size: Count = described("Its size in bytes.")
    sha256: str = described("SHA-256 of its content.", pattern="^[0-9a-f]{64}$")


@dataclass(frozen=True)
class TaskFailure:
    """The task that failed a trial."""

    task: str = described("Name of the task.")
    message: str = described("Why, in the task's words.")


@dataclass(frozen=True)
class Readings:
    """What was read back around a trial."""

    before: Optional[Reading] = described(
        "Before it; null if it did not come to that.", default=None
    )
    inside: Optional[dict[str, Any]] = described(
        "By the application: its `environment`.", default=None
    )
    after: Optional[Reading] = described("After it; null if it did not come to that.", default=None)


@dataclass(frozen=True)
class TrialOutcome:
    """How a trial ended."""

    id: Text = described("Id of the trial.")
    started_at: str = described("When it started, UTC.", format="date-time")
    result: Optional[FetchedFile] = described(
        "The harness's document, as it printed it; null if there is none."
    )
    process_wall_ns: Optional[Count] = described("Wall time of the process; null if none ran.")
    evidence: Readings = described("What was read back before, inside and after.")
    failure: Optional[TaskFailure] = described(
        "Why it failed; null for a good trial.", default=None
    )
