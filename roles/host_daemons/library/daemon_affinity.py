#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""CPU affinity of the engines' daemons: confined to the housekeeping CPUs, and restored."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.virtbed_contract.kernel import processes
from ansible.module_utils.virtbed_contract.kernel.cpus import format_cpu_list, parse_cpu_list
from ansible.module_utils.virtbed_contract.kernel.processes import PROC
from ansible.module_utils.virtbed_contract.kernel.snapshots import keep, kept

DOCUMENTATION = r"""
module: daemon_affinity
short_description: Confine running daemons to some CPUs, or restore their CPU affinity
description:
  - Moves every thread of each daemon. A process that a daemon starts later may inherit these CPUs,
    so the role whose daemon starts it widens its affinity again.
  - The original affinity is written to a snapshot and synced to disk, so it survives a crash.
  - A daemon that another one restarts in the meantime inherits its CPUs, and is restored with it.
options:
  cpus:
    description: Kernel list of the CPUs to confine them to; empty restores from the snapshot.
    type: str
    default: ""
  daemons:
    description: Process names of the daemons.
    type: list
    elements: str
    required: true
  snapshot:
    description: File of the original CPU affinity.
    type: path
    required: true
author: virtbed
"""
EXAMPLES = r"""
- name: Confine the daemons to the first CPU
  daemon_affinity:
    cpus: "0"
    daemons: [dockerd, containerd]
    snapshot: /var/lib/virtbed/daemons.json

- name: Restore their CPU affinity
  daemon_affinity:
    daemons: [dockerd, containerd]
    snapshot: /var/lib/virtbed/daemons.json
"""
RETURN = r"""
kept:
  description: Kernel list of the CPUs that each process may use now, by process id.
  returned: success
  type: dict
"""


def find(daemons: list[str], proc: Path) -> Iterator[tuple[int, int]]:
    """Yield id and start time of each running daemon; the pair identifies one process."""
    for pid in processes.pids(proc):
        stat = processes.stat(pid, proc)
        if stat is not None and stat.name in daemons:
            yield pid, stat.started


def confine(daemons: list[str], cpus: set[int], snapshot: Path, proc: Path = PROC) -> bool:
    """Confine each daemon to `cpus`, after saving its affinity; return whether any moved."""
    running, before = list(find(daemons, proc)), kept(snapshot)
    moving = [
        pid
        for pid, _ in running
        if any(_affinity(thread) not in (cpus, set()) for thread in processes.threads(pid, proc))
    ]
    if not moving:
        return False
    original = _original_affinity(running, before)
    # Also save daemons that need not move: else restore would take them for ones that inherited.
    saved = {f"{pid}/{at}": sorted(original.get(pid) or _affinity(pid)) for pid, at in running}
    keep(snapshot, before | saved)
    for pid in moving:
        _move(pid, cpus, proc)
    return True


def restore(daemons: list[str], snapshot: Path, proc: Path = PROC) -> bool:
    """Restore the affinity of each daemon that still runs; return whether there was a snapshot."""
    before = kept(snapshot)
    if not before:
        return False
    for pid, cpus in _original_affinity(list(find(daemons, proc)), before).items():
        _move(pid, cpus, proc)
    snapshot.unlink()
    return True


def _original_affinity(
    running: list[tuple[int, int]], before: dict[str, list[int]]
) -> dict[int, set[int]]:
    """Return the unconfined affinity of each confined daemon, by process id.

    A daemon that a confined one has started inherited its CPUs: dockerd restarts a containerd that
    died. It gets the union of the CPUs that the saved daemons could use.
    """
    known = {pid: set(before[key]) for pid, at in running if (key := f"{pid}/{at}") in before}
    confined = [_affinity(pid) for pid in known]
    inherited = set[int]().union(*known.values())
    return {pid: inherited for pid, _ in running if _affinity(pid) in confined} | known


def _move(pid: int, cpus: set[int], proc: Path) -> None:
    """Move every thread of a process, and threads that are started in the meantime."""
    moved: set[int] = set()
    while new := processes.threads(pid, proc) - moved:
        for thread in new:
            with suppress(ProcessLookupError):
                os.sched_setaffinity(thread, cpus)
        moved |= new


def _affinity(pid: int) -> set[int]:
    try:
        return os.sched_getaffinity(pid)
    except ProcessLookupError:
        return set()


def main() -> None:
    """Run the Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "cpus": {"type": "str", "default": ""},
            "daemons": {"type": "list", "elements": "str", "required": True},
            "snapshot": {"type": "path", "required": True},
        }
    )
    daemons, cpus = module.params["daemons"], set(parse_cpu_list(module.params["cpus"]))
    snapshot = Path(module.params["snapshot"])
    try:
        changed = confine(daemons, cpus, snapshot) if cpus else restore(daemons, snapshot)
    except OSError as error:
        module.fail_json(
            msg=f"daemon_affinity: {', '.join(daemons)} could not be moved to CPUs "
            f"{module.params['cpus'] or f'that {snapshot} holds'}: {error}"
        )
    confined = {str(pid): format_cpu_list(_affinity(pid)) for pid, _ in find(daemons, PROC)}
    module.exit_json(changed=changed, kept=confined)


if __name__ == "__main__":
    main()
