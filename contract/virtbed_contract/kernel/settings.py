"""Reader of the settings of a kernel and of a process that affect how long the same work takes.

`likeness.RECORDED` lists the settings, most of which are texts. None means "not reported" and is
equal to nothing. An empty file gives None, too, since engines hide files by mounting empty ones
over them.
"""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic_ns
from typing import Any, Optional

from ..likeness import DEFAULT_ALLOCATOR, HUGE_MALLOC, SPLIT
from . import cgroups, processes, topology
from .files import fields, read
from .printed import Place

SYSCTLS = (
    "numa_balancing", "sched_autogroup_enabled", "sched_cfs_bandwidth_slice_us",
    "sched_rt_runtime_us", "timer_migration",
)  # fmt: skip
CONFIGS = ("boot/config-{}", "usr/lib/modules/{}/config", "lib/modules/{}/config")
CONFIG_OPTION = "CONFIG_(HZ|NO_HZ|PREEMPT|SCHED|CFS_|FAIR_GROUP|RT_GROUP|NUMA_BAL|RCU_NOCB|" \
    "RCU_EXPERT|TRANSPARENT_HUGE|HIGH_RES|CPU_IDLE|KSM|SECCOMP|MITIGATION|CPU_MITIG)"  # fmt: skip
"""Extended regular expression for the names of the options that are kept."""
IDLE = topology.CPUS / "cpuidle"
HALT_POLL = Path("sys/module/kvm/parameters/halt_poll_ns")
GUEST_HALT_POLL = Path("sys/module/haltpoll/parameters/guest_halt_poll_ns")
KSM = Path("sys/kernel/mm/ksm/run")
SCHED_EXT = Path("sys/kernel/sched_ext")
PREEMPTION = Path("sys/kernel/debug/sched/preempt")
_KSM_WORDS = {"0": "off", "1": "on", "2": "off, unmerged"}
_OPTION = re.compile(f"^{CONFIG_OPTION}[^=]*=.*$", re.MULTILINE)
_ALLOCATOR = ("GLIBC_TUNABLES", "MALLOC_", "LD_PRELOAD", "LD_AUDIT", "TCMALLOC_", "MIMALLOC_")
_ALLOCATORS = re.compile(r"/(lib(?:jemalloc|tcmalloc|mimalloc|tbbmalloc|hoard)[^/\s]*)$", re.M)


def kernel(root: Place) -> dict[str, Optional[str]]:
    """Return the settings of a kernel by name, from a tree of /proc and /sys.

    The names are those of `likeness.held("kernel")`.
    """
    return {name: reader(root) or None for name, reader in _KERNEL.items()}


