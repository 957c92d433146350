"""Huge pages of this process: as the kernel's setting has them, never, or asked for by malloc."""

from __future__ import annotations

import ctypes
import os
import sys

from virtbed_contract.factors import values_of
from virtbed_contract.likeness import HUGE_MALLOC
from virtbed_workloads.contract import ApplicationError

CHOICES = values_of("huge_pages")
"""The first is the kernel's setting."""
_PR_SET_THP_DISABLE = 41


def choose(choice: str) -> None:
    """Let all memory that is asked for from here on have huge pages as chosen.

    The C library reads how its allocator is tuned before a program begins, so for ``malloc`` this
    process executes itself once more: its start takes some 20 ms longer.

    Raises:
        ApplicationError: the kernel cannot turn them off for one process.
    """
    name, value = HUGE_MALLOC
    if choice == "malloc" and os.environ.get(name) != value:
        argv = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, argv, {**os.environ, name: value})  # nosec B606 # itself
    if choice == "never" and ctypes.CDLL(None).prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0:
        raise ApplicationError(
            "huge pages cannot be turned off for one process by this kernel (PR_SET_THP_DISABLE), "
            "which --huge-pages=never needs; Linux 3.15 or newer can"
        )
