#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Start of a paused microVM: pin its vCPU threads, then let the guest run."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qmp import Monitor, QmpError

DOCUMENTATION = r"""
module: microvm_start
short_description: Pin the vCPU threads of a paused QEMU, then let the guest run
description:
  - Waits until QEMU's monitor answers, pins each vCPU's thread, and lets the guest run. So the
    guest executes no instruction on another CPU.
options:
  pid_file:
    description: File with QEMU's process id.
    type: path
    required: true
  log:
    description: File of QEMU's messages; an error message quotes its end.
    type: path
    required: true
  monitor:
    description: QEMU's QMP socket.
    type: path
    required: true
  cpu_ids:
    description: The host CPU of each vCPU; empty does not pin the threads.
    type: list
    elements: int
    default: []
author: virtbed
"""
EXAMPLES = r"""
- name: Start a guest of two pinned vCPUs
  microvm_start:
    monitor: /var/lib/virtbed/instances/x/qemu/qmp.sock
    pid_file: /var/lib/virtbed/instances/x/qemu.pid
    log: /var/lib/virtbed/instances/x/qemu.log
    cpu_ids: [2, 3]
"""
RETURN = r"""
threads:
  description: Thread id of each vCPU.
  returned: success
  type: list
  elements: int
"""


def pin(threads: list[int], cpu_ids: list[int]) -> bool:
    """Pin each thread to its CPU; return whether any affinity changed."""
    changed = False
    for thread, cpu in zip(threads, cpu_ids):  # noqa: B905 (strict= is of Python 3.10)
        if os.sched_getaffinity(thread) != {cpu}:
            os.sched_setaffinity(thread, {cpu})
            changed = True
    return changed


def ended(pid_file: Path, proc: Path = Path("/proc")) -> bool:
    """Return whether the process in a pid file has ended; a zombie's command line is empty."""
    if not pid_file.exists():
        return False
    try:
        return not (proc / pid_file.read_text().strip() / "cmdline").read_bytes()
    except FileNotFoundError:
        return True


def main() -> None:
    """Run the Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "pid_file": {"type": "path", "required": True},
            "log": {"type": "path", "required": True},
            "monitor": {"type": "path", "required": True},
            "cpu_ids": {"type": "list", "elements": "int", "default": []},
        }
    )
    cpu_ids, pid_file = module.params["cpu_ids"], Path(module.params["pid_file"])
    try:
        with Monitor(module.params["monitor"], ended=partial(ended, pid_file)) as monitor:
            vcpus = monitor.execute("query-cpus-fast")
            threads = [vcpu["thread-id"] for vcpu in sorted(vcpus, key=lambda v: v["cpu-index"])]
            if cpu_ids and len(cpu_ids) != len(threads):
                module.fail_json(
                    msg=f"microvm_start: {len(threads)} vCPU threads found, {len(cpu_ids)} needed "
                    f"for CPUs {cpu_ids}"
                )
            changed = pin(threads, cpu_ids)
            if not monitor.execute("query-status")["running"]:
                monitor.execute("cont")
                changed = True
    except (QmpError, OSError) as error:
        log = Path(module.params["log"])
        output = log.read_text(errors="replace")[-1000:] if log.exists() else "nothing"
        module.fail_json(msg=f"microvm_start: {error}; QEMU printed: {output}")
    module.exit_json(changed=changed, threads=threads)


if __name__ == "__main__":
    main()
