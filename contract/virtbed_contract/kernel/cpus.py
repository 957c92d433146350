"""Kernel lists, in which the kernel writes sets of CPUs and memory nodes: ``0-2,5``."""

from __future__ import annotations

import os
from collections.abc import Iterable

MOST = 2**20
"""Largest number in a list. No kernel has as many CPUs, nodes or interrupts; a larger number would
only exhaust the memory."""


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """Return the numbers in a kernel list.

    Raises:
        ValueError: `text` is not a kernel list.

    >>> parse_cpu_list("0-2,5"), parse_cpu_list("")
    ((0, 1, 2, 5), ())
    """
    numbers: set[int] = set()
    for part in filter(None, text.strip("\0 \t\n").split(",")):
        first, dash, last = part.partition("-")
        try:
            low, high = int(first), int(last if dash else first)
        except ValueError:
            raise ValueError(
                f"{part!r} found in {text!r}, a number or a range such as 0-2 needed"
            ) from None
        if high > MOST:
            raise ValueError(f"{part!r} found in {text!r}, numbers up to {MOST} needed")
        if high < low:
            raise ValueError(f"{part!r} found in {text!r}, the range {high}-{low} needed")
        numbers.update(range(low, high + 1))
    return tuple(sorted(numbers))


def parse_cpu_mask(text: str) -> tuple[int, ...]:
    """Return the CPUs in a kernel mask: hexadecimal words of 32 bits, the highest first.

    Raises:
        ValueError: `text` is not a kernel mask.

    >>> parse_cpu_mask("3,00000001")
    (0, 32, 33)
    """
    digits = bin(int(text.replace(",", "") or "0", 16))[:1:-1]
    return tuple(place for place, digit in enumerate(digits) if digit == "1")


def format_cpu_list(numbers: Iterable[int]) -> str:
    """Return the kernel list of some numbers.

    >>> format_cpu_list({0, 1, 2, 5})
    '0-2,5'
    """
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def allowed(thread: int = 0) -> str:
    """Return the kernel list of the online CPUs that a thread may run on.

    Args:
        thread: The thread's id; 0 is the calling thread.

    Raises:
        ProcessLookupError: There is no such thread.
    """
    # Cpus_allowed_list in the status file also lists possible CPUs that are not present.
    return format_cpu_list(os.sched_getaffinity(thread))
