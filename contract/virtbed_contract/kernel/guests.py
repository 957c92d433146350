"""The threads and memory of a QEMU process, as the host's kernel placed them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional

from . import processes
from .cpus import allowed, format_cpu_list
from .files import chosen, read

ROOT = Path("/")


def vcpu_threads(pid: int, proc: Path = processes.PROC) -> dict[int, int]:
    """Return the thread of each vCPU; QEMU names them "CPU 0/KVM" or "CPU 0/TCG"."""
    found = {}
    for thread in processes.threads(pid, proc):
        stat = processes.stat(f"{pid}/task/{thread}", proc)
        name = stat.name if stat else ""
        if name.startswith("CPU ") and "/" in name:
            found[int(name[4 : name.index("/")])] = thread
    return found


def vcpu_readings(pid: int, threads: Mapping[int, int]) -> list[dict[str, Any]]:
    """Return where each vCPU's thread may run, and how often the kernel moved it, by vCPU."""
    return [
        {
            "vcpu": vcpu,
            "thread": thread,
            "cpus_allowed_list": allowed(thread),
            "migrations": processes.migrations(pid, thread),
            "mems_allowed_list": processes.memory_nodes(f"{pid}/task/{thread}"),
        }
        for vcpu, thread in sorted(threads.items())
    ]


def helpers_allowed(pid: int, threads: Mapping[int, int], proc: Path = processes.PROC) -> str:
    """Return the kernel list of the CPUs on which any thread that is no vCPU may run.

    Those are the main loop, I/O, and whatever else QEMU started.
    """
    found: set[int] = set()
    for thread in processes.threads(pid, proc) - set(threads.values()):
        with suppress(ProcessLookupError):  # I/O threads come and go
            found |= os.sched_getaffinity(thread)
    return format_cpu_list(found)


def transparent_hugepage(root: Path = ROOT) -> Optional[str]:
    """Return how the host joins pages: ``always``, ``madvise`` or ``never``."""
    return chosen(read(root / "sys/kernel/mm/transparent_hugepage/enabled"))
