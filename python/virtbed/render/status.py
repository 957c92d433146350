"""Terminal output of `virtbed status`: the sweeps and the hosts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from virtbed.host_status import HostStatus
from virtbed.progress import minutes
from virtbed.render.table import Table
from virtbed.status import STATES, Status

_FAR_S = 1e9
"""Beyond this (30 years) no end date is printed: dates have a largest year."""


def sweeps_table(rows: Iterable[Status]) -> Table:
    """Return a table with one row per sweep: trials per state, and the time to its end."""
    table = Table("Sweeps")
    table.add_column("sweep")
    for state in STATES:
        table.add_column(state, number=True)
    table.add_column("left", measured=True)
    for row in rows:
        counts = (str(row.counts[state]) for state in STATES)
        table.add_row(row.sweep, *counts, left(row))
    return table


def left(row: Status, now: datetime | None = None) -> str:
    """Return the time that a sweep's remaining trials take, and its end if it is being carried out.

    Args:
        row: The sweep's status.
        now: The present time; if not given, the clock's.
    """
    if not row.counts["todo"] + row.counts["leased"]:
        return "nothing"
    if row.left_s is None:
        return "unknown: no design.json with known platforms"
    duration = f"about {minutes(row.left_s)}"
    if not row.holder or row.left_s > _FAR_S:
        return duration
    ends = (now or datetime.now(UTC)) + timedelta(seconds=row.left_s)
    return f"{duration}, until {ends:%Y-%m-%d %H:%M} UTC"


def status_lines(row: Status) -> Iterator[str]:
    """Yield the controller that carries a sweep out, and the work of each of several hosts."""
    if row.holder:
        yield f"{row.sweep} is being carried out by {row.holder}"
    elif row.left_by:
        yield (
            f"{row.sweep}: {row.left_by} was killed while it carried out the sweep; call virtbed "
            "sweep again to continue"
        )
    for host in row.hosts:
        if host.aside:
            yield f"{row.sweep}: {host.name} is set aside: {host.aside}"
        elif row.holder:
            done = "nothing" if host.replicate is None else f"replicate {host.replicate}"
            yield f"{row.sweep}: {host.name} carries out {done}"


def failures_table(row: Status) -> Table:
    """Return a table with one row per reason for which trials failed."""
    table = Table(f"Failed trials of {row.sweep}, by reason", apart=True)
    table.add_column("trials", number=True)
    for heading in ("reason", "one of them"):
        table.add_column(heading, measured=True)
    for failed in row.failures:
        table.add_row(str(failed.count), failed.reason, failed.trial)
    return table


def host_lines(status: HostStatus) -> Iterator[str]:
    """Yield the lines about one host: its controller, instances, leftovers, and what is unknown."""
    holder = f"measured by {status.holder}" if status.holder else "not being measured"
    yield f"{status.host}: {holder}"
    standing = status.standing
    yield from _each("instances", [f"{i['name']} ({i['role']})" for i in standing["instances"]])
    yield from _each("processes", [f"{p['pid']} of {p['name']}" for p in standing["processes"]])
    yield from _each("files of instances", standing["overlays"])
    for changed in standing["changed"]:
        yield (
            f"{'restored at the end of the sweep' if status.holder else 'not restored'}: "
            f"{_settings(changed)} ({changed['snapshot']})"
        )
    if status.left_over:
        yield (
            "these are leftovers that no sweep uses: `virtbed clear` removes instances, `virtbed "
            "restore` restores settings"
        )
    elif not any(standing[kind] for kind in ("instances", "processes", "overlays", "changed")):
        yield "no leftovers" + (" in what could be seen" if standing["unseen"] else "")
    for sentence in standing["unseen"]:
        yield f"not seen: {sentence}"


def _settings(changed: Mapping[str, Any], most: int = 8) -> str:
    """Return the first `most` settings of a snapshot; of daemons.json, processes in words."""
    names = changed["settings"][:most]
    if Path(changed["snapshot"]).name == "daemons.json":  # named by PID/start time
        pids = ", ".join(name.partition("/")[0] for name in names)
        return f"the CPUs of {'process' if len(names) == 1 else 'processes'} {pids}"
    return ", ".join(names)


def _each(what: str, names: Sequence[str], most: int = 12) -> Iterator[str]:
    """Yield a line with the first `most` names and the number of the others; none without names."""
    if names:
        more = f" and {len(names) - most} more" if len(names) > most else ""
        yield f"{what}: {', '.join(names[:most])}{more}"
