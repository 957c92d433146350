#!/usr/bin/python3
"""Leftover processes and mounts of a trial: find them, end them, prove that none is left."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.virtbed_contract.kernel.processes import PROC, with_environment

DOCUMENTATION = r"""
module: instance_processes
short_description: End an instance's processes, and prove that neither a process nor a mount is left
options:
  pattern:
    description: Regular expression that matches VIRTBED_INSTANCE in the processes' environment.
    type: str
    required: true
author: virtbed
"""
EXAMPLES = r"""
- name: End the leftover processes of an interrupted trial
  instance_processes:
    pattern: ^bm-pinned-c01-r01$
"""
RETURN = r"""
ended:
  description: Ids of the processes that were ended.
  returned: always
  type: list
  elements: int
"""

MARK = b"VIRTBED_INSTANCE="


def marked(pattern: str, proc: Path = PROC) -> list[int]:
    """Return the ids of the processes whose mark matches `pattern`."""
    matching = re.compile(pattern.encode()).match
    return with_environment(
        lambda variable: variable.startswith(MARK) and bool(matching(variable[len(MARK) :])), proc
    )


def mounted(table: str) -> list[str]:
    """Return the mount points of images' trees in a mount table. Bubblewrap should leave none."""
    points = [line.split()[1] for line in table.splitlines()]
    return [point for point in points if "/virtbed/images/" in point]


def main() -> None:
    """Run the Ansible module."""
    module = AnsibleModule(
        argument_spec={"pattern": {"type": "str", "required": True}}, supports_check_mode=True
    )
    pattern = module.params["pattern"]
    ended = marked(pattern)
    deadline = time.monotonic() + 10
    while not module.check_mode and (left := marked(pattern)):
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it has ended by itself
        if time.monotonic() > deadline:
            module.fail_json(msg=f"instance_processes: {left} still run after SIGKILL and 10 s")
        time.sleep(0.05)
    if mounts := mounted(Path("/proc/self/mounts").read_text()):
        module.fail_json(msg=f"instance_processes: {mounts} still mounted; `umount` them")
    module.exit_json(changed=bool(ended), ended=ended)


if __name__ == "__main__":
    main()
