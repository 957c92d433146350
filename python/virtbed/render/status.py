"""The status of sweeps and of a host in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from virtbed.host_status import HostStatus
from virtbed.progress import minutes
from virtbed.render.table import Table
from virtbed.status import STATES, Status

_FAR_S = 1e9
"""Beyond it, 30 years, no date is given: a calendar ends."""


def sweeps_table(rows: Iterable[Status]) -> Table:
    """Return one row per sweep: its counts, and what is left to do."""
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
    """Return how long the rest takes, and when it will be done if somebody carries it out."""
    if not row.counts["todo"] + row.counts["leased"]:
        return "nothing"
    if row.left_s is None:
        return "no design.json of known platforms tells how long"
    said = f"about {minutes(row.left_s)}"
    if not row.holder or row.left_s > _FAR_S:
        return said
    ends = (now or datetime.now(UTC)) + timedelta(seconds=row.left_s)
    return f"{said}, until {ends:%Y-%m-%d %H:%M} UTC"


def status_lines(row: Status) -> Iterator[str]:
    """Give who carries a sweep out, and what each of several hosts does."""
    if row.holder:
        yield f"{row.sweep} is being carried out by {row.holder}"
    elif row.left_by:
        yield (
            f"{row.sweep}: {row.left_by} was ended while it carried it out; "
            "call virtbed sweep again"
        )
    for host in row.hosts:
        if host.aside:
            yield f"{row.sweep}: {host.name} is set aside: {host.aside}"
        elif row.holder:
            done = "nothing" if host.replicate is None else f"replicate {host.replicate}"
            yield f"{row.sweep}: {host.name} carries out {done}"


def failures_table(row: Status) -> Table:
    """Return one row per reason for which trials failed."""
    table = Table(f"Failed trials of {row.sweep}, by reason", apart=True)
    table.add_column("trials", number=True)
    for heading in ("reason", "one of them"):
        table.add_column(heading, measured=True)
    for failed in row.failures:
        table.add_row(str(failed.count), failed.reason, failed.trial)
    return table


def host_lines(found: HostStatus) -> Iterator[str]:
    """Give what stands on a host, and what was not seen."""
    yield f"{found.host}: {f'measured by {found.holder}' if found.holder else 'nobody measures it'}"
    standing = found.standing
    yield from _each("standing", [f"{i['name']} ({i['role']})" for i in standing["instances"]])
    yield from _each("processes", [f"{p['pid']} of {p['name']}" for p in standing["processes"]])
    yield from _each("files of instances", standing["overlays"])
    for changed in standing["changed"]:
        settings = ", ".join(changed["settings"][:8])
        yield f"not put back: {settings} ({changed['snapshot']})"
    if found.left_over:
        yield "nobody uses what stands: `virtbed clear` removes it, `virtbed restore` puts back"
    elif not any(standing[kind] for kind in ("instances", "processes", "overlays", "changed")):
        yield "nothing stands" + (", of what was seen" if standing["unseen"] else "")
    for sentence in standing["unseen"]:
        yield f"not seen: {sentence}"


def _each(what: str, names: Sequence[str], most: int = 12) -> Iterator[str]:
    if names:
        more = f" and {len(names) - most} more" if len(names) > most else ""
        yield f"{what}: {', '.join(names[:most])}{more}"