def process(root: Place, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings of this process by name; the names are `likeness.held("process")`.

    Args:
        root: Root of the tree with ``proc`` and ``sys``.
        environment: Environment of the process.
    """
    return {
        **processes.protection(proc=root / "proc"),
        "scheduling": processes.scheduling(proc=root / "proc"),
        "quota_times": cgroups.quota_times(root),
        # If the kernel has no swap, its limit does not matter.
        "swap_limit": "none" if swap(root) == "none" else cgroups.swap_limit(root),
        "page_policy": page_policy(root, environment),
        "huge_share": huge_share(root),
        "clock_ns": clock_ns(),
        "libc": libc(),
        "allocator": allocator(root, environment),
    }


def config(root: Place) -> Optional[str]:
    """Return the options of the kernel's configuration that match `CONFIG_OPTION`, sorted."""
    release = read(root / "proc/sys/kernel/osrelease")
    texts = (read(root / path.format(release)) for path in CONFIGS) if release else iter(())
    text = _unzipped(root / "proc/config.gz") or next(filter(None, texts), "")
    options = sorted(match.group(0)[len("CONFIG_") :] for match in _OPTION.finditer(text))
    return SPLIT.join(options)


def _unzipped(path: Place) -> str:
    try:
        return gzip.decompress(path.read_bytes()).decode(errors="replace")
    except (OSError, EOFError, ValueError):
        return ""


def idle(root: Place) -> Optional[str]:
    """Return driver and governor of idle CPUs, and whether each idle state is on.

    A state is ``on``, ``off`` or, if CPUs differ, ``mixed``. Numbers of CPUs are not included,
    since they change when CPUs go offline.
    """
    states: dict[str, set[str]] = {}
    folders: list[Place] = [*(root / topology.CPUS).glob("cpu[0-9]*/cpuidle/state*")]
    for state in sorted(folders, key=lambda folder: folder.parts):
        off = read(state / "disable")
        if off:
            name = read(state / "name") or state.name
            states.setdefault(name, set()).add("off" if off != "0" else "on")
    parts = [
        f"{words} {text}"
        for words, text in (
            ("driver", read(root / IDLE / "current_driver")),
            ("governor", read(root / IDLE / "current_governor_ro")
             or read(root / IDLE / "current_governor")),
        )
        if text
    ]  # fmt: skip
    by_name = {
        name: values.pop() if len(values) == 1 else "mixed" for name, values in states.items()
    }
    return SPLIT.join([*parts, *(f"{name} {how}" for name, how in by_name.items())])


def scheduler(root: Place) -> Optional[str]:
    """Return the scheduler's settings from sysctl and sched_ext."""
    settings = ((name, read(root / "proc/sys/kernel" / name)) for name in SYSCTLS)
    parts = [f"{name} {text}" for name, text in settings if text]
    if (state := read(root / SCHED_EXT / "state")) and state != "disabled":
        parts.append(f"sched_ext {read(root / SCHED_EXT / 'root/ops') or state}")
    return SPLIT.join(parts)


def preemption(root: Place) -> Optional[str]:
    """Return the kernel's preemption model: "none (voluntary) full" gives "voluntary"."""
    return (read(root / PREEMPTION) or "").partition("(")[2].partition(")")[0]


def swap(root: Place) -> Optional[str]:
    """Return the size of the kernel's swap, such as "2048 MiB", or "none"."""
    lines = (read(root / "proc/swaps") or "").splitlines()
    if not lines:
        return None
    kib = sum(int(line.split()[2]) for line in lines[1:])
    return f"{kib // 1024} MiB" if kib else "none"


def page_policy(root: Place, environment: Mapping[str, str]) -> Optional[str]:
    """Return the huge-pages setting of a process: a value of the factor ``huge_pages``.

    Returns:
        ``never`` if the process has turned them off, ``malloc`` if its allocator requests them,
        else ``kernel``; None if the kernel does not report it.
    """
    enabled = processes.status(proc=root / "proc").get("THP_enabled")
    by_malloc = environment.get(HUGE_MALLOC[0]) == HUGE_MALLOC[1]
    return {"0": "never", "1": "malloc" if by_malloc else "kernel"}.get(enabled or "")


def huge_share(root: Place) -> Optional[float]:
    """Return the share of this process's anonymous memory that is in huge pages."""
    memory = fields(read(root / "proc/self/smaps_rollup"))
    try:
        whole, huge = (int(memory[name].split()[0]) for name in ("Anonymous", "AnonHugePages"))
    except (KeyError, ValueError):
        return None
    return round(huge / whole, 4) if whole else None


def clock_ns(times: int = 1000, batches: int = 5) -> float:
    """Return how long this process takes to read the clock, in nanoseconds.

    Args:
        times: Readings per batch.
        batches: Number of batches; the fastest one counts.
    """

    def batch() -> float:
        start_ns = monotonic_ns()
        for _ in range(times):
            monotonic_ns()
        return (monotonic_ns() - start_ns) / times

    return round(min(batch() for _ in range(batches)), 1)


def libc() -> Optional[str]:
    """Return the C library and its version, such as "glibc 2.36"."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        return None


def allocator(root: Place, environment: Mapping[str, str]) -> str:
    """Return what changes the C library's allocator: environment variables and libraries.

    The variable for huge pages is left out if `page_policy` already reports it.
    """
    covered = HUGE_MALLOC if page_policy(root, environment) else None
    changes = [f"{key}={value}" for key, value in sorted(environment.items())
             if key.startswith(_ALLOCATOR) and (key, value) != covered]  # fmt: skip
    changes += [f"ld.so.preload {text}" for text in [read(root / "etc/ld.so.preload")] if text]
    changes += sorted(set(_ALLOCATORS.findall(read(root / "proc/self/maps") or "")))
    return " ".join(SPLIT.join(changes).split()) or DEFAULT_ALLOCATOR


def _text(path: Path) -> Callable[[Place], Optional[str]]:
    return lambda root: read(root / path)


_KERNEL: dict[str, Callable[[Place], Optional[str]]] = {
    "build": _text(Path("proc/sys/kernel/version")),
    "config": config,
    "preemption": preemption,
    "cmdline": lambda root: SPLIT.join((read(root / "proc/cmdline") or "").split()),
    "scheduler": scheduler,
    "microcode": lambda root: fields(read(root / "proc/cpuinfo")).get("microcode"),
    "idle": idle,
    "halt_poll": _text(HALT_POLL),
    "guest_halt_poll": _text(GUEST_HALT_POLL),
    "ksm": lambda root: _KSM_WORDS.get(read(root / KSM) or ""),
    "swap": swap,
}
