"""What /proc tells of a process and its threads; a process that ended meanwhile is no error."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

from .files import fields, read
from .printed import Place

Pid = Union[int, str]

PROC = Path("/proc")
_SECCOMP = {"0": "none", "1": "strict", "2": "filter"}
_RAISES_LIMITS = 24  # the number of CAP_SYS_RESOURCE
_GONE = (FileNotFoundError, ProcessLookupError)


@dataclass(frozen=True)
class Stat:
    """A few fields of /proc/PID/stat. Number and `started` together name one process for good."""

    name: str
    """The program's name, cut to 15 characters."""
    started: int
    """Clock ticks from the machine's boot to the process's start."""
    processor: Optional[int]
    """The CPU that it ran on last; None where the kernel does not tell."""

    @classmethod
    def parse(cls, text: str) -> Stat:
        """Return the fields that /proc/PID/stat holds."""
        head, _, tail = text.rpartition(")")  # the name may hold anything, parentheses too
        rest = tail.split()
        return cls(
            name=head.partition("(")[2],
            started=int(rest[19]),
            processor=int(rest[36]) if len(rest) > 36 else None,
        )


def status(pid: Pid = "self", proc: Place = PROC) -> dict[str, str]:
    """Return the fields of /proc/PID/status; {} of a process that ended."""
    return fields(read(proc / str(pid) / "status"))


def protection(pid: Pid = "self", proc: Place = PROC) -> dict[str, Optional[str]]:
    """Return how the kernel confines a process, and what it may not speculate on.

    Returns:
        ``seccomp`` (``none``, ``strict`` or ``filter``), ``store_bypass`` and ``indirect_branch``
        (in the kernel's words) and ``apparmor`` (the profile); None for what is not reported.
    """
    state, attributes = status(pid, proc), proc / str(pid) / "attr"
    return {
        "seccomp": _SECCOMP.get(state.get("Seccomp", "")),
        "store_bypass": state.get("Speculation_Store_Bypass"),
        "indirect_branch": state.get("SpeculationIndirectBranch"),
        # That of AppArmor alone is new in Linux 5.8; the other is of whichever module is first.
        "apparmor": read(attributes / "apparmor/current") or read(attributes / "current") or None,
    }


def memory_nodes(pid: Pid = "self", proc: Place = PROC) -> Optional[str]:
    """Return the kernel list of the memory nodes that a process's cpuset leaves it."""
    return status(pid, proc).get("Mems_allowed_list")


def memory_policy(pid: Pid = "self", proc: Place = PROC) -> Optional[str]:
    """Return a process's NUMA memory policy, such as ``bind:0`` or ``default``.

    The cpuset's `memory_nodes` do not show it.

    Returns:
        None on a kernel without NUMA.
    """
    words = (read(proc / str(pid) / "numa_maps") or "").split(maxsplit=2)
    return words[1] if len(words) > 1 else None


def bound_nodes(pid: Pid, proc: Place = PROC) -> list[str]:
    """Return the nodes of each mapping that mbind(2) binds to some, as kernel lists.

    QEMU binds its guest's memory so. Mems_allowed_list does not show it: that is the cpuset's.
    Empty on a kernel without NUMA.
    """
    # "7f50c3e00000 bind:0 anon=4 N0=4 kernelpagesize_kB=4"; "bind=static:0" with a flag.
    lines = (read(proc / str(pid) / "numa_maps") or "").splitlines()
    policies = (line.split()[1] for line in lines)
    return [policy.rpartition(":")[2] for policy in policies if policy.startswith("bind")]


def lockable_mib(pid: Pid = "self", proc: Place = PROC) -> Optional[int]:
    """Return how much memory a process may lock for one that it starts, in MiB.

    Returns:
        None where nothing limits it: it may raise the limit itself, or the kernel does not tell.
    """
    if int(status(pid, proc).get("CapEff", "0"), 16) >> _RAISES_LIMITS & 1:
        return None
    # "Max locked memory         8388608              8388608              bytes"
    for line in (read(proc / str(pid) / "limits") or "").splitlines():
        if line.startswith("Max locked memory") and line.split()[4].isdigit():
            return int(line.split()[4]) // 2**20
    return None


def stat(pid: Pid = "self", proc: Place = PROC) -> Optional[Stat]:
    """Return a process's or thread's name, start time and CPU; None of one that ended.

    Args:
        pid: Its number; ``PID/task/TID`` is a thread.
        proc: Where proc is mounted.
    """
    text = read(proc / str(pid) / "stat")
    return Stat.parse(text) if text else None


def cpu_ticks(pid: Pid = "self", proc: Place = PROC) -> Optional[int]:
    """Return the CPU time of a process, in the kernel's ticks; None of one that ended."""
    _, parenthesis, tail = (read(proc / str(pid) / "stat") or "").rpartition(")")
    return sum(map(int, tail.split()[11:13])) if parenthesis else None


def threads(pid: Pid = "self", proc: Place = PROC) -> set[int]:
    """Return the ids of a process's threads; none of a process that ended."""
    try:
        return {int(task.name) for task in (proc / str(pid) / "task").iterdir()}
    except _GONE:
        return set()


def migrations(pid: Pid, thread: int, proc: Place = PROC) -> Optional[int]:
    """Return how often the kernel moved a thread to another CPU since it was started.

    A pin that was changed and put back shows here, whenever that was.

    Returns:
        None of a thread that ended, and on a kernel without CONFIG_SCHED_DEBUG.
    """
    count = fields(read(proc / str(pid) / "task" / str(thread) / "sched")).get("se.nr_migrations")
    return None if count is None else int(count)


def pids(proc: Place = PROC) -> Iterator[int]:
    """Give the number of every process."""
    return (int(entry.name) for entry in proc.iterdir() if entry.name.isdigit())


def with_environment(
    holds: Callable[[bytes], bool], proc: Place = PROC, user: Optional[int] = None
) -> list[int]:
    """Return the processes with such a variable in their environment, this one excepted.

    Args:
        holds: Whether a variable, ``NAME=value``, is one that is looked for.
        proc: Where proc is mounted.
        user: Only those of this user's id: anybody can give his processes any variable.

    Returns:
        Their numbers, sorted. Those that end meanwhile are left out, and those that may not be
        read: another user's, and supervisors that shield themselves even from root.
    """
    found = []
    for pid in pids(proc):
        try:
            variables = (proc / str(pid) / "environ").read_bytes().split(b"\0")
        except (*_GONE, PermissionError):
            continue
        if pid == os.getpid() or not any(map(holds, variables)):
            continue
        if user is None or status(pid, proc).get("Uid", "").split()[:1] == [str(user)]:
            found.append(pid)
    return sorted(found)
