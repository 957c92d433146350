"""What a plan may vary of a container's confinement, and whether it has what was asked for.

One thing is varied at a time, to learn what of a container's cost it is. A value that was asked for
and not read back would be a wrong number: each is compared with a reading of the kernel's, or of
the engine's where only that knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Optional

from .documents import Instance
from .factors import default_of, values_of
from .kernel.cgroups import times_in_words

NO_SECCOMP = "none"
SECCOMP = {"filter": "filter", "unconfined": NO_SECCOMP}
"""What the kernel calls each value of the factor."""
NETWORK = {"none": "own", "host": "host"}
"""Whose namespace each value of the factor is: see `readings.enclosed`."""


@dataclass(frozen=True)
class Quota:
    """A CPU quota as control groups have it, in microseconds per period."""

    quota_us: int
    period_us: int
    burst_us: int

    @property
    def times(self) -> str:
        """Its period and burst, as `cgroups.quota_times` reads them."""
        return times_in_words(self.period_us, self.burst_us)


def quota_of(instance: Instance) -> Optional[Quota]:
    """Return the quota that an instance must have; None for none."""
    cpus = instance.quota_cpus or instance.seen_quota_cpus
    if cpus is None:
        return None
    period_us = 1000 * int(_value(instance, "cfs_period")[: -len("ms")])
    quota_us = round(cpus * period_us)
    full = _value(instance, "cfs_burst") == "full"
    return Quota(quota_us, period_us, quota_us if full else 0)


def confinement_mismatches(instance: Instance, reading: Mapping[str, Any]) -> list[str]:
    """Return what a container has not that a plan varies, a sentence each.

    Args:
        instance: As it was asked for.
        reading: Of its enclosure: ``seccomp``, ``network`` (``host`` or ``own``), ``runtime`` (the
            runtime's name or path) and ``quota_times``. What has its default is compared only if
            it is reported; what was varied must be.
    """
    return list(_mismatches(instance, reading))


def seccomp_of(instance: Instance) -> str:
    """Return what the kernel calls the seccomp that a container must have."""
    return SECCOMP[_value(instance, "seccomp_profile")]


def _mismatches(instance: Instance, reading: Mapping[str, Any]) -> Iterator[str]:
    quota, runtime = quota_of(instance), reading.get("runtime")
    used = PurePosixPath(runtime).name if isinstance(runtime, str) else None
    asked = _value(instance, "runtime")
    compared: list[tuple[tuple[str, ...], Optional[str], Any]] = [
        (
            ("seccomp_profile",),
            seccomp_of(instance),
            reading.get("seccomp"),
        ),
        (("network",), NETWORK[_value(instance, "network")], reading.get("network")),
        # What its engine's own choice is, its engine knows.
        (("runtime",), used if asked == default_of("runtime") else asked, used),
        (("cfs_period", "cfs_burst"), quota.times if quota else None, reading.get("quota_times")),
    ]
    for names, needed, found in compared:
        if needed is None or needed == found:
            continue
        # A sandbox's own process is not what the application runs in.
        known = found is not None and not instance.private_kernel
        if known or any(_value(instance, name) != default_of(name) for name in names):
            said = " and ".join(f"{name} {_value(instance, name)}" for name in names)
            has = found or "not reported it"
            yield f"{said} was asked for, which is {needed}; the container has {has}"


def _value(instance: Instance, name: str) -> str:
    """Return the value of a factor; earlier sweeps, which knew none, had the default.

    So has one that is no value: a plan cannot ask for it, and what is labelled so is contradicted.
    """
    value = instance.factors.get(name, default_of(name))
    return value if value in values_of(name) else default_of(name)
