#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The QEMU processes of microVMs: found by the name of their guest, and ended."""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.virtbed_contract.kernel import processes

DOCUMENTATION = r"""
module: microvm_processes
short_description: End the QEMU processes of guests whose name matches, and prove that none is left
description:
  - Reads command lines in /proc, so that a guest is found whose directory is gone.
  - Each process is asked to end (SIGTERM), and killed after O(timeout_s).
options:
  name:
    description: Regular expression that the whole name of a guest matches.
    type: str
    required: true
  timeout_s:
    description: Seconds until a process that was asked to end is killed.
    type: int
    default: 10
author: virtbed
"""
EXAMPLES = r"""
- name: End every microVM
  microvm_processes:
    name: microvm.virtbed-.*
"""
RETURN = r"""
ended:
  description: The processes that were ended.
  returned: success
  type: list
  elements: int
"""


def find(name: str, proc: Path = Path("/proc")) -> list[int]:
    """Return the processes of the guests whose name matches, zombies left out."""
    found = []
    for pid in processes.pids(proc):
        with suppress(OSError):  # it ended meanwhile
            words = (proc / str(pid) / "cmdline").read_text(errors="replace").split("\0")
            if Path(words[0]).name.startswith("qemu-system-") and "-name" in words:
                guest = words[words.index("-name") + 1].split(",")[0].removeprefix("guest=")
                if re.fullmatch(name, guest):
                    found.append(pid)
    return sorted(found)


def end(name: str, timeout_s: float) -> list[int]:
    """End the processes of guests; return those that even SIGKILL has not ended."""
    for number, seconds in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, 5.0)):
        for pid in find(name):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + seconds
        while (left := find(name)) and time.monotonic() < deadline:
            time.sleep(0.05)
    return left


def main() -> None:
    """Run the Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "timeout_s": {"type": "int", "default": 10},
        },
        supports_check_mode=True,
    )
    name = module.params["name"]
    found = find(name)
    if found and not module.check_mode and (left := end(name, module.params["timeout_s"])):
        module.fail_json(
            msg=f"microvm_processes: processes {left} found after SIGKILL, none needed; "
            "/proc/PID/stack says what the kernel waits for"
        )
    module.exit_json(changed=bool(found), ended=found)


if __name__ == "__main__":
    main()
