"""The thresholds on a trial's confounders that make the trial suspect, each with its reason.

A suspect trial is marked with the number found and the limit. It remains in every table; a report
also shows the ratios without such trials. The controller uses `suspicions` after each trial.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from virtbed_analysis import kernels
from virtbed_contract.neighbours import CORE

Json = dict[str, Any]


@dataclass(frozen=True)
class Threshold:
    """A limit on one number of a result, with the reason of the limit."""

    name: str
    limit: float
    unit: str
    reason: str
    read: Callable[[Json], float | None]
    """Returns the number, in the unit of the limit; None if the kernel does not report it."""
    count: bool = False
    """Whether the number is a count, not a share."""
    of_what: Callable[[Json], str] | None = None
    """Returns the things that were counted, in words."""

    def number(self, value: float) -> str:
        """Return a value of this number in words."""
        if self.count:
            return f"{value:.0f}"
        return f"{value:.2g}" if self.unit == "per sample" else f"{value:.1%}"


def _share(key: str) -> Callable[[Json], float | None]:
    return lambda result: result["confounders"][key]


def _pressure(key: str) -> Callable[[Json], float | None]:
    return lambda result: result["confounders"]["pressure"][key]


def _unplanned_throttling(result: Json) -> float | None:
    """Return the share of stalls; None under a planned quota, whose stalls are measured."""
    throttling = result["confounders"]["throttling"]
    if throttling is None or result["trial"]["quota_cpus"] is not None:
        return None
    return float(throttling["throttled_ns"] / result["confounders"]["window_ns"])


def _unplanned_siblings(result: Json) -> float | None:
    """Return the load of the same cores' other threads; None if neighbours were placed there."""
    if any(one["shares"] == CORE for one in result.get("neighbours", ())):
        return None
    share: float | None = result["confounders"]["siblings_share"]
    return share


def _frequency_change(result: Json) -> float | None:
    mhz = result["confounders"]["mhz"]
    if not mhz["before"] or not mhz["after"]:
        return None
    return float(abs(mhz["after"] / mhz["before"] - 1))


def _major_faults(result: Json) -> float | None:
    # First pages of a cold image or an emulated guest are read during warm-up: not counted here.
    faults = result["rusage"]["major_faults"]
    return None if faults is None else float(faults / result["settings"]["samples"])


THRESHOLDS = (
    Threshold(
        "steal", 0.01, "of the CPU time",
        "a hypervisor gave the CPUs to others; 1% is as large as the overheads to be measured",
        _share("steal_share"),
    ),
    Threshold(
        "other processes", 0.02, "of the CPU time",
        "others ran on the measured CPUs; a quiet host's daemons and interrupts stay below 2%",
        _share("others_share"),
    ),
    Threshold(
        "sibling threads", 0.05, "of their CPU time",
        "others ran on the same cores' other threads, and shared their execution units and caches",
        _unplanned_siblings,
    ),
    Threshold(
        "throttling", 0.0, "of the window",
        "a quota that the plan does not have stopped the process",
        _unplanned_throttling,
    ),
    Threshold(
        "memory pressure", 0.01, "of the window",
        "tasks waited for memory, so the reclaim of memory was measured",
        _pressure("memory"),
    ),
    Threshold(
        "I/O pressure", 0.05, "of the window",
        "tasks waited for disks, which the applications do not use once loaded",
        _pressure("io"),
    ),
    Threshold(
        "frequency", 0.05, "between start and end",
        "the clock rate changed: times at the start and at the end cannot be compared",
        _frequency_change,
    ),
    Threshold(
        "clocks", 0.001, "of the time",
        "the guest's seconds differ from the host's; a clock that is being set slews by at most "
        "0.05%",
        _share("clock_apart_share"),
    ),
    Threshold(
        "major faults", 0.1, "per sample",
        "pages were read from disk during the measured requests",
        _major_faults,
    ),
    Threshold(
        "interrupts", 1000.0, "per second and CPU",
        "a device's interrupt takes about 10 us with its follow-up work: 1000 are 1% of the CPU",
        kernels.device_rate, count=True, of_what=kernels.busiest,
    ),
    Threshold(
        "moved interrupts", 0.0, "devices",
        "during the trial, something (irqbalance?) let devices interrupt the measured CPUs",
        kernels.number_of("aimed"), count=True, of_what=kernels.all_of("aimed"),
    ),
    Threshold(
        "timer interrupts", 2000.0, "per second and CPU",
        "more than any tick: timers of other processes fired on the measured CPUs",
        kernels.timer_rate, count=True,
    ),
    Threshold(
        "started processes", 5.0, "per second",
        "a script, a cron job or a service ran during the trial; a quiet host starts hardly any "
        "process",
        kernels.start_rate, count=True,
    ),
    Threshold(
        "timers", 0.0, "of systemd fired",
        "the jobs that they start compete for caches, memory and disks, whichever CPU they run on",
        kernels.number_of("timers"), count=True, of_what=kernels.all_of("timers"),
    ),
    Threshold(
        "heat", 0.0, "throttle events",
        "the CPU was slowed down to cool, so the same work took longer",
        kernels.most("throttled"), count=True,
    ),
    Threshold(
        "swapping", 0.0, "pages",
        "memory was swapped to a disk or back from it",
        kernels.most("swapped_pages"), count=True,
    ),
    Threshold(
        "kernel messages", 0.0, "new",
        "a quiet kernel writes none: a device, a file system or the memory had a problem",
        kernels.most("messages"), count=True, of_what=kernels.last_message,
    ),
    Threshold(
        "changed settings", 0.0, "of the kernel",
        "the trial ran partly under one setting and partly under another",
        kernels.number_of("changed"), count=True, of_what=kernels.all_of("changed"),
    ),
    Threshold(
        "clock", 1000.0, "ns per reading",
        "a clock that only the kernel can read (hpet, acpi_pm); through the vDSO it takes 20 to 50",
        kernels.clock_ns, count=True,
    ),
)  # fmt: skip


def suspicions(result: Json) -> list[str]:
    """Return the suspicions about a trial's result, each with the number found and the limit.

    Example:
        >>> import json
        >>> from pathlib import Path
        >>> trial = Path("results/quick/trials/cn-pinned-c01-image_classification-r01")
        >>> result = json.loads((trial / "result.json").read_text())
        >>> suspicions(result)
        []
        >>> result["confounders"]["steal_share"] = 0.05
        >>> suspicions(result)
        ['steal: 5.0% of the CPU time, at most 1.0% expected']
    """
    return list(_breaches(result))


def _breaches(result: Json) -> Iterator[str]:
    for threshold in THRESHOLDS:
        value = threshold.read(result)
        if value is not None and value > threshold.limit:
            of_what = threshold.of_what(result) if threshold.of_what else ""
            yield (
                f"{threshold.name}: {threshold.number(value)} {threshold.unit}, "
                f"at most {threshold.number(threshold.limit)} expected"
                f"{f' ({of_what})' if of_what else ''}"
            )
