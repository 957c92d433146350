#!/usr/bin/python3
"""Knows alone how a trial's process is started, timed, bounded and heard."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import time

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: trial_process
short_description: Run one trial's process and return the JSON document that it prints
description:
  - Appends --spawned-at-ns with CLOCK_MONOTONIC read just before the process is started.
  - The process ends with this module, or after the time limit.
options:
  argv:
    description: The command.
    type: list
    elements: str
    required: true
  timeout_s:
    description: Seconds after which the process is ended.
    type: int
    required: true
author: virtbed
"""
EXAMPLES = r"""
- name: Run the application
  trial_process:
    argv: [python3, -m, virtbed_workloads, image_classification, --scale, tiny]
    timeout_s: 300
"""
RETURN = r"""
document:
  description: What the process printed.
  returned: success
  type: dict
wall_ns:
  description: Nanoseconds from just before the start to the end of the process.
  returned: success
  type: int
"""

_PR_SET_PDEATHSIG = 1
_LAST_WORDS = 3000  # characters of the log that an error message quotes


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the one that started it dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "argv": {"type": "list", "elements": "str", "required": True},
            "timeout_s": {"type": "int", "required": True},
        }
    )
    argv, timeout_s = module.params["argv"], module.params["timeout_s"]
    started_ns = time.monotonic_ns()
    process = subprocess.Popen(
        [*argv, "--spawned-at-ns", str(started_ns)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=die_with_parent,
        start_new_session=True,
    )
    try:
        out, log = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        _, log = process.communicate()
        module.fail_json(
            msg=f"trial_process: still running after {timeout_s} s; raise timeout_s in the plan, "
            f"or ask for fewer samples. Last words: {log.decode(errors='replace')[-_LAST_WORDS:]}"
        )
    wall_ns = time.monotonic_ns() - started_ns
    words = log.decode(errors="replace")[-_LAST_WORDS:]
    if process.returncode != 0:
        module.fail_json(msg=f"trial_process: exit status {process.returncode}: {words}")
    try:
        document = json.loads(out)
    except ValueError as error:
        module.fail_json(
            msg=f"trial_process: no JSON document printed ({error}): {out[:500]!r} {words}"
        )
    module.exit_json(changed=True, document=document, wall_ns=wall_ns)


if __name__ == "__main__":
    main()
