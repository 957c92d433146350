"""Attestation of a trial from inside: compare what the application read with what was requested.

Any difference would be measured as a cost of the platform, so each one fails the trial. Roles call
`mismatches` through a filter plugin, and the analysis calls it again on the recorded evidence. The
modules `confinement`, `guest` and `neighbours` compare the readings from outside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Optional

from . import privileges
from .confinement import NO_SECCOMP, quota_of, seccomp_of
from .counts import count
from .documents import BARE, Instance, TrialRequest
from .factors import default_of
from .likeness import DEFAULT_ALLOCATOR, SPLIT

NO_MITIGATIONS = "mitigations=off"
"""Parameter on the kernel's command line that turns mitigations off."""
_MITIGATIONS = "guest_mitigations"
DEFAULT_HUGE_PAGES = default_of("huge_pages")
_NO_SWAP = ("none", "0 MiB")


def mismatches(
    instance: Instance,
    trial: TrialRequest,
    reading: Mapping[str, Any],
    hugepages: Optional[str],
) -> list[str]:
    """Return the differences between what an application saw and what it had to see.

    Args:
        instance: The instance in which the application ran.
        trial: The trial as it was requested.
        reading: What the module ``trial_process`` returned: ``inside`` (the result's environment),
            ``ran_on``, ``migrations``, ``thread_policy`` and ``transparent_hugepage``.
        hugepages: Setting of transparent huge pages on the host of a guest; None if the application
            ran on the host itself.

    Returns:
        One sentence per difference, each with the value found and the value needed.
    """
    differences = [
        *_cpus(instance, reading),
        *_threads(instance, trial, reading),
        *_settings(instance, trial, reading),
    ]
    differences += _mitigations(instance, reading)
    granted = (
        reading["inside"].get("privileges") or {}
    )  # results of earlier sweeps do not have them
    differences += [
        f"the application had more privileges than it needs: {more}"
        for more in privileges.excess(granted)
    ]
    hidden = [name for name in trial.isa if name not in reading["inside"]["isa"]]
    if hidden:
        differences.append(
            f"{', '.join(hidden)} hidden from the application, which saw "
            f"{', '.join(reading['inside']['isa'])}; all that the host has are needed: change the "
            "guest's CPU model (machine_guest_hidden_cpu_features in the inventory)"
        )
    if hugepages is not None and reading["transparent_hugepage"] != hugepages:
        differences.append(
            f"transparent hugepages {reading['transparent_hugepage']} found in the guest, "
            f"{hugepages} on its host; the same setting needed on both: one was changed while the "
            "guest ran"
        )
    return differences


def _cpus(instance: Instance, reading: Mapping[str, Any]) -> Iterator[str]:
    inside = reading["inside"]
    size = f"({instance.mode}, {count(instance.cores, 'core')})"
    if inside["cpus_allowed_list"] != instance.seen_cpus:
        yield (
            f"the application read CPUs {inside['cpus_allowed_list']}, {instance.seen_cpus} needed "
            f"{size}"
        )
    quota = inside["cgroup"]["quota_cpus"]
    if quota != instance.seen_quota_cpus:
        yield (
            f"the application read a quota of {_quota(quota)}, "
            f"{_quota(instance.seen_quota_cpus)} needed {size}"
        )
    if instance.own_kernel and inside["cpus_visible"] != instance.cores:
        yield (
            f"the application saw {count(inside['cpus_visible'], 'CPU')}, {instance.cores} needed "
            "in a guest of that size"
        )
    usable = inside["threads"]["usable_cores"]
    if usable != instance.cores:
        yield f"the application counted {usable} usable cores, {instance.cores} needed {size}"
    if not reading["ran_on"] and not instance.private_kernel:
        yield (
            "threads of the application were found on no CPU; at least one reading of their CPUs "
            "needed"
        )
    strayed = sorted(set(reading["ran_on"]) - set(inside["affinity"]))
    if strayed:
        yield (
            f"threads of the application were found on CPUs outside of its affinity: {strayed}, at "
            f"most {inside['cpus_allowed_list']} needed"
        )
    if instance.mode == "pinned" and instance.cores == 1 and reading["migrations"]:
        yield (
            f"the application was moved to another CPU {count(reading['migrations'], 'time')}, 0 "
            "needed on one pinned core"
        )


def _threads(instance: Instance, trial: TrialRequest, reading: Mapping[str, Any]) -> Iterator[str]:
    pools = reading["inside"]["threads"]
    wrong = trial.thread_policy == "matched" and not (
        pools["intra_op"] == pools["inter_op"] == instance.cores
    )
    if reading["thread_policy"] != trial.thread_policy or wrong:
        yield (
            f"thread policy {reading['thread_policy']} with pools of {pools['intra_op']} and "
            f"{pools['inter_op']} found; {trial.thread_policy} needed, on "
            f"{count(instance.cores, 'core')}"
        )


def _mitigations(instance: Instance, reading: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence if a guest's kernel was booted with the wrong setting of mitigations."""
    requested = instance.factors.get(_MITIGATIONS, default_of(_MITIGATIONS))
    cmdline = (reading["inside"].get("kernel_settings") or {}).get("cmdline")
    off = None if cmdline is None else NO_MITIGATIONS in str(cmdline).split(SPLIT)
    needed = requested != default_of(_MITIGATIONS)
    if instance.own_kernel and off != needed and (needed or off is not None):
        yield (
            f"the guest's kernel was booted with {cmdline}, {NO_MITIGATIONS} "
            f"{'' if needed else 'not '}needed (guest_mitigations {requested})"
        )


def _settings(instance: Instance, trial: TrialRequest, reading: Mapping[str, Any]) -> Iterator[str]:
    """Yield the differences in settings other than placement.

    A setting that is not reported is not compared, unless the plan varies it.
    """
    settings = reading["inside"].get("process_settings") or {}
    times, quota = settings.get("quota_times"), quota_of(instance)
    if instance.seen_quota_cpus is not None and quota and times not in (None, quota.times):
        yield f"the application read a quota of {times}; {quota.times} needed"
    # The default profile is the engine's own, so its reading is not compared.
    seccomp, needed = settings.get("seccomp"), seccomp_of(instance)
    if needed == NO_SECCOMP and seccomp != needed:
        yield f"the application had seccomp {seccomp}, {needed} needed"
    pages = settings.get("page_policy")
    if pages != trial.huge_pages and (pages, trial.huge_pages) != (None, DEFAULT_HUGE_PAGES):
        yield (
            f"the application had huge pages {pages}, {trial.huge_pages} needed "
            "(/proc/PID/status: THP_enabled, and GLIBC_TUNABLES)"
        )
    limited = instance.enclosure != BARE[1] and not instance.private_kernel
    if limited and settings.get("swap_limit") not in (None, *_NO_SWAP):
        yield (
            f"the application's control group leaves it {settings['swap_limit']} of swap, 0 MiB "
            "needed: something lifted the limit (`docker update --memory-swap`, or a reload of "
            "systemd?)"
        )
    if settings.get("allocator") not in (None, DEFAULT_ALLOCATOR):
        yield (
            f"the application's allocator is changed by {settings['allocator']}; "
            f"{DEFAULT_ALLOCATOR} needed, on every platform"
        )


def _quota(cpus: Optional[float]) -> str:
    return "none" if cpus is None else count(cpus, "CPU")
