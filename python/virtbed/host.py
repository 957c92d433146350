"""Knows alone how the bench host is examined, held by one sweep, quietened, and put back."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from virtbed import playbooks
from virtbed.image import REPOSITORY
from virtbed.placement import parse_cpu_list

LOCAL = REPOSITORY / "inventory" / "local"
# What only lives while a sweep runs: the lock, and the key of its guest.
RUN = Path("/run/virtbed")
LOCK_WAIT_S = 30


class HostError(RuntimeError):
    """A host that is not as a sweep needs it; the message says what was found, and what to do."""


def examine(inventory: Path = LOCAL, *, probe_kvm: bool = True) -> dict[str, Any]:
    """Return the doctor's report (`virtbed.doctor/1`) of the bench host.

    Raises HostError if the host cannot be examined.
    """
    outcome = playbooks.play("doctor", {"host_doctor_probe_kvm": probe_kvm}, [inventory])
    reports = outcome.results.get("host_doctor", [])
    if not outcome.ok or not reports:
        raise HostError(f"the host could not be examined: {outcome.message}")
    report: dict[str, Any] = reports[-1]["doctor"]
    return report | {"tuning": outcome.results["host_tuning"][-1]["settings"]}


@contextmanager
def alone(check: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold this controller's lock: what runs beside a sweep would be measured along with it.

    A sweep that was just killed may still be releasing its instance, so its end is waited for;
    `check` is called meanwhile, and may raise. Raises HostError after LOCK_WAIT_S seconds.
    """
    lock = RUN / "lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
        file = lock.open("w")
    except PermissionError:  # not root, who alone can sweep and probe
        yield
        return
    with file:
        deadline = time.monotonic() + LOCK_WAIT_S
        while not _locked(file):
            if time.monotonic() > deadline:
                raise HostError(
                    "another sweep runs on this machine, and this would be measured along with it "
                    f"({LOCK_WAIT_S} s waited); wait for its end, or end it (Ctrl-C)"
                )
            check()
            time.sleep(0.5)
        yield


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def tuned(inventory: Path) -> Iterator[None]:
    """Quieten the host meanwhile; whatever happens, put it back.

    Raises HostError if it cannot be tuned.
    """
    try:
        outcome = playbooks.play("tune", {}, [inventory])
        if not outcome.ok:
            raise HostError(f"the host could not be tuned: {outcome.message}")
        yield
    finally:
        restore(inventory)


@contextmanager
def affinity_restored() -> Iterator[None]:
    """Let this process run where it could before, wherever it is kept meanwhile."""
    before = os.sched_getaffinity(0)
    try:
        yield
    finally:
        _move(before)


def keep_to(cpus: str) -> None:
    """Keep this process, and what it starts, to some CPUs (a kernel list)."""
    _move(parse_cpu_list(cpus))


def _move(cpus: Iterable[int]) -> None:
    """Keep every thread of this process to some CPUs; the progress bar has one of its own."""
    for task in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), cpus)


def clear(inventory: Path) -> bool:
    """Release what a sweep that was cut off left on the host, whichever it was.

    Returns whether anything was left. Raises HostError if it cannot be released.
    """
    end_strays()
    outcome = playbooks.play("clear", {}, [inventory])
    if not outcome.ok:
        raise HostError(
            f"the host could not be cleared of what a sweep may have left: {outcome.message}; "
            "run make teardown, then make testbed"
        )
    return any(result.get("changed") for results in outcome.results.values() for result in results)


def restore(inventory: Path = LOCAL) -> bool:
    """Put back the settings and CPUs that a sweep changed; return whether any had been changed.

    What is left of a playbook that was cut off ends first, lest it change them again. Raises
    HostError if one does not take its old value.
    """
    end_strays()
    outcome = playbooks.play("restore", {}, [inventory])
    if not outcome.ok:
        raise HostError(
            f"the host's settings could not be put back: {outcome.message}; run virtbed restore"
        )
    modules = ("host_tuning", "daemon_affinity", "cpu_hotplug")
    return any(r.get("changed") for name in modules for r in outcome.results.get(name, []))


def end_strays() -> None:
    """End what is left of playbooks that were cut off; raises HostError if something does not."""
    if left := playbooks.end_strays():
        raise HostError(f"processes {left} of a playbook that was cut off do not end; kill them")
