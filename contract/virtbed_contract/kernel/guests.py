"""Readers of a QEMU process on its host: where its threads run and its memory is."""

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
    """Return thread ids by vCPU; QEMU names these threads "CPU 0/KVM" or "CPU 0/TCG"."""
    threads = {}
    for thread in processes.threads(pid, proc):
        stat = processes.stat(f"{pid}/task/{thread}", proc)
        name = stat.name if stat else ""
        if name.startswith("CPU ") and "/" in name:
            threads[int(name[4 : name.index("/")])] = thread
    return threads


def vcpu_readings(pid: int, threads: Mapping[int, int]) -> list[dict[str, Any]]:
    """Return the placement of each vCPU's thread, in order of vCPU.

    Args:
        pid: Id of the QEMU process.
        threads: Thread ids by vCPU.

    Returns:
        One entry per vCPU: ``vcpu``, ``thread``, ``cpus_allowed_list``, ``migrations`` (how often
        the kernel moved the thread to another CPU) and ``mems_allowed_list``.
    """
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
    """Return the kernel list of the CPUs on which any of QEMU's other threads may run.

    These are the main loop, I/O threads and all others that are not vCPUs.
    """
    cpus: set[int] = set()
    for thread in processes.threads(pid, proc) - set(threads.values()):
        with suppress(ProcessLookupError):  # an I/O thread has ended
            cpus |= os.sched_getaffinity(thread)
    return format_cpu_list(cpus)


def transparent_hugepage(root: Path = ROOT) -> Optional[str]:
    """Return the host's setting of transparent huge pages: ``always``, ``madvise``, ``never``."""
    return chosen(read(root / "sys/kernel/mm/transparent_hugepage/enabled"))
