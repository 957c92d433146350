"""Reader of processes and their threads in /proc; a process that has ended is not an error."""

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
_POLICIES = {"0": "other", "1": "fifo", "2": "rr", "3": "batch", "5": "idle", "6": "deadline",
             "7": "ext"}  # fmt: skip
_RAISES_LIMITS = 24  # the number of CAP_SYS_RESOURCE
_GONE = (FileNotFoundError, ProcessLookupError)


@dataclass(frozen=True)
class Stat:
    """Fields of /proc/PID/stat. Ids are reused: an id with `started` identifies one process."""

    name: str
    """Name of the program, cut to 15 characters."""
    started: int
    """Clock ticks from the machine's boot to the start of the process."""
    processor: Optional[int]
    """CPU that the process last ran on; None if the kernel does not report it."""

    @classmethod
    def parse(cls, text: str) -> Stat:
        """Return the fields in the text of /proc/PID/stat."""
        head, _, tail = text.rpartition(")")  # the name may contain parentheses
        rest = tail.split()
        return cls(
            name=head.partition("(")[2],
            started=int(rest[19]),
            processor=int(rest[36]) if len(rest) > 36 else None,
        )


def status(pid: Pid = "self", proc: Place = PROC) -> dict[str, str]:
    """Return the fields of /proc/PID/status; {} if the process has ended."""
    return fields(read(proc / str(pid) / "status"))


def protection(pid: Pid = "self", proc: Place = PROC) -> dict[str, Optional[str]]:
    """Return the confinement of a process by the kernel, and its limits of speculation.

    Returns:
        ``seccomp`` (``none``, ``strict`` or ``filter``), ``store_bypass`` and ``indirect_branch``
        (in the kernel's words) and ``apparmor`` (name of the profile); None if not reported.
    """
    state, attributes = status(pid, proc), proc / str(pid) / "attr"
    return {
        "seccomp": _SECCOMP.get(state.get("Seccomp", "")),
        "store_bypass": state.get("Speculation_Store_Bypass"),
        "indirect_branch": state.get("SpeculationIndirectBranch"),
        # AppArmor's own file exists since Linux 5.8; the other is the first security module's.
        "apparmor": read(attributes / "apparmor/current") or read(attributes / "current") or None,
    }


def scheduling(pid: Pid = "self", proc: Place = PROC) -> Optional[str]:
    """Return policy and nice value of a process's first thread, such as "other, nice 0"."""
    rest = (read(proc / str(pid) / "stat") or "").rpartition(")")[2].split()
    policy = _POLICIES.get(rest[38]) if len(rest) > 38 else None
    return f"{policy}, nice {rest[16]}" if policy else None


def memory_nodes(pid: Pid = "self", proc: Place = PROC) -> Optional[str]:
    """Return the kernel list of the memory nodes that a process's cpuset allows."""
    return status(pid, proc).get("Mems_allowed_list")


def memory_policy(pid: Pid = "self", proc: Place = PROC) -> Optional[str]:
    """Return the NUMA memory policy of a process, such as ``bind:0`` or ``default``.

    It is independent of the cpuset, whose nodes `memory_nodes` returns.

    Returns:
        The policy; None on a kernel without NUMA.
    """
    words = (read(proc / str(pid) / "numa_maps") or "").split(maxsplit=2)
    return words[1] if len(words) > 1 else None


def bound_nodes(pid: Pid, proc: Place = PROC) -> list[str]:
    """Return the nodes of each mapping that is bound by mbind(2), one kernel list per mapping.

    QEMU binds a guest's memory in this way. Mems_allowed_list does not show it, since that is the
    cpuset. Empty on a kernel without NUMA.
    """
    # "7f50c3e00000 bind:0 anon=4 N0=4 kernelpagesize_kB=4"; "bind=static:0" with a flag.
    lines = (read(proc / str(pid) / "numa_maps") or "").splitlines()
    policies = (line.split()[1] for line in lines)
    return [policy.rpartition(":")[2] for policy in policies if policy.startswith("bind")]


def lockable_mib(pid: Pid = "self", proc: Place = PROC) -> Optional[int]:
    """Return how much memory a child of a process may lock, in MiB.

    Returns:
        The limit; None if there is none: the process may raise it, or the kernel reports none.
    """
    if int(status(pid, proc).get("CapEff", "0"), 16) >> _RAISES_LIMITS & 1:
        return None
    # "Max locked memory         8388608              8388608              bytes"
    for line in (read(proc / str(pid) / "limits") or "").splitlines():
        if line.startswith("Max locked memory") and line.split()[4].isdigit():
            return int(line.split()[4]) // 2**20
    return None


def stat(pid: Pid = "self", proc: Place = PROC) -> Optional[Stat]:
    """Return name, start time and CPU of a process or thread; None if it has ended.

    Args:
        pid: Id of a process; ``PID/task/TID`` for a thread.
        proc: Mount point of proc.
    """
    text = read(proc / str(pid) / "stat")
    return Stat.parse(text) if text else None


def cpu_ticks(pid: Pid = "self", proc: Place = PROC) -> Optional[int]:
    """Return the CPU time of a process in clock ticks; None if it has ended."""
    _, parenthesis, tail = (read(proc / str(pid) / "stat") or "").rpartition(")")
    return sum(map(int, tail.split()[11:13])) if parenthesis else None


def threads(pid: Pid = "self", proc: Place = PROC) -> set[int]:
    """Return the ids of a process's threads; empty if it has ended."""
    try:
        return {int(task.name) for task in (proc / str(pid) / "task").iterdir()}
    except _GONE:
        return set()


def migrations(pid: Pid, thread: int, proc: Place = PROC) -> Optional[int]:
    """Return how often the kernel has moved a thread to another CPU since its start.

    This shows even a pin that was changed and restored between two readings.

    Returns:
        The number; None if the thread has ended, or the kernel lacks CONFIG_SCHED_DEBUG.
    """
    count = fields(read(proc / str(pid) / "task" / str(thread) / "sched")).get("se.nr_migrations")
    return None if count is None else int(count)


def mount_namespace(pid: Pid = "self") -> Optional[str]:
    """Return the mount namespace of a process, ``mnt:[4026531840]``.

    Returns:
        The namespace; None if the process has ended, or is protected.
    """
    try:
        return str(Path("/proc", str(pid), "ns/mnt").readlink())
    except (*_GONE, PermissionError):
        return None


def pids(proc: Place = PROC) -> Iterator[int]:
    """Return the ids of all processes."""
    return (int(entry.name) for entry in proc.iterdir() if entry.name.isdigit())


def with_environment(
    holds: Callable[[bytes], bool], proc: Place = PROC, user: Optional[int] = None
) -> list[int]:
    """Return the processes that have a certain environment variable, except this process.

    Args:
        holds: Function that returns whether a variable, ``NAME=value``, is the wanted one.
        proc: Mount point of proc.
        user: Id of the user whose processes count, since every user can set any variable; None for
            all users.

    Returns:
        Ids, sorted. Processes that end meanwhile are left out, and so are those whose environment
        may not be read: other users' processes, and supervisors that are protected even from root.
    """
    ids = []
    for pid in pids(proc):
        try:
            variables = (proc / str(pid) / "environ").read_bytes().split(b"\0")
        except (*_GONE, PermissionError):
            continue
        if pid == os.getpid() or not any(map(holds, variables)):
            continue
        if user is None or status(pid, proc).get("Uid", "").split()[:1] == [str(user)]:
            ids.append(pid)
    return sorted(ids)
