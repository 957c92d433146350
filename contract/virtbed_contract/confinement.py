"""Confinement of a container: the parts that a plan can vary, and their attestation.

A plan varies one part at a time to measure its share of a container's cost. A value that was
requested but did not take effect would be measured as something else. So each value is compared
with a reading from the kernel, or from the engine if only the engine knows it.
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
"""Reading that each value of the factor ``seccomp_profile`` must have."""
NETWORK = {"none": "own", "host": "host"}
"""Network namespace that each value of the factor ``network`` must have: see `readings.enclosed`.
"""


@dataclass(frozen=True)
class Quota:
    """A CPU quota as written to control groups: CPU time per period, and burst."""

    quota_us: int
    period_us: int
    burst_us: int

    @property
    def times(self) -> str:
        """Period and burst, in the words of `cgroups.quota_times`."""
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
    """Return the differences between a container's confinement and the requested one.

    Args:
        instance: The instance as it was requested.
        reading: Reading of its enclosure: ``seccomp``, ``network`` (``host`` or ``own``),
            ``runtime`` (name or path of the runtime) and ``quota_times``. A part with its default
            is compared only if it is reported; a part that the plan varies must be reported.

    Returns:
        One sentence per difference, with the value found and the value needed.
    """
    return list(_mismatches(instance, reading))


def seccomp_of(instance: Instance) -> str:
    """Return the seccomp state that a container must have, in the kernel's words."""
    return SECCOMP[_value(instance, "seccomp_profile")]


def _mismatches(instance: Instance, reading: Mapping[str, Any]) -> Iterator[str]:
    quota, runtime = quota_of(instance), reading.get("runtime")
    used = PurePosixPath(runtime).name if isinstance(runtime, str) else None
    runtime_needed = _value(instance, "runtime")
    compared: list[tuple[tuple[str, ...], Optional[str], Any]] = [
        (
            ("seccomp_profile",),
            seccomp_of(instance),
            reading.get("seccomp"),
        ),
        (("network",), NETWORK[_value(instance, "network")], reading.get("network")),
        # The engine's default runtime is not known here, so the default accepts any.
        (
            ("runtime",),
            used if runtime_needed == default_of("runtime") else runtime_needed,
            used,
        ),
        (("cfs_period", "cfs_burst"), quota.times if quota else None, reading.get("quota_times")),
    ]
    for names, needed, found in compared:
        if needed is None or needed == found:
            continue
        # The readings are of the sandbox's process, in which the application does not run.
        known = found is not None and not instance.private_kernel
        if known or any(_value(instance, name) != default_of(name) for name in names):
            requested = " and ".join(f"{name} {_value(instance, name)}" for name in names)
            has = found or "not reported it"
            yield f"{requested} was requested, which is {needed}; the container has {has}"


def _value(instance: Instance, name: str) -> str:
    """Return the value of a factor, which is the default if the instance lacks it.

    Instances of earlier sweeps lack newer factors. An unknown value is treated as the default, too:
    no plan can request it, so a reading then contradicts the label.
    """
    value = instance.factors.get(name, default_of(name))
    return value if value in values_of(name) else default_of(name)
