#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Rate of the host's time stamp counter."""

from __future__ import annotations

import ctypes
import mmap
import time
from collections.abc import Callable

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: tsc_rate
short_description: Measure the rate of the host's time stamp counter
description:
  - Compares the counter with the host's monotonic clock. The kernel knows the rate but does not
    report it to programs, and the frequency in /proc/cpuinfo is the processor's present one.
  - Changes nothing.
options: {}
author: virtbed
"""
EXAMPLES = r"""
- name: Measure the rate of the time stamp counter
  tsc_rate:
  register: rate
"""
RETURN = r"""
khz:
  description: Ticks per millisecond.
  returned: success
  type: int
"""

# rdtsc; shl rdx, 32; or rax, rdx; ret
_READ_TSC = bytes.fromhex("0f31 48c1e220 4809d0 c3")


def reader() -> Callable[[], int]:
    """Return a function that reads the time stamp counter of an x86-64 processor."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(_READ_TSC)
    code = ctypes.c_char.from_buffer(page)  # kept alive by an attribute of the function below
    read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(code))
    read.code = code
    return read


def both(read: Callable[[], int], tries: int = 50) -> tuple[int, int]:
    """Return the monotonic clock in ns, and the counter at the same moment.

    Uses the shortest of `tries` readings, as nothing interrupted that one.
    """
    readings = []
    for _ in range(tries):
        before = time.monotonic_ns()
        ticks = read()
        after = time.monotonic_ns()
        readings.append((after - before, (before + after) // 2, ticks))
    _, clock_ns, ticks = min(readings)
    return clock_ns, ticks


def rate_khz(read: Callable[[], int], seconds: float = 0.2) -> int:
    """Return the counter's ticks per millisecond (kHz).

    An error of 0.5 us in the default 0.2 s is 2.5 ppm.
    """
    clock_ns, ticks = both(read)
    time.sleep(seconds)
    later_ns, later = both(read)
    return round((later - ticks) * 1e6 / (later_ns - clock_ns))


def main() -> None:
    """Run the Ansible module."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    try:
        read = reader()
    except OSError as error:
        module.fail_json(msg=f"tsc_rate: no memory that can be executed: {error}")
    module.exit_json(changed=False, khz=rate_khz(read))


if __name__ == "__main__":
    main()
