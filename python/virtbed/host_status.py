"""What stands on a bench host, and who has it: looked at, and left as it is."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virtbed import ansible, host_lock
from virtbed.bench import RUN, Bench, BenchError
from virtbed.events import TaskOk
from virtbed.host_lock import Claim, HostLockError, Seen
from virtbed.platforms import Platforms
from virtbed_contract.standing import standing


@dataclass(frozen=True)
class HostStatus:
    """What stands on one host.

    Attributes:
        host: Its name.
        standing: As `virtbed_contract.standing` returns it.
        holder: Who measures it or has it locked, in words; empty if nobody does.
    """

    host: str
    standing: Mapping[str, Any]
    holder: str

    @property
    def left_over(self) -> bool:
        """Whether something stands that nobody uses."""
        kinds = ("instances", "processes", "overlays", "changed")
        return not self.holder and any(self.standing[kind] for kind in kinds)


def host_status(bench: Bench, platforms: Platforms) -> list[HostStatus]:
    """Look at each host of the group bench.

    This machine is read directly, on the CPUs that a sweep's controller keeps to: a playbook would
    be measured along with a sweep.

    Raises:
        BenchError: the inventory cannot be read, or a host not be reached.
    """
    try:
        hosts = ansible.bench_variables(bench.inventories, bench.limit)
    except ansible.AnsibleError as error:
        raise BenchError(str(error)) from error
    if not hosts:
        raise BenchError(
            f"no hosts found in the group bench of {', '.join(bench.inventories)}, one needed"
        )
    asked = {name: list(role.standing) for name, role in platforms.roles.items() if role.standing}
    if all(found.get("ansible_connection") == "local" for found in hosts.values()):
        variables = {**next(iter(hosts.values())), **bench.variables}
        state_dir = variables.get("virtbed_state_dir")
        if not isinstance(state_dir, str):
            raise BenchError("no virtbed_state_dir found for the host, a path needed")
        return [_here(asked, Path(state_dir))]
    note = f"{host_lock.FOLDER}/{host_lock.NAME}"
    given = {"host_doctor_standing": asked, "host_doctor_note": note}
    ended, events = bench.play("status", given)
    if not ended.ok:
        raise BenchError(f"the host could not be looked at: {ended.message}")
    reports = [e for e in events if isinstance(e, TaskOk) and e.action == "host_standing"]
    return [_decoded(event.result) for event in reports]


def _here(asked: Mapping[str, list[str]], state_dir: Path) -> HostStatus:
    mine = _own_lock()
    try:
        seen = Seen.read(_execute)
        words = host_lock.held_by(_execute, seen, None)
        held = seen.claim() if words else None
    except HostLockError as error:
        raise BenchError(str(error)) from error
    holder = held[0] if held else mine
    if holder and seen.same_kernel(holder):
        with suppress(OSError):
            os.sched_setaffinity(0, os.sched_getaffinity(holder.pid))
    return HostStatus(seen.name, standing(asked, state_dir), holder.words if holder else "")


def _decoded(result: Mapping[str, Any]) -> HostStatus:
    seen = Seen(**result["seen"])
    try:
        held = seen.claim()
    except HostLockError as error:
        raise BenchError(str(error)) from error
    return HostStatus(seen.name, result["standing"], held[0].words if held else "")


def _own_lock() -> Claim | None:
    """Return who holds a controller's lock on this machine, this user's or root's."""
    for folder in dict.fromkeys((RUN, Path(host_lock.FOLDER))):
        with suppress(OSError, HostLockError):
            claim = Claim.of((folder / "lock").read_text(encoding="utf-8", errors="replace"))
            if not host_lock.gone(_execute, claim):
                return claim
    return None


def _execute(command: str) -> Mapping[str, Any]:
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    return {"rc": done.returncode, "stdout": done.stdout, "stderr": done.stderr}
