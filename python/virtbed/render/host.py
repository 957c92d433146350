"""The report on a bench host in a terminal: platforms, facts, settings that disturb."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from virtbed_contract.kernel.cpus import format_cpu_list
from virtbed_contract.sweep import HostReport

STYLES = {"available": "green", "emulated": "yellow", "unavailable": "red"}


def doctor_table(report: HostReport) -> Table:
    """Return a table of one row per platform: its status, the reason, and what to do about it."""
    table = Table(title=f"Platforms of {report.host}", title_justify="left")
    table.add_column("platform", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("reason", ratio=1)
    table.add_column("remedy", ratio=1)
    for row in report.platforms:
        status = Text(row.status, style=STYLES[row.status])
        # Text, not str: a reason may quote a console line, whose brackets are not markup.
        table.add_row(row.platform, status, Text(row.reason), Text(row.remedy))
    return table


def facts_table(report: HostReport) -> Table:
    """Return a grid of two columns, fact and value, that sums up the host."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column()
    for name, value in _facts(report.facts):
        grid.add_row(name, Text(value))
    grid.add_row("guests run under", report.accelerator or "nothing: QEMU is not installed")
    return grid


def tuning_table(report: HostReport) -> Table:
    """Return a table of one row per setting that disturbs measurements: found, wanted, and why."""
    table = Table(title="What `tuning: true` in a plan would set", title_justify="left")
    table.add_column("setting", no_wrap=True)
    table.add_column("found", no_wrap=True)
    table.add_column("wanted", no_wrap=True)
    table.add_column("why", ratio=1)
    for row in report.tuning:
        style = "" if not row.available else "green" if row.value == row.wanted else "yellow"
        found = Text((row.value or "") if row.available else "not available", style=style)
        table.add_row(row.name, found, row.wanted, Text(row.reason))
    return table


def _facts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    cpu, disk, memory = facts["cpu"], facts["disk"], facts["memory_mib"]
    cgroup = facts["cgroup"]["version"]
    return [
        ("system", f"{facts['distribution']}, kernel {facts['kernel']}, init {facts['init']}"),
        (
            "cpu",
            f"{cpu['model']}, {_count(cpu['sockets'], 'socket')}, SMT {_on_off(cpu['smt'])},"
            f" allowed CPUs {format_cpu_list(cpu['allowed'])}",
        ),
        ("numa", _nodes(facts["numa"])),
        ("clock", f"{facts['clocksource']}, governor {facts['governor'] or 'none'}"),
        ("memory", f"{memory['available']} of {memory['total']} MiB available"),
        ("disk", f"{disk['free_mib']} MiB free for {disk['path']}"),
        ("cgroup", f"version {cgroup}" if cgroup else "not mounted"),
        *((name, _engine(engine)) for name, engine in facts["engines"].items()),
        ("kvm", f"{facts['kvm']['probe']}: {facts['kvm']['detail']}"),
        ("gpu", ", ".join(gpu["name"] for gpu in facts["gpu"]) or "none"),
        ("iommu", _on_off(facts["iommu"])),
        ("image", facts["image"]["digest"] or "not built"),
    ]


def _nodes(nodes: list[Mapping[str, Any]]) -> str:
    return (
        "; ".join(
            f"node {node['node']}: CPUs {format_cpu_list(node['cpus']) or 'none'},"
            f" {node['memory_mib']} MiB"
            for node in nodes
        )
        or "one node"
    )


def _engine(engine: Mapping[str, Any]) -> str:
    if not engine["installed"]:
        return "not installed"
    version = engine["version"] or "unknown version"
    return f"{version}, not running" if engine["running"] is False else version


def _on_off(value: bool) -> str:
    return "on" if value else "off"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
