#!/usr/bin/python3
"""One trial's process: started, timed, bounded, and its document kept."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.virtbed_contract.kernel.files import write_text

DOCUMENTATION = r"""
module: trial_process
short_description: Run one trial's process and keep the JSON document that it prints
description:
  - Appends --spawned-at-ns with CLOCK_REALTIME, in nanoseconds, read just before its start.
  - The process ends with this module, or after the time limit.
  - Its standard output is written to a file, whole or not at all. Of the document only what
    attestation needs is returned, so that no samples pass through Ansible.
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
  result:
    description: File to write what the process printed; its folder must exist.
    type: path
    required: true
author: virtbed
"""
EXAMPLES = r"""
- name: Run the application
  trial_process:
    argv: [python3, -m, virtbed_workloads, image_classification, --scale, tiny]
    timeout_s: 300
    result: /run/virtbed/trials/cn-vanilla-c01-image_classification-r01.json
"""
RETURN = r"""
result:
  description: The file, as C(path), C(size) in bytes and C(sha256).
  returned: success
  type: dict
wall_ns:
  description: Nanoseconds from just before the start to the end of the process.
  returned: success
  type: int
inside:
  description: The document's C(environment).
  returned: success
  type: dict
ran_on:
  description: CPUs on which threads of the process were found, of the document's C(confounders).
  returned: success
  type: list
  elements: int
migrations:
  description: How often they were moved to another CPU, of its C(confounders).
  returned: success
  type: int
transparent_hugepage:
  description: Setting of transparent huge pages, of its C(confounders).
  returned: success
  type: str
thread_policy:
  description: The thread policy that the application confirms, of its C(settings).
  returned: success
  type: str
"""

_PR_SET_PDEATHSIG = 1
_LAST_WORDS = 3000  # characters of the log that an error message quotes


# What engines and SSH mean by statuses of their own.
_STATUSES = {
    125: ", as an engine ends that cannot run it (virtbed doctor tells whether its daemon answers)",
    126: ", as an engine ends whose daemon went away (virtbed doctor tells whether it answers)",
    127: ", its program is not there",
    255: ", as SSH ends where its connection is lost or cannot be made",
}


class TrialError(Exception):
    """A trial without a document; the message says why, and quotes the end of its log."""


def run(argv: list[str], timeout_s: int) -> tuple[str, str, int]:
    """Run a trial's process.

    Args:
        argv: The command; the time of its start is appended.
        timeout_s: Seconds after which it is killed.

    Returns:
        Its standard output, the end of its standard error, and its wall time in nanoseconds.

    Raises:
        TrialError: it did not end in time, or with another exit status than 0.
    """
    started_ns = time.monotonic_ns()
    process = subprocess.Popen(
        [*argv, "--spawned-at-ns", str(time.time_ns())],
        # Not /dev/null: runsc gives its standard files to the user of the sandbox, this host's too.
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=_die_with_parent,
        start_new_session=True,
    )
    try:
        out, log = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise TrialError(
            f"trial_process: still running after {timeout_s} s; raise timeout_s in the plan, "
            f"or ask for fewer samples. Last words: {_last_words(_rest(process))}"
        ) from None
    wall_ns = time.monotonic_ns() - started_ns
    if process.returncode != 0:
        raise TrialError(f"trial_process: {_end(process.returncode)}: {_last_words(log)}")
    return out.decode(errors="replace"), _last_words(log), wall_ns


def _end(status: int) -> str:
    """Say how a process ended that did not end well.

    Clients of engines, shells and SSH tell a signal of what they ran as 128 more than its number.
    """
    number = -status if status < 0 else status - 128
    if number in {one.value for one in signal.Signals}:
        name = signal.Signals(number).name
        why = "; killed by someone, or for want of memory (memory_mib in the plan)"
        return f"exit status {status}, {name}{why if name == 'SIGKILL' else ''}"
    return f"exit status {status}{_STATUSES.get(status, '')}"


def _rest(process: subprocess.Popen[bytes]) -> bytes:
    """Return what a killed process had logged.

    What it started in an enclosure may live on and keep the pipes open, so this does not wait.
    """
    try:
        return process.communicate(timeout=5)[1]
    except subprocess.TimeoutExpired as error:
        return error.stderr or b""


def attested(printed: str, words: str = "") -> dict[str, Any]:
    """Return what attestation needs of a trial's document.

    Args:
        printed: The document.
        words: What an error quotes in addition: the process's last words.

    Raises:
        TrialError: it is no JSON document, or not the harness's.
    """
    try:
        document = json.loads(printed)
    except ValueError as error:
        raise TrialError(
            f"trial_process: no JSON document printed ({error}): {printed[:500]!r} {words}"
        ) from None
    try:
        moved = document["confounders"]
        return {
            "inside": document["environment"],
            "ran_on": moved["ran_on"],
            "migrations": moved["migrations"],
            "transparent_hugepage": moved["transparent_hugepage"],
            "thread_policy": document["settings"]["thread_policy"],
        }
    except (KeyError, TypeError) as error:
        raise TrialError(
            f"trial_process: not the harness's document, {error} needed: {printed[:500]!r} {words}"
        ) from None


def give_to_owner(path: Path) -> None:
    """Give a file to its folder's owner: whoever logs in fetches it, without become."""
    folder = path.parent.stat()
    os.chown(path, folder.st_uid, folder.st_gid)


def _die_with_parent() -> None:
    """Ask the kernel to kill this process when the one that started it dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _last_words(log: bytes) -> str:
    return log.decode(errors="replace")[-_LAST_WORDS:]


def main() -> None:
    """Run the Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "argv": {"type": "list", "elements": "str", "required": True},
            "timeout_s": {"type": "int", "required": True},
            "result": {"type": "path", "required": True},
        }
    )
    path = Path(module.params["result"])
    try:
        printed, words, wall_ns = run(module.params["argv"], module.params["timeout_s"])
        document = attested(printed, words)
        write_text(path, printed, mode=0o600)
        give_to_owner(path)
    except (TrialError, OSError) as error:
        module.fail_json(msg=str(error))
    content = printed.encode()
    result = {
        "path": str(path),
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    module.exit_json(changed=True, result=result, wall_ns=wall_ns, **document)


if __name__ == "__main__":
    main()
