"""Knows alone, among the modules, how the kernel writes a set of CPUs."""

from __future__ import annotations

import os
from collections.abc import Iterable


def kernel_list(cpus: Iterable[int]) -> str:
    """Return the kernel list of CPUs: {0, 2, 3, 4} gives "0,2-4"."""
    chosen, parts = set(cpus), []
    for first in sorted(cpu for cpu in chosen if cpu - 1 not in chosen):
        last = first
        while last + 1 in chosen:
            last += 1
        parts.append(str(first) if first == last else f"{first}-{last}")
    return ",".join(parts)


def numbers(text: str) -> set[int]:
    """Return the CPUs in a kernel list: "0,2-4" gives {0, 2, 3, 4}."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def allowed(thread: int) -> str:
    """Return the kernel list of the CPUs that a thread may run on.

    The status file's Cpus_allowed_list also has CPUs that may be plugged in one day.
    """
    return kernel_list(os.sched_getaffinity(thread))
