"""What stands on a bench host, and who has it: looked at, and left as it is."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virtbed import ansible, host_lock
from virtbed.bench import RUN, Bench, BenchError
from virtbed.events import TaskFailed, TaskOk
from virtbed.host_lock import Claim, HostLockError, Seen
from virtbed.platforms import Platforms
from virtbed_contract.standing import standing

_KINDS = ("instances", "processes", "overlays", "changed", "unseen")


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
        return not self.holder and any(self.standing[kind] for kind in _KINDS[:-1])


def host_status(bench: Bench, platforms: Platforms, problems: list[str]) -> list[HostStatus]:
    """Look at each host of the group bench.

    This machine is read directly, on the CPUs that a sweep's controller keeps to: a playbook would
    be measured along with a sweep.

    Args:
        bench: The hosts.
        platforms: The platforms that there are.
        problems: Gets a sentence for each of several hosts that could not be looked at.

    Raises:
        BenchError: the inventory cannot be read, or no host be looked at.
    """
    try:
        hosts = ansible.bench_variables(bench.inventories, bench.limit)
    except ansible.AnsibleError as error:
        raise BenchError(str(error)) from error
    if not hosts:
        raise BenchError(
            f"no hosts found in the group bench of {', '.join(bench.inventories)}, one needed"
        )
    if all(found.get("ansible_connection") == "local" for found in hosts.values()):
        variables = {**next(iter(hosts.values())), **bench.variables}
        state_dir = variables.get("virtbed_state_dir")
        if not isinstance(state_dir, str):
            raise BenchError("no virtbed_state_dir found for the host, a path needed")
        asked = {
            name: list(role.standing) for name, role in platforms.roles.items() if role.standing
        }
        return [_here(asked, Path(state_dir))]
    note = f"{host_lock.FOLDER}/{host_lock.NAME}"
    ended, events = bench.play("status", {"host_doctor_note": note})
    reports = [e for e in events if isinstance(e, TaskOk) and e.action == "host_standing"]
    if not ended.ok and (len(hosts) == 1 or not reports):
        raise BenchError(f"the host could not be looked at: {ended.message}")
    seen = {event.host for event in reports}
    failed = {e.host: e.message for e in events if isinstance(e, TaskFailed)}
    problems += [
        f"{name} could not be looked at: {failed.get(name, ended.message)}"
        for name in hosts
        if name not in seen
    ]
    return [_decoded(event.result) for event in reports]


def stay_aside() -> None:
    """Keep this process to the CPUs of whoever measures this machine, if anybody does.

    To be called before anything else that takes time: it would be measured along.
    """
    with suppress(HostLockError):  # said later, where it matters
        _, holder = _look()
        if holder:
            _keep_off(holder)


def _look() -> tuple[Seen, Claim | None]:
    """Return this machine's note, and who has the machine.

    Raises:
        HostLockError: the note cannot be read.
    """
    seen = Seen.read(_execute)
    held = seen.claim() if host_lock.held_by(_execute, seen, None) else None
    return seen, held[0] if held else _own_lock(seen)


def _keep_off(holder: Claim) -> None:
    with suppress(OSError):
        os.sched_setaffinity(0, os.sched_getaffinity(holder.pid))


def _here(asked: Mapping[str, list[str]], state_dir: Path) -> HostStatus:
    try:
        seen, holder = _look()
    except HostLockError as error:
        raise BenchError(str(error)) from error
    if holder and seen.same_kernel(holder):
        _keep_off(holder)
    found = standing(asked, state_dir)
    for lock in _locks():
        if not holder and lock.exists() and not os.access(lock, os.R_OK):
            found["unseen"].append(f"who holds {lock}, if anybody, is not seen: root is needed")
    return HostStatus(seen.name, found, holder.words if holder else "")


def _locks() -> list[Path]:
    return [folder / "lock" for folder in dict.fromkeys((RUN, Path(host_lock.FOLDER)))]


def _decoded(result: Mapping[str, Any]) -> HostStatus:
    """Return what a host's module returned; it is not trusted to be whole."""
    try:
        seen = Seen(**result["seen"])
        held = seen.claim()
        found = {kind: list(result["standing"][kind]) for kind in _KINDS}
        for row in (*found["instances"], *found["processes"], *found["changed"]):
            row.keys()
    except HostLockError as error:
        raise BenchError(str(error)) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise BenchError(
            f"{error!r} in what host_standing tells of the host, {', '.join(_KINDS)} and its note "
            "needed; are that host's Python and this checkout as they were?"
        ) from error
    # A controller that is a process of the host itself is seen to be gone.
    if held and seen.same_kernel(held[0]) and result.get("started") != held[0].started:
        held = None
    return HostStatus(seen.name, found, held[0].words if held else "")


def _own_lock(seen: Seen) -> Claim | None:
    """Return who holds a controller's lock on this machine, this user's or root's."""
    for lock in _locks():
        with suppress(OSError, HostLockError):
            claim = Claim.of(_lock_of(lock))
            if seen.same_kernel(claim) and not host_lock.gone(_execute, claim):
                return claim
    return None


def _lock_of(path: Path) -> str:
    """Return what a lock holds; as it may be in /tmp, another may have put something there.

    Raises:
        OSError: it is not there, is a link, a FIFO or another user's, or may not be read.
    """
    opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.geteuid()):
            raise PermissionError(f"{path}: no file of this user's or root's")
        return os.read(opened, 4096).decode(errors="replace")
    finally:
        os.close(opened)


def _execute(command: str) -> Mapping[str, Any]:
    done = subprocess.run(
        ["sh", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        errors="replace", check=False,
    )  # fmt: skip
    return {"rc": done.returncode, "stdout": done.stdout, "stderr": done.stderr}
