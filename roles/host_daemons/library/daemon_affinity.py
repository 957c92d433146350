#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""The CPUs of the engines' daemons: kept off the measured ones, and restored."""

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
short_description: Keep running daemons to some CPUs, or let them go where they could before
description:
  - Every thread of each daemon is moved. What a daemon starts later may inherit its CPUs, so the
    role whose daemon starts something frees what it starts.
  - Where they could run before is written to a snapshot, and synced to disk. It outlives a crash.
  - A daemon that another one restarts meanwhile inherits its CPUs, and is let go with it.
options:
  cpus:
    description: Kernel list of the CPUs to keep them to; empty puts back what the snapshot holds.
    type: str
    default: ""
  daemons:
    description: The daemons, by the names of their processes.
    type: list
    elements: str
    required: true
  snapshot:
    description: The file that holds where they could run before.
    type: path
    required: true
author: virtbed
"""
EXAMPLES = r"""
- name: Keep the daemons to the first CPU
  daemon_affinity:
    cpus: "0"
    daemons: [dockerd, containerd]
    snapshot: /var/lib/virtbed/daemons.json

- name: Let them go
  daemon_affinity:
    daemons: [dockerd, containerd]
    snapshot: /var/lib/virtbed/daemons.json
"""
RETURN = r"""
kept:
  description: Kernel list of the CPUs that each process may use now, by its number.
  returned: success
  type: dict
"""


def find(daemons: list[str], proc: Path) -> Iterator[tuple[int, int]]:
    """Give number and start time of each running daemon; both together name one process."""
    for pid in processes.pids(proc):
        stat = processes.stat(pid, proc)
        if stat is not None and stat.name in daemons:
            yield pid, stat.started


def confine(daemons: list[str], cpus: set[int], snapshot: Path, proc: Path = PROC) -> bool:
    """Keep each daemon to `cpus`; return whether that changed anything."""
    running, before = list(find(daemons, proc)), kept(snapshot)
    moving = [
        pid
        for pid, _ in running
        if any(_affinity(thread) not in (cpus, set()) for thread in processes.threads(pid, proc))
    ]
    if not moving:
        return False
    own = _own(running, before)
    # Also of those that are there already: else they would be taken for ones that inherited it.
    found = {f"{pid}/{at}": sorted(own.get(pid) or _affinity(pid)) for pid, at in running}
    keep(snapshot, before | found)
    for pid in moving:
        _move(pid, cpus, proc)
    return True


def let_go(daemons: list[str], snapshot: Path, proc: Path = PROC) -> bool:
    """Put each daemon that still runs back where it was; return whether there was a snapshot."""
    before = kept(snapshot)
    if not before:
        return False
    for pid, cpus in _own(list(find(daemons, proc)), before).items():
        _move(pid, cpus, proc)
    snapshot.unlink()
    return True


def _own(running: list[tuple[int, int]], before: dict[str, list[int]]) -> dict[int, set[int]]:
    """Return where each daemon that was confined may run by itself, by its number.

    One that started meanwhile, by another that was confined, inherited its CPUs: dockerd restarts
    a containerd that died. It may run where any of them could before.
    """
    known = {pid: set(before[key]) for pid, at in running if (key := f"{pid}/{at}") in before}
    confined = [_affinity(pid) for pid in known]
    inherited = set[int]().union(*known.values())
    return {pid: inherited for pid, _ in running if _affinity(pid) in confined} | known


def _move(pid: int, cpus: set[int], proc: Path) -> None:
    """Move every thread, also those that are started meanwhile."""
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
        changed = confine(daemons, cpus, snapshot) if cpus else let_go(daemons, snapshot)
    except OSError as error:
        module.fail_json(
            msg=f"daemon_affinity: {', '.join(daemons)} could not be moved to CPUs "
            f"{module.params['cpus'] or f'that {snapshot} holds'}: {error}"
        )
    confined = {str(pid): format_cpu_list(_affinity(pid)) for pid, _ in find(daemons, PROC)}
    module.exit_json(changed=changed, kept=confined)


if __name__ == "__main__":
    main()
