"""Readings of the confounders of a trial: steal, other processes, throttling, pressure and more.

The kernel's counters are read before and after the measured requests and subtracted. The CPUs that
the threads run on are read between requests, outside the timed path. A value that the kernel does
not provide is None. The harness writes the readings into the result; the analysis judges them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic_ns, process_time_ns
from typing import Any

from virtbed_contract.kernel import cgroups, moments, processes, settings, topology
from virtbed_contract.kernel.cpus import format_cpu_list
from virtbed_contract.kernel.files import chosen, read

_LOOK_EVERY_NS = 500_000_000
_BUSY = slice(0, 3)  # user, nice, system of a line of /proc/stat; then idle, iowait, irq, softirq
_INTERRUPTS = slice(5, 7)
_STEAL = 7
_PRESSURES = ("cpu", "memory", "io")


@dataclass
class Watch:
    """A window of confounder readings, from the object's creation to `read_off`."""

    root: Path = Path("/")
    cpus: tuple[int, ...] = field(default_factory=lambda: tuple(sorted(os.sched_getaffinity(0))))
    load_before: float | None = None
    """Result of `read_load_1min` before the trial's own work raised it."""
    settings_before: dict[str, Any] = field(default_factory=dict)
    """Result of `settings.kernel` at that time; reading it just before the first request would
    take too long."""
    _ran_on: set[int] = field(default_factory=set)
    _looks: int = 0
    _looked_ns: int = 0

    def __post_init__(self) -> None:
        self._counted = counts_cpu_time(self.root)
        self._siblings = read_siblings(self.root, self.cpus)
        self._mhz = read_mhz(self.root, self.cpus) if self._counted else None
        self._kernel = moments.counters(self.root, self.cpus)
        self._before = self._counters()

    def look(self) -> None:
        """Record the CPU that each thread of this process last ran on, at most twice per second."""
        now_ns = monotonic_ns()
        if not self._counted or now_ns - self._looked_ns < _LOOK_EVERY_NS:
            return
        self._looked_ns = now_ns
        self._looks += 1
        proc = self.root / "proc"
        for thread in processes.threads(proc=proc):
            stat = processes.stat(f"self/task/{thread}", proc)
            if stat is not None and stat.processor is not None:
                self._ran_on.add(stat.processor)

    def read_off(self) -> dict[str, Any]:
        """Return the changes since the creation, as the result's ``confounders``.

        Shares are parts of the CPU time of `cpus` in the window. Pressures are shares of the window
        in which at least one task of the machine waited.
        """
        self._looked_ns = 0
        self.look()
        before, after = self._before, self._counters()
        kernel = moments.counters(self.root, self.cpus)
        window_ns = after["ns"] - before["ns"]
        ticks = {key: after[key] - before[key] for key in ("busy", "steal", "all")}
        tick_ns = 1e9 / os.sysconf("SC_CLK_TCK")
        own_ns = after["own_ns"] - before["own_ns"]
        capacity_ns = window_ns * len(self.cpus)
        return {
            "window_ns": window_ns,
            "cpus": format_cpu_list(self.cpus),
            "own_cpu_ns": own_ns,
            "steal_share": _share(ticks["steal"], ticks["all"]) if self._counted else None,
            # The two clocks differ in resolution, so the difference can be slightly negative.
            "others_share": max(0.0, _share(ticks["busy"] * tick_ns - own_ns, capacity_ns))
            if self._counted
            else None,
            "siblings_share": _share(
                tick_ns * (after["siblings"] - before["siblings"]), window_ns * len(self._siblings)
            )
            if self._siblings
            else None,
            "throttling": _difference(before["throttling"], after["throttling"]),
            "pressure": {
                name: None
                if after["pressure_us"][name] is None
                else _share(
                    1e3 * (after["pressure_us"][name] - before["pressure_us"][name]), window_ns
                )
                for name in _PRESSURES
            },
            "mhz": {
                "before": self._mhz,
                "after": read_mhz(self.root, self.cpus) if self._counted else None,
            },
            "governor": read(
                self.root / topology.CPUS / f"cpu{self.cpus[0]}/cpufreq/scaling_governor"
            ),
            "temperature_c": read_temperature_c(self.root),
            "transparent_hugepage": chosen(
                read(self.root / "sys/kernel/mm/transparent_hugepage/enabled")
            ),
            "load_1min": {"before": self.load_before, "after": read_load_1min(self.root)},
            "migrations": _migrations(before["migrations"], after["migrations"]),
            "ran_on": sorted(self._ran_on),
            "looks": self._looks,
            "moved": moments.moved(
                self._kernel | {"settings": self.settings_before},
                kernel | {"settings": settings.kernel(self.root)},
            ),
        }

    def _counters(self) -> dict[str, Any]:
        siblings = _ticks(self.root, self._siblings)["busy"]
        return _counters(self.root) | _ticks(self.root, self.cpus) | {"siblings": siblings}


