"""Neighbours of a measured instance: their readings and attestation.

A neighbour has the same platform, mode, size and image as the measured instance, and runs the same
application again and again on CPUs of its own. The less it slows the measured instance, the better
the platform's isolation. A neighbour that ended, stalled or left its CPUs would make the isolation
look better than it is, so such a trial fails.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

from .documents import Instance
from .kernel import cgroups, processes
from .kernel.cpus import format_cpu_list, parse_cpu_list
from .kernel.files import read
from .privileges import USER

MARK = "VIRTBED_INSTANCE="
"""Start of the environment variable that marks the processes of an instance."""
OUT, LOG, END = "out", "log", "end"
"""Files of a neighbour: its standard output, its log, and its exit status once it has ended."""
CORE = "core"
"""Value of `Neighbour.shares` for a neighbour on other threads of the measured cores."""
_LAST_WORDS = 1000  # characters at the end of the log that a message quotes
_STATUS_S = 2.0  # time to wait for the exit status after a neighbour's process has ended
_LEAST_S = 0.1  # shortest window for a CPU share: uptime has a resolution of 10 ms
# A neighbour prints its number of answers every second, or after each request if that takes longer.
# With random arrivals on a shared CPU, reports can be late by up to these limits without a stall.
_SILENT_S, _SILENT_REQUESTS = 5, 10

Json = Mapping[str, Any]


def neighbour_id(instance: str, number: int) -> str:
    """Return the id of an instance's neighbour.

    >>> neighbour_id("cn-pinned-c02-r01", 1)
    'cn-pinned-c02-r01-n1'
    """
    return f"{instance}-n{number}"


def instances(instance: Instance) -> tuple[Instance, ...]:
    """Return the neighbours of an instance as instances, which roles provision."""
    return tuple(
        replace(
            instance,
            id=neighbour_id(instance.id, number),
            cpus=own.cpus,
            cpu_ids=parse_cpu_list(own.cpus),
            mems=own.mems,
            inner_cpus=own.cpus,
            inner_mems=own.mems,
            seen_cpus=own.cpus,
            placement=(),
            neighbours=(),
        )
        for number, own in enumerate(instance.neighbours, start=1)
    )


def placed_in_words(cpus: str, shares: str, housekeeping: bool) -> str:
    """Return a neighbour's placement in words.

    Args:
        cpus: Kernel list of its host CPUs.
        shares: The smallest part of the host shared with the measured instance.
        housekeeping: Whether helpers and the controller also run there.

    >>> placed_in_words("0", "L3", True)
    '0 (same L3, with housekeeping)'
    """
    return f"{cpus} (same {shares}{', with housekeeping' if housekeeping else ''})"


def reading(name: str, folder: Path, root: Path = Path("/")) -> dict[str, Any]:
    """Return a neighbour's placement and progress, as read on its host.

    Args:
        name: Id of the neighbour, which marks its processes.
        folder: Folder of its files.
        root: Root of the host's file system.

    Returns:
        ``instance`` (its id), ``uptime_s`` (the host's uptime at the reading), ``requests`` (number
        of requests answered; None before its first report), ``silent_s`` (seconds since its last
        report), ``ended`` (how it ended; None while it runs), and ``processes``: one entry per
        process of the measured user, without the processes that started them.
    """
    proc = root / "proc"
    mark = f"{MARK}{name}".encode()
    pids = processes.with_environment(lambda variable: variable == mark, proc, user=USER)
    entries = [each for each in (_process(root, pid) for pid in pids) if each is not None]
    uptime = (read(proc / "uptime") or "").split()
    return {
        "instance": name,
        "uptime_s": float(uptime[0]) if uptime else None,
        "requests": answered(folder),
        "silent_s": _silent_s(folder),
        "ended": ended(folder) if entries else _ended_soon(folder),
        "processes": entries,
    }


def answered(folder: Path) -> Optional[int]:
    """Return the number of requests that a neighbour has answered; None before its first report."""
    lines = (read(folder / OUT) or "").split("\n")
    for line in reversed(lines):
        try:
            return int(json.loads(line)["requests"])
        except (ValueError, KeyError, TypeError):
            continue  # empty, or not yet written whole
    return None


def _silent_s(folder: Path) -> Optional[float]:
    try:
        return round(time.time() - (folder / OUT).stat().st_mtime, 2)
    except FileNotFoundError:
        return None


def ended(folder: Path) -> Optional[str]:
    """Return the exit status of a neighbour and the end of its log; None while it runs."""
    status = read(folder / END)
    if not status:
        return None
    words = (read(folder / LOG) or "").strip()[-_LAST_WORDS:]
    return f"exit status {status}: {words or 'nothing logged'}"


def _ended_soon(folder: Path) -> Optional[str]:
    """Return how a neighbour without processes ended; wait a short time for its exit status."""
    deadline = time.monotonic() + _STATUS_S
    while not (why := ended(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return why


def _process(root: Path, pid: int) -> Optional[dict[str, Any]]:
    """Return the reading of one process; None if it has ended."""
    proc = root / "proc"
    threads = sorted(processes.threads(pid, proc))
    stats = [processes.stat(f"{pid}/task/{thread}", proc) for thread in threads]
    states = [processes.status(f"{pid}/task/{thread}", proc) for thread in threads]
    own, ticks = processes.stat(pid, proc), processes.cpu_ticks(pid, proc)
    if own is None or ticks is None:
        return None
    moved = [processes.migrations(pid, thread, proc) for thread in threads]
    allowed = {cpu for s in states for cpu in parse_cpu_list(s.get("Cpus_allowed_list", ""))}
    ran_on = {stat.processor for stat in stats if stat is not None and stat.processor is not None}
    return {
        "pid": pid,
        "started": own.started,
        "threads": len(threads),
        "cpus_allowed_list": format_cpu_list(allowed),
        "mems_allowed_list": processes.memory_nodes(pid, proc),
        "memory_policy": processes.memory_policy(pid, proc),
        "quota_cpus": cgroups.quota_cpus(root, pid),
        "ran_on": sorted(ran_on),
        "migrations": None if None in moved else sum(filter(None, moved)),
        "cpu_s": ticks / os.sysconf("SC_CLK_TCK"),
    }


def neighbour_mismatches(
    instance: Instance, readings: Sequence[Json], before: Sequence[Json] = ()
) -> list[str]:
    """Return how neighbours ran differently from their request, one sentence per difference.

    Args:
        instance: The measured instance.
        readings: One reading per neighbour, as `reading` returns it.
        before: The readings before the trial, if `readings` are those after it; else empty.
    """
    requested = instances(instance)
    if len(readings) != len(requested):
        return [f"{len(readings)} neighbours were read, {len(requested)} needed"]
    return [
        f"the neighbour {own.id} {text}"
        for number, own in enumerate(requested)
        for text in _mismatches(own, readings[number], before[number] if before else None)
    ]


def _mismatches(own: Instance, reading: Json, before: Optional[Json]) -> Iterator[str]:
    if reading["instance"] != own.id:
        yield f"was read as {reading['instance']}, {own.id} needed"
    if reading["ended"] is not None:
        when = "before the trial did" if before else "before the trial began"
        yield f"ended {when}, with {reading['ended']}; it must run during the whole trial"
        return
    if len(reading["processes"]) != 1:
        yield f"has {len(reading['processes'])} processes, one needed during the whole trial"
        return
    process = reading["processes"][0]
    strayed = sorted(set(process["ran_on"]) - set(own.cpu_ids))
    if process["cpus_allowed_list"] != own.seen_cpus or strayed:
        yield (
            f"may run on CPUs {process['cpus_allowed_list']} and was found on "
            f"{format_cpu_list(process['ran_on']) or 'none'}, {own.seen_cpus} needed, away from "
            "the measured ones; something moved it"
        )
    if own.mems not in (process["mems_allowed_list"], _bound(process["memory_policy"])):
        yield (
            f"may use memory of nodes {process['mems_allowed_list']} by policy "
            f"{process['memory_policy']}, {own.mems} needed"
        )
    if process["quota_cpus"] != own.quota_cpus:
        yield f"has a quota of {process['quota_cpus']} CPUs, {own.quota_cpus} needed"
    if not reading["requests"]:
        yield "answered no request, some needed before the trial begins"
    if before is not None:
        yield from _stopped(own, reading, before)


def _bound(policy: Optional[str]) -> Optional[str]:
    """Return the nodes that a memory policy binds to."""
    return policy[len("bind:") :] if policy and policy.startswith("bind:") else None


def _stopped(own: Instance, after: Json, before: Json) -> Iterator[str]:
    """Yield the signs that a neighbour did not run all the time between two readings."""
    was, now = before["processes"][0], after["processes"][0]
    if any(was[name] != now[name] for name in ("pid", "started")):
        yield f"is process {now['pid']}, and was {was['pid']}: it was restarted during the trial"
        return
    if after["requests"] <= before["requests"]:
        yield (
            f"answered no request while the trial ran ({after['requests']} in all): it was stopped "
            "or starved"
        )
    elif (silent := _too_silent(after, before)) is not None:
        yield (
            f"answered no request in the last {silent:.0f} s, and "
            f"{after['requests'] - before['requests']} since the trial began: it was stopped or "
            "starved meanwhile"
        )
    moved = None not in (was["migrations"], now["migrations"])
    if own.cores == 1 and moved and now["migrations"] > was["migrations"]:
        yield (
            f"was moved to another CPU {now['migrations'] - was['migrations']} times while the "
            "trial ran, 0 needed on one core"
        )


def _too_silent(after: Json, before: Json) -> Optional[float]:
    """Return for how many seconds a neighbour has not reported; None if that is not too long."""
    silent_s, since, until = after.get("silent_s"), before["uptime_s"], after["uptime_s"]
    if None in (silent_s, since, until):
        return None
    usual_s = (until - since) / (after["requests"] - before["requests"])
    return silent_s if silent_s > _SILENT_S + _SILENT_REQUESTS * usual_s else None


def neighbours_ran(
    instance: Instance, before: Sequence[Json], after: Sequence[Json]
) -> list[dict[str, Any]]:
    """Return what neighbours did during a trial: `surroundings.NeighbourRan` as JSON values.

    Args:
        instance: The measured instance.
        before: One reading per neighbour before the trial, without mismatches.
        after: One reading per neighbour after the trial, without mismatches.
    """
    return [
        {
            "cpus": placed.cpus,
            "shares": placed.shares,
            "housekeeping": placed.housekeeping,
            "requests": now["requests"] - was["requests"],
            "busy_cpus": _busy(was, now),
        }
        for placed, was, now in zip(instance.neighbours, before, after)
    ]


def _busy(was: Json, now: Json) -> Optional[float]:
    if None in (was["uptime_s"], now["uptime_s"]):
        return None
    seconds = now["uptime_s"] - was["uptime_s"]
    worked = now["processes"][0]["cpu_s"] - was["processes"][0]["cpu_s"]
    return round(worked / seconds, 3) if seconds >= _LEAST_S else None
