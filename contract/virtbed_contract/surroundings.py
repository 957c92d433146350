"""Parts of a result that tell what stood around a process: settings, and what a kernel counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from .codec import described, with_fields
from .documents import KERNEL_LIST
from .likeness import fields


@with_fields(fields("kernel"))
@dataclass(frozen=True)
class KernelSettings:
    """Settings of a kernel that decide what the same work costs."""


@with_fields(fields("process"))
@dataclass(frozen=True)
class ProcessSettings:
    """What the kernel, the C library and the engine set for the process alone."""


@dataclass(frozen=True)
class Moved:
    """What a kernel counted and logged between two readings; null for what it does not tell."""

    window_s: Optional[float] = described("Time between the readings, in seconds.", minimum=0)
    cpus: str = described("The CPUs whose interrupts count.", pattern=KERNEL_LIST)
    device_interrupts: Optional[int] = described("Interrupts of devices on those CPUs.", minimum=0)
    busiest: Optional[str] = described("The device with the most of them, by number and name.")
    timer_interrupts: Optional[int] = described("Interrupts of those CPUs' own timers.", minimum=0)
    aimed: tuple[str, ...] = described("Devices whose interrupts were moved to those CPUs.")
    throttled: Optional[int] = described("How often heat slowed cores and packages.", minimum=0)
    processes: Optional[int] = described("Processes and threads that were started.", minimum=0)
    swapped_pages: Optional[int] = described("Pages that were moved to swap, or back.", minimum=0)
    messages: Optional[int] = described("New messages of the kernel.", minimum=0)
    last_message: Optional[str] = described("The last of them.")
    timers: tuple[str, ...] = described("Timers of systemd that fired.")
    changed: tuple[str, ...] = described("Settings that were changed, with both values.")


@dataclass(frozen=True)
class NeighbourRan:
    """What an instance next to the measured one did from before the trial to after it."""

    cpus: str = described("Host CPUs that it ran on.", pattern=KERNEL_LIST)
    shares: str = described("The smallest part of the machine that the measured instance shares.")
    housekeeping: bool = described("Whether helpers and the controller ran there, too.")
    requests: int = described("Requests that it answered.", minimum=1)
    busy_cpus: Optional[float] = described(
        "CPUs that it kept busy, on average; null where the readings are too close.", minimum=0
    )


@dataclass(frozen=True)
class Bench:
    """What the bench host's kernel reported; on metal it is the kernel of the process, too."""

    settings: KernelSettings = described("Its settings before the trial.")
    moved: Optional[Moved] = described("What it counted and logged from before to after it.")
