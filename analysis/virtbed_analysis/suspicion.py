"""Thresholds on the confounders of a trial, each with its reason: what makes a trial suspect.

A suspect trial is marked with the number that was found. It stays in every table; the report also
shows what the ratios are without such trials.
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
    """A limit on one number of a result, and why it lies there."""

    name: str
    limit: float
    unit: str
    reason: str
    read: Callable[[Json], float | None]
    """The number, of the same unit as the limit; None where the kernel does not tell."""
    count: bool = False
    """Whether it is a number of things, and no share."""
    of_what: Callable[[Json], str] | None = None
    """What the number is of, in words."""

    def number(self, value: float) -> str:
        """Return a value of this number in words."""
        if self.count:
            return f"{value:.0f}"
        return f"{value:.2g}" if self.unit == "per sample" else f"{value:.1%}"


def _share(key: str) -> Callable[[Json], float | None]:
    return lambda result: result["confounders"][key]


def _pressure(key: str) -> Callable[[Json], float | None]:
    return lambda result: result["confounders"]["pressure"][key]


def _unasked_throttling(result: Json) -> float | None:
    """Return the share of stalls; None under a quota that was asked: they are what is measured."""
    throttling = result["confounders"]["throttling"]
    if throttling is None or result["trial"]["quota_cpus"] is not None:
        return None
    return float(throttling["throttled_ns"] / result["confounders"]["window_ns"])


def _unasked_siblings(result: Json) -> float | None:
    """Return what ran on the same cores' other threads; None where neighbours were put there."""
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
    # An emulated guest's and a cold image's first pages are read in the warm-up, which is left out.
    faults = result["rusage"]["major_faults"]
    return None if faults is None else float(faults / result["settings"]["samples"])


THRESHOLDS = (
    Threshold(
        "steal", 0.01, "of the CPU time",
        "a hypervisor gave the CPUs to others: 1% is as large as the overheads that are sought",
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
        _unasked_siblings,
    ),
    Threshold(
        "throttling", 0.0, "of the window",
        "a quota that nobody asked for stopped the process",
        _unasked_throttling,
    ),
    Threshold(
        "memory pressure", 0.01, "of the window",
        "tasks waited for memory: what is measured then is reclaim",
        _pressure("memory"),
    ),
    Threshold(
        "I/O pressure", 0.05, "of the window",
        "tasks waited for disks, which the applications do not use once loaded",
        _pressure("io"),
    ),
    Threshold(
        "frequency", 0.05, "between start and end",
        "the clock rate moved: times of its start and its end do not compare",
        _frequency_change,
    ),
    Threshold(
        "clocks", 0.001, "of the time",
        "the guest's seconds are not the host's; a clock that is being set slews by 0.05% at most",
        _share("clock_apart_share"),
    ),
    Threshold(
        "major faults", 0.1, "per sample",
        "pages were read from disk in the measured requests",
        _major_faults,
    ),
    Threshold(
        "interrupts", 1000.0, "per second and CPU",
        "with what follows it an interrupt of a device takes about 10 us: 1000 are 1% of the CPU",
        kernels.device_rate, count=True, of_what=kernels.busiest,
    ),
    Threshold(
        "moved interrupts", 0.0, "devices",
        "something (irqbalance?) let devices interrupt the measured CPUs meanwhile",
        kernels.number_of("aimed"), count=True, of_what=kernels.all_of("aimed"),
    ),
    Threshold(
        "timer interrupts", 2000.0, "per second and CPU",
        "more than any tick: others' timers fired on the measured CPUs",
        kernels.timer_rate, count=True,
    ),
    Threshold(
        "started processes", 5.0, "per second",
        "a script, a cron job or a service ran meanwhile; a quiet host starts hardly any process",
        kernels.start_rate, count=True,
    ),
    Threshold(
        "timers", 0.0, "of systemd fired",
        "what they start competes for caches, memory and disks, on whichever CPU it runs",
        kernels.number_of("timers"), count=True, of_what=kernels.all_of("timers"),
    ),
    Threshold(
        "heat", 0.0, "throttle events",
        "the CPU was slowed down to cool: the same work took longer",
        kernels.most("throttled"), count=True,
    ),
    Threshold(
        "swapping", 0.0, "pages",
        "memory was swapped to a disk or back",
        kernels.most("swapped_pages"), count=True,
    ),
    Threshold(
        "kernel messages", 0.0, "new",
        "a quiet kernel says nothing: a device, a file system or the memory had a problem",
        kernels.most("messages"), count=True, of_what=kernels.last_message,
    ),
    Threshold(
        "changed settings", 0.0, "of the kernel",
        "the trial ran in part under one setting, in part under another",
        kernels.number_of("changed"), count=True, of_what=kernels.all_of("changed"),
    ),
    Threshold(
        "clock", 1000.0, "ns per reading",
        "a clock that the kernel must be asked for (hpet, acpi_pm): a vDSO reads one in 20 to 50",
        kernels.clock_ns, count=True,
    ),
)  # fmt: skip


def suspicions(result: Json) -> list[str]:
    """Return what is suspect about a trial's result, each with the number found and the limit.

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
        found = threshold.read(result)
        if found is not None and found > threshold.limit:
            of_what = threshold.of_what(result) if threshold.of_what else ""
            yield (
                f"{threshold.name}: {threshold.number(found)} {threshold.unit}, "
                f"at most {threshold.number(threshold.limit)} expected"
                f"{f' ({of_what})' if of_what else ''}"
            )
