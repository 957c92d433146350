"""Parts of a result about the surroundings of a process: settings, and what a kernel counted.

`likeness.RECORDED` lists the settings; `kernel.settings` and `kernel.moments` read them and the
counters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from .codec import described, with_fields
from .documents import KERNEL_LIST
from .likeness import fields


@with_fields(fields("kernel"))
@dataclass(frozen=True)
class KernelSettings:
    """Settings of a kernel that affect how long the same work takes."""


@with_fields(fields("process"))
@dataclass(frozen=True)
class ProcessSettings:
    """Settings of the process alone: by the kernel, the C library and the engine."""


@dataclass(frozen=True)
class Moved:
    """Events that a kernel counted and logged between two readings; null for what it hides."""

    window_s: Optional[float] = described("Time between the readings, in seconds.", minimum=0)
    cpus: str = described("CPUs whose interrupts are counted.", pattern=KERNEL_LIST)
    device_interrupts: Optional[int] = described(
        "Number of devices' interrupts on `cpus`.", minimum=0
    )
    busiest: Optional[str] = described(
        "The device with the most interrupts on `cpus`, by number and name."
    )
    timer_interrupts: Optional[int] = described(
        "Number of interrupts by the local timers of `cpus`.", minimum=0
    )
    aimed: tuple[str, ...] = described("Devices whose interrupts were moved to `cpus`.")
    throttled: Optional[int] = described(
        "How often cores and packages were throttled because of heat.", minimum=0
    )
    processes: Optional[int] = described(
        "Number of processes and threads that were started.", minimum=0
    )
    swapped_pages: Optional[int] = described(
        "Number of pages that were swapped out or in.", minimum=0
    )
    messages: Optional[int] = described("Number of new messages of the kernel.", minimum=0)
    last_message: Optional[str] = described("The last new message of the kernel.")
    timers: tuple[str, ...] = described("Timers of systemd that fired.")
    changed: tuple[str, ...] = described("Settings that were changed, with both values.")


@dataclass(frozen=True)
class NeighbourRan:
    """What a neighbour did between the readings before and after the trial."""

    cpus: str = described("Host CPUs that the neighbour ran on.", pattern=KERNEL_LIST)
    shares: str = described(
        "The smallest part of the host that it shares with the measured instance."
    )
    housekeeping: bool = described("Whether helpers and the controller also ran on its CPUs.")
    requests: int = described("Number of requests that it answered.", minimum=1)
    busy_cpus: Optional[float] = described(
        "Number of CPUs that it kept busy, on average; null if the readings are too close in time.",
        minimum=0,
    )


@dataclass(frozen=True)
class Bench:
    """Readings of the bench host's kernel, which on metal is also the kernel of the process."""

    settings: KernelSettings = described("Settings of the kernel before the trial.")
    moved: Optional[Moved] = described(
        "Events that the kernel counted and logged between before and after the trial; null if it "
        "was not read again."
    )
