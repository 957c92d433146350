"""Huge pages of this process: as the kernel is set, never, or requested by malloc."""

from __future__ import annotations

import ctypes
import os
import sys

from virtbed_contract.factors import values_of
from virtbed_contract.likeness import HUGE_MALLOC
from virtbed_workloads.contract import ApplicationError

CHOICES = values_of("huge_pages")
"""Values of ``--huge-pages``; the first leaves the kernel's setting."""
_PR_SET_THP_DISABLE = 41


def choose(choice: str) -> None:
    """Apply a value of `CHOICES` to all memory that this process allocates from now on.

    The C library reads the tuning of its allocator when a program starts. So for ``malloc`` this
    process executes itself again, which makes its start about 20 ms longer.

    Raises:
        ApplicationError: The kernel cannot turn huge pages off for one process.
    """
    name, value = HUGE_MALLOC
    if choice == "malloc" and os.environ.get(name) != value:
        argv = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, argv, {**os.environ, name: value})  # nosec B606 # itself
    if choice == "never" and ctypes.CDLL(None).prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0:
        raise ApplicationError(
            "this kernel cannot turn huge pages off for one process (PR_SET_THP_DISABLE), which "
            "--huge-pages=never needs; Linux 3.15 or newer is needed"
        )
