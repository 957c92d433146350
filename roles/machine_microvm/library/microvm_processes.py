#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""QEMU processes of microVMs: find them by their guest's name, and end them."""

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
  - Finds them by the command lines in /proc, so that a guest whose directory is gone is found too.
  - Sends SIGTERM to each process, and SIGKILL after O(timeout_s).
options:
  name:
    description: Regular expression that must match the whole name of a guest.
    type: str
    required: true
  timeout_s:
    description: Seconds between SIGTERM and SIGKILL.
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
  description: Ids of the processes that were ended.
  returned: success
  type: list
  elements: int
"""


def find(name: str, proc: Path = Path("/proc")) -> list[int]:
    """Return the ids of the QEMU processes whose guest's name matches, without zombies."""
    pids = []
    for pid in processes.pids(proc):
        with suppress(OSError):  # the process has ended
            words = (proc / str(pid) / "cmdline").read_text(errors="replace").split("\0")
            if Path(words[0]).name.startswith("qemu-system-") and "-name" in words:
                guest = words[words.index("-name") + 1].split(",")[0].removeprefix("guest=")
                if re.fullmatch(name, guest):
                    pids.append(pid)
    return sorted(pids)


def end(name: str, timeout_s: float) -> list[int]:
    """End the processes of the matching guests; return those that survived SIGKILL."""
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
    pids = find(name)
    if pids and not module.check_mode and (left := end(name, module.params["timeout_s"])):
        module.fail_json(
            msg=f"microvm_processes: processes {left} found after SIGKILL, none needed; "
            "/proc/PID/stack shows what the kernel waits for"
        )
    module.exit_json(changed=bool(pids), ended=pids)


if __name__ == "__main__":
    main()
