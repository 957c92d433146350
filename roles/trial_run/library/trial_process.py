#!/usr/bin/python3
"""Run of one trial's process, with a time limit; its JSON document is written to a file."""

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
short_description: Run one trial's process, and write the JSON document that it prints to a file
description:
  - Appends --spawned-at-ns with CLOCK_REALTIME, in nanoseconds, read just before the start.
  - The process is killed when this module ends, after the time limit, or if the machine's clock is
    set, by which LoadGen issues and times requests.
  - Writes the process's standard output to a file, completely or not at all. Returns only the parts
    of the document that attestation needs, so that no samples pass through Ansible.
options:
  argv:
    description: Command of the process.
    type: list
    elements: str
    required: true
  timeout_s:
    description: Seconds after which the process is killed.
    type: int
    required: true
  result:
    description: File for the document; its folder must exist.
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
  description: CPUs on which threads of the process were seen, from the document's C(confounders).
  returned: success
  type: list
  elements: int
migrations:
  description: Number of times they were moved to another CPU, from its C(confounders).
  returned: success
  type: int
transparent_hugepage:
  description: Setting of transparent huge pages, from its C(confounders).
  returned: success
  type: str
thread_policy:
  description: Thread policy that the application confirms, from its C(settings).
  returned: success
  type: str
"""

_PR_SET_PDEATHSIG = 1
_MAX_LOG_CHARACTERS = 3000  # of the log's end in an error message
_LOOK_S = 5.0  # between two readings of the clocks
_MOST_STEP_S = 0.01


# Exit statuses that engines, shells and SSH use for failures of their own.
_STATUSES = {
    125: ", the status of an engine that cannot run it (virtbed doctor shows whether it answers)",
    126: ", the status of an engine whose daemon ended (virtbed doctor shows whether it answers)",
    127: ", its program does not exist",
    255: ", the status of SSH if its connection is lost or cannot be made",
}


class TrialError(Exception):
    """A trial has no document; the message has the reason and the end of its log."""


def run(argv: list[str], timeout_s: int) -> tuple[str, str, int]:
    """Run a trial's process.

    Args:
        argv: Command; the time of its start is appended.
        timeout_s: Seconds after which it is killed.

    Returns:
        Standard output, the end of standard error, and the wall time in nanoseconds.

    Raises:
        TrialError: The process did not end in time, its exit status is not 0, or the clock was set.
    """
    started_ns, ahead_ns = time.monotonic_ns(), _ahead_ns()
    process = subprocess.Popen(
        [*argv, "--spawned-at-ns", str(time.time_ns())],
        # A pipe, because runsc makes the sandbox's user the owner of its standard files: of the
        # host's /dev/null, if that were one.
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=_die_with_parent,
        start_new_session=True,
    )
    output = None
    while output is None:
        left_s = timeout_s - (time.monotonic_ns() - started_ns) / 1e9
        output = _wait(process, max(0.0, min(_LOOK_S, left_s)))
        reason = _clock_was_set(ahead_ns)
        if not (reason or output) and left_s <= 0:
            reason = (
                f"still running after {timeout_s} s; raise timeout_s in the plan, or request fewer "
                "samples"
            )
        if reason:
            log = output[1] if output else _killed(process)
            raise TrialError(f"trial_process: {reason}. End of its log: {_log_end(log)}")
    out, log = output
    wall_ns = time.monotonic_ns() - started_ns
    if process.returncode != 0:
        raise TrialError(f"trial_process: {_end(process.returncode)}: {_log_end(log)}")
    return out.decode(errors="replace"), _log_end(log), wall_ns


def _ahead_ns() -> int:
    """Return how far CLOCK_REALTIME is ahead of CLOCK_MONOTONIC, in nanoseconds.

    A time service that adjusts the clock's rate adjusts that of both, so the difference changes
    only if the clock is set. Of three readings, this is the one that was interrupted least.
    """

    def read() -> tuple[int, int]:
        before_ns, now_ns = time.monotonic_ns(), time.time_ns()
        return time.monotonic_ns() - before_ns, now_ns - before_ns

    return min(read() for _ in range(3))[1]


def _clock_was_set(ahead_ns: int) -> str:
    """Return by how much the clock was set since an earlier `_ahead_ns`; empty if it was not."""
    step_s = (_ahead_ns() - ahead_ns) / 1e9
    if abs(step_s) <= _MOST_STEP_S:
        return ""
    return (
        f"the clock was set {'forward' if step_s > 0 else 'back'} by {abs(step_s):.2f} s while the "
        "process ran, and LoadGen issues and times requests by it; let a time service adjust the "
        "clock's rate (chronyd, systemd-timesyncd), and call again"
    )


def _end(status: int) -> str:
    """Return how a failed process ended, as text.

    Engines' clients, shells and SSH report a signal to the process they ran as 128 plus its number.
    """
    number = -status if status < 0 else status - 128
    if number in {one.value for one in signal.Signals}:
        name = signal.Signals(number).name
        why = "; killed by another program, or for lack of memory (memory_mib in the plan)"
        return f"exit status {status}, {name}{why if name == 'SIGKILL' else ''}"
    return f"exit status {status}{_STATUSES.get(status, '')}"


def _wait(process: subprocess.Popen[bytes], seconds: float) -> tuple[bytes, bytes] | None:
    """Return a process's standard output and error; None if it does not end in time."""
    try:
        return process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None


def _killed(process: subprocess.Popen[bytes]) -> bytes:
    """Kill a process with its children; return its standard error.

    It does not wait for the pipes to close: processes in an enclosure may keep them open.
    """
    os.killpg(process.pid, signal.SIGKILL)
    try:
        return process.communicate(timeout=5)[1]
    except subprocess.TimeoutExpired as error:
        return error.stderr or b""


def attested(printed: str, words: str = "") -> dict[str, Any]:
    """Return the parts of a trial's document that attestation needs.

    Args:
        printed: The process's standard output.
        words: End of the process's log, for the error message.

    Raises:
        TrialError: The output is not a JSON document of the harness.
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
    """Make the folder's owner the file's, so that the login user can fetch it without become."""
    folder = path.parent.stat()
    os.chown(path, folder.st_uid, folder.st_gid)


def _die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies (prctl PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _log_end(log: bytes) -> str:
    return log.decode(errors="replace")[-_MAX_LOG_CHARACTERS:]


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
