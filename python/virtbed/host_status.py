"""The status of bench hosts: instances and leftovers on them, and who measures them; read-only."""

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
    """The status of one host.

    Attributes:
        host: Its name.
        standing: Its instances, processes, files and changed settings, as
            `virtbed_contract.standing` returns them.
        holder: The controller that measures or locks it, in words; empty if there is none.
    """

    host: str
    standing: Mapping[str, Any]
    holder: str

    @property
    def left_over(self) -> bool:
        """Whether something is left over: it exists, and no controller uses the host."""
        return not self.holder and any(self.standing[kind] for kind in _KINDS[:-1])


def host_status(bench: Bench, platforms: Platforms, problems: list[str]) -> list[HostStatus]:
    """Return the status of each host in the group `bench`.

    This machine is read directly, on the CPUs of the sweep's controller, because a playbook would
    disturb a running sweep. Other hosts are read by a playbook.

    Args:
        bench: The hosts.
        platforms: All platforms of the checkout.
        problems: Receives a sentence for each of several hosts that could not be examined.

    Raises:
        BenchError: the inventory cannot be read, or no host could be examined.
    """
    try:
        hosts = ansible.bench_variables(bench.inventories, bench.limit)
    except ansible.AnsibleError as error:
        raise BenchError(str(error)) from error
    if not hosts:
        raise BenchError(
            f"no hosts found in the group bench of {', '.join(bench.inventories)}, one needed"
        )
    if all(each.get("ansible_connection") == "local" for each in hosts.values()):
        variables = {**next(iter(hosts.values())), **bench.variables}
        state_dir = variables.get("virtbed_state_dir")
        if not isinstance(state_dir, str):
            raise BenchError(
                "no virtbed_state_dir found for the host, a path needed; set it in the inventory"
            )
        commands = {
            name: list(role.standing) for name, role in platforms.roles.items() if role.standing
        }
        return [_this_machine(commands, Path(state_dir))]
    note = f"{host_lock.FOLDER}/{host_lock.NAME}"
    ended, events = bench.play("status", {"host_doctor_note": note})
    reports = [e for e in events if isinstance(e, TaskOk) and e.action == "host_standing"]
    if not ended.ok and (len(hosts) == 1 or not reports):
        raise BenchError(f"the host could not be examined: {ended.message}")
    seen = {event.host for event in reports}
    failed = {e.host: e.message for e in events if isinstance(e, TaskFailed)}
    problems += [
        f"{name} could not be examined: {failed.get(name, ended.message)}"
        for name in hosts
        if name not in seen
    ]
    return [_decoded(event.result) for event in reports]


def stay_aside() -> None:
    """Bind this process to the CPUs of this machine's controller, if one measures this machine.

    Those are the housekeeping CPUs. Call it before anything else that takes CPU time or starts
    threads, which would disturb the measurement. The CPUs of a controller on another machine are
    unknown here; then nothing is changed.
    """
    with suppress(HostLockError):  # reported later, by `host_status`
        _keep_off(*_look())


def _look() -> tuple[Seen, Claim | None]:
    """Return this machine's note, and the controller that has claimed or locked the machine.

    Raises:
        HostLockError: the note cannot be read.
    """
    seen = Seen.read(_execute)
    held = seen.claim() if host_lock.held_by(_execute, seen, None) else None
    return seen, held[0] if held else _own_lock(seen)


def _keep_off(seen: Seen, holder: Claim | None) -> None:
    if holder and seen.same_kernel(holder):
        with suppress(OSError):
            os.sched_setaffinity(0, os.sched_getaffinity(holder.pid))


def _this_machine(commands: Mapping[str, list[str]], state_dir: Path) -> HostStatus:
    """Return the status of this machine.

    Args:
        commands: The command that lists the instances of a role's engine, by the role's name.
        state_dir: The folder of virtbed's state on the host.
    """
    try:
        seen, holder = _look()
    except HostLockError as error:
        raise BenchError(str(error)) from error
    _keep_off(seen, holder)
    existing = standing(commands, state_dir)
    for lock in _locks():
        if not holder and lock.exists() and not os.access(lock, os.R_OK):
            existing["unseen"].append(f"whether a process holds {lock}: root is needed to see it")
    return HostStatus(seen.name, existing, holder.words if holder else "")


def _locks() -> list[Path]:
    """Return the lock files of controllers on this machine: this user's and root's."""
    return [folder / "lock" for folder in dict.fromkeys((RUN, Path(host_lock.FOLDER)))]


def _decoded(result: Mapping[str, Any]) -> HostStatus:
    """Return the status that the module host_standing returned, after checking its parts."""
    try:
        seen = Seen(**result["seen"])
        held = seen.claim()
        existing = {kind: list(result["standing"][kind]) for kind in _KINDS}
        for row in (*existing["instances"], *existing["processes"], *existing["changed"]):
            row.keys()
    except HostLockError as error:
        raise BenchError(str(error)) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise BenchError(
            f"{error!r} in the result of host_standing, {', '.join(_KINDS)} and the host's note "
            "needed; have that host's Python or this checkout changed?"
        ) from error
    # If the controller is a process of the host itself, the host reports when it has ended.
    if held and seen.same_kernel(held[0]) and result.get("started") != held[0].started:
        held = None
    return HostStatus(seen.name, existing, held[0].words if held else "")


def _own_lock(seen: Seen) -> Claim | None:
    """Return the controller that holds this user's or root's lock on this machine."""
    for lock in _locks():
        with suppress(OSError, HostLockError):
            claim = Claim.of(_lock_of(lock))
            if seen.same_kernel(claim) and not host_lock.gone(_execute, claim):
                return claim
    return None


def _lock_of(path: Path) -> str:
    """Return the text of a lock file.

    It may be in /tmp, where another user can put anything in its place.

    Raises:
        OSError: it does not exist, may not be read, or is no regular file of this user or root.
    """
    opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(opened)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, os.geteuid()):
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
