"""Terminal output of `virtbed doctor` for several hosts: platforms, lacks, differences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from rich.console import RenderableType
from rich.text import Text

from virtbed.doctor import chief_lack
from virtbed.render.host import STYLES
from virtbed.render.table import Table
from virtbed_contract.documents import Platform
from virtbed_contract.hosts import HostReports
from virtbed_contract.sweep import HostReport

_SHORT = {"available": "yes", "emulated": "emul.", "unavailable": "no"}
_NOT_EXAMINED = Text("?", style="red")
_NAMED = 3  # hosts with the value that most hosts have, up to which they are named


def hosts_tables(
    examined: HostReports, entries: Mapping[str, Platform]
) -> Iterator[RenderableType]:
    """Yield the tables and lines about several hosts.

    Args:
        examined: The hosts.
        entries: The platforms by name.
    """
    yield _platforms(examined, entries)
    yield Text("yes: available; emul.: emulated, no figures; no: unavailable; ?: not examined")
    if (lacks := _lacks(examined, entries)).rows:
        yield Text()
        yield lacks
    yield Text()
    yield from _unlike(examined)
    yield from map(Text, examined.identities)
    yield Text("virtbed doctor --limit HOST shows everything about one host.")


def _platforms(examined: HostReports, entries: Mapping[str, Platform]) -> Table:
    """Return the table with one row per host: whether it can run each platform."""
    with_gpu = any(host.report and host.report.facts.get("gpu") for host in examined.hosts)
    columns = [*entries, *(["gpu"] if with_gpu else [])]
    table = Table(f"Platforms of {len(examined.hosts)} hosts")
    for heading in ("host", *columns):
        table.add_column(heading, measured=True)
    for host in examined.hosts:
        rows = host.report.platforms if host.report else ()
        cells = {row.platform: Text(_SHORT[row.status], style=STYLES[row.status]) for row in rows}
        table.add_row(host.name, *(cells.get(column, _NOT_EXAMINED) for column in columns))
    return table


def _lacks(examined: HostReports, entries: Mapping[str, Platform]) -> Table:
    """Return the table of what hosts lack first, one row for all hosts that lack the same."""
    lacks: dict[tuple[str, str], list[str]] = defaultdict(list)
    for host in examined.hosts:
        if host.report is None:
            lacks["all", host.problem].append(host.name)
    for host in examined.hosts:
        of, reason, remedy = chief_lack(host.report, entries) if host.report else ([], "", "")
        if host.report and of:
            lacks[_all(of, host.report, entries), f"{reason}; {remedy}"].append(host.name)
    table = Table("What each host lacks first", apart=True)
    for heading in ("hosts", "platforms", "reason; remedy"):
        table.add_column(heading, measured=True)
    for key, hosts in lacks.items():
        table.add_row(", ".join(hosts), *key)
    return table


def _all(platforms: list[str], report: HostReport, entries: Iterable[str]) -> str:
    """Return the names of platforms; "all" if the report has no others."""
    others = {row.platform for row in report.platforms} & {*entries} - {*platforms}
    return ", ".join(platforms) if others else "all"


def _unlike(examined: HostReports) -> Iterator[RenderableType]:
    """Yield the table of differences, one row per fact and value, or that there are none."""
    compared = sum(host.report is not None for host in examined.hosts)
    if compared < 2:
        return
    if not examined.unlike:
        yield Text(
            f"These {compared} hosts are alike by their reports. A sweep pools them if its trials "
            "find them alike, too."
        )
        return
    table = Table("What makes them unlike: a sweep pools results only of hosts that are alike")
    for heading in ("fact", "value", "hosts"):
        table.add_column(heading, measured=True)
    for row in examined.unlike:
        by_value: dict[str, list[str]] = defaultdict(list)
        for host, value in row.values.items():
            by_value[value].append(host)
        for number, (value, hosts) in enumerate(sorted(by_value.items(), key=_fewest_first)):
            last = number and number == len(by_value) - 1 and len(hosts) > _NAMED
            on = f"the other {len(hosts)}" if last else ", ".join(hosts)
            table.add_row("" if number else row.fact, value, on)
    yield table


def _fewest_first(value: tuple[str, list[str]]) -> int:
    return len(value[1])