def counts_cpu_time(root: Path = Path("/")) -> bool:
    """Return whether this kernel accounts for the time of its CPUs.

    gVisor's /proc/stat is all zeros. Its other values about CPUs (CPU of a thread, frequencies,
    load) are constant, so they are not used either. Any other kernel has counted something since
    it booted.
    """
    first = (read(root / "proc/stat") or "").partition("\n")[0]
    return any(value != "0" for value in first.split()[1:])


def read_load_1min(root: Path = Path("/")) -> float | None:
    """Read the load average of the last minute; None on a kernel that counts no tasks."""
    words = (read(root / "proc/loadavg") or "").split()
    return float(words[0]) if words and words[3] != "0/0" else None


def read_mhz(root: Path, cpus: tuple[int, ...]) -> float | None:
    """Read the mean frequency of some CPUs in MHz, from cpufreq or else from /proc/cpuinfo."""
    frequencies = [
        int(khz) / 1e3
        for cpu in cpus
        if (khz := read(root / topology.CPUS / f"cpu{cpu}/cpufreq/scaling_cur_freq"))
    ]
    if not frequencies:
        current = -1
        for line in (read(root / "proc/cpuinfo") or "").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "processor":
                current = int(value)
            elif key.strip() == "cpu MHz" and current in cpus:
                frequencies.append(float(value))
    return sum(frequencies) / len(frequencies) if frequencies else None


def read_temperature_c(root: Path) -> float | None:
    """Read the temperature of the hottest thermal zone in degrees Celsius; None without zones."""
    zones = [read(path) for path in (root / "sys/class/thermal").glob("thermal_zone*/temp")]
    return max((int(zone) / 1e3 for zone in zones if zone), default=None)


def read_siblings(root: Path, cpus: tuple[int, ...]) -> tuple[int, ...]:
    """Read the SMT siblings of some CPUs that are not among them: load there slows these CPUs."""
    threads = {thread for cpu in cpus for thread in topology.siblings(root, cpu)}
    return tuple(sorted(threads - set(cpus)))


def _ticks(root: Path, cpus: tuple[int, ...]) -> dict[str, int]:
    """Read the CPU time of some CPUs in clock ticks: ``busy``, ``steal`` and ``all``."""
    busy = steal = every = 0
    wanted = {f"cpu{number}" for number in cpus}
    for line in (read(root / "proc/stat") or "").splitlines():
        name, *values = line.split()
        if name in wanted:
            ticks = [int(value) for value in values[:8]]  # user time already includes guest time
            busy += sum(ticks[_BUSY]) + sum(ticks[_INTERRUPTS])
            steal += ticks[_STEAL]
            every += sum(ticks)
    return {"busy": busy, "steal": steal, "all": every}


def _counters(root: Path) -> dict[str, Any]:
    return {
        "ns": monotonic_ns(),
        "own_ns": process_time_ns(),
        "throttling": cgroups.throttling(root),
        "pressure_us": {name: _pressure_us(root, name) for name in _PRESSURES},
        "migrations": _read_migrations(root),
    }


def _read_migrations(root: Path) -> dict[int, int]:
    """Read how often each thread of this process migrated to another CPU.

    Empty on a kernel without CONFIG_SCHED_DEBUG.
    """
    proc = root / "proc"
    counts = {
        thread: processes.migrations("self", thread, proc)
        for thread in processes.threads(proc=proc)
    }
    return {thread: count for thread, count in counts.items() if count is not None}


def _migrations(before: dict[int, int], after: dict[int, int]) -> int | None:
    """Sum the differences per thread; the count of a thread that ended in between is lost."""
    return sum(n - before.get(task, 0) for task, n in after.items()) if after else None


def _difference(
    before: dict[str, int] | None, after: dict[str, int] | None
) -> dict[str, int] | None:
    if before is None or after is None:
        return None
    return {key: after[key] - before[key] for key in after}


def _pressure_us(root: Path, name: str) -> int | None:
    for line in (read(root / "proc/pressure" / name) or "").splitlines():
        kind, *values = line.split()
        if kind == "some":
            return int(dict(value.split("=") for value in values)["total"])
    return None


def _share(part: float, whole: float) -> float:
    return round(part / whole, 6) if whole else 0.0
