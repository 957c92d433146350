"""The terminal output of `virtbed doctor` for several hosts."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from virtbed.render.hosts import hosts_tables
from virtbed_contract.hosts import ExaminedHost, HostDifference, HostReports
from virtbed_contract.identifiers import HOST_REPORTS
from virtbed_contract.sweep import PlatformVerdict

from .conftest import PLATFORMS
from .test_render_host import REPORT

GOOD = replace(
    REPORT,
    platforms=tuple(PlatformVerdict(n, "available", "good", "") for n in PLATFORMS.entries),
)
UNREACHABLE = "the host could not be examined: No route to host"


def lines(*hosts: ExaminedHost, unlike: tuple[HostDifference, ...] = (), width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO())
    for part in hosts_tables(HostReports(HOST_REPORTS, True, hosts, unlike, ()), PLATFORMS.entries):
        console.print(part)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(len(line) <= width for line in shown.splitlines())
    return str(shown)


@pytest.mark.parametrize("name", ["bench{:02}", "bench{:02}.example"])
def test_twenty_hosts_are_one_table_of_eighty_columns(name: str) -> None:
    hosts = [ExaminedHost(name.format(number), GOOD) for number in range(20)]
    top = lines(*hosts).partition("yes: available")[0].splitlines()
    assert len(top) == 23  # title, headings, rule, and one line per host
    assert top[0] == "Platforms of 20 hosts"
    assert top[1].split() == ["host", *PLATFORMS.entries]
    assert top[3].split() == [name.format(0), *["yes"] * len(PLATFORMS.entries)]


def test_what_hosts_lack_is_stated_once_for_all_that_lack_the_same() -> None:
    rows = [replace(row, status="emulated", reason="no KVM", remedy="use hardware")
            if row.platform in ("vm", "vmcn") else row for row in GOOD.platforms]  # fmt: skip
    emulated = replace(GOOD, platforms=tuple(rows))
    shown = lines(
        ExaminedHost("a", GOOD), ExaminedHost("b", emulated), ExaminedHost("c", emulated),
        ExaminedHost("d", None, UNREACHABLE),
    )  # fmt: skip
    (first, second) = (line for line in shown.splitlines() if line[:2] in ("b ", "c "))
    assert first.split()[1:] == second.split()[1:] and first.split().count("emul.") == 2
    (unexamined,) = (line for line in shown.splitlines() if line.startswith("d ") and "?" in line)
    assert unexamined.split() == ["d", *["?"] * len(PLATFORMS.entries)]
    flat = " ".join(shown.split())
    assert flat.count("no KVM") == 1 and "b, c" in flat and "use hardware" in flat
    assert "No route to host" in flat
    assert "These 3 hosts are alike by their reports" in flat


def test_what_makes_hosts_unlike_names_the_fact_and_the_hosts_of_each_value() -> None:
    hosts = [ExaminedHost(f"bench{number:02}", GOOD) for number in range(20)]
    values = {host.name: "6.1.0" for host in hosts} | {"bench07": "6.12.0"}
    memory = {host.name: "64000 MiB" for host in hosts[:2]} | {"bench02": "32000 MiB"}
    shown = lines(
        *hosts, unlike=(HostDifference("kernel", values), HostDifference("memory", memory))
    )
    rows = [line.split() for line in shown.partition("unlike")[2].splitlines()]
    assert ["kernel", "6.12.0", "bench07"] in rows and ["6.1.0", "the", "other", "19"] in rows
    assert ["memory", "32000", "MiB", "bench02"] in rows
    assert ["64000", "MiB", "bench00,", "bench01"] in rows


def test_a_gpu_has_a_column_where_a_host_has_one() -> None:
    assert "gpu" not in lines(ExaminedHost("a", GOOD), ExaminedHost("b", GOOD))
    gpu = replace(
        GOOD,
        facts={**GOOD.facts, "gpu": [{"name": "H200"}]},
        platforms=(*GOOD.platforms, PlatformVerdict("gpu", "unavailable", "no driver", "x")),
    )
    shown = lines(ExaminedHost("a", GOOD), ExaminedHost("b", gpu))
    assert shown.splitlines()[1].split()[-1] == "gpu"
    assert "no driver" not in shown  # a platform without it can run
