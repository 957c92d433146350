"""Terminal output of `virtbed doctor`: facts of a host, its platforms, settings that disturb."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.text import Text

from virtbed.hwloc import Node
from virtbed.placement import PlacementError, machine_of
from virtbed.placement_words import count
from virtbed.render.image import state
from virtbed.render.table import Table
from virtbed_contract.documents import Platform
from virtbed_contract.kernel.cpus import format_cpu_list
from virtbed_contract.sweep import HostReport, PlatformVerdict

STYLES = {"available": "green", "emulated": "yellow", "unavailable": "red"}


def doctor_table(report: HostReport, entries: Mapping[str, Platform]) -> Table:
    """Return a table with one row per platform: its status, the reason and the remedy."""
    table = Table(f"Platforms of {report.host}", apart=True)
    for heading in ("platform", "code"):
        table.add_column(heading)
    _fill(table, report.platforms, entries)
    return table


def gpu_table(report: HostReport, entries: Mapping[str, Platform]) -> Table | None:
    """Return a table with one row per platform: whether it can use a GPU; None without a GPU."""
    if not report.facts["gpu"]:
        return None
    table = Table(f"Platforms of {report.host} with a GPU", apart=True)
    for heading in ("platform", "code"):
        table.add_column(heading)
    _fill(table, report.gpus, entries)
    return table


def _fill(table: Table, rows: Iterable[PlatformVerdict], entries: Mapping[str, Platform]) -> None:
    for heading in ("status", "reason", "remedy"):
        table.add_column(heading, measured=True)
    for row in rows:
        words = entries[row.platform].words if row.platform in entries else ""
        status = Text(row.status, style=STYLES[row.status])
        table.add_row(words, row.platform, status, row.reason, row.remedy)


def facts_table(report: HostReport) -> Table:
    """Return a table with one row per fact of the host."""
    table = Table()
    for heading in ("fact", "value"):
        table.add_column(heading, measured=True)
    for name, value in _facts(report.facts):
        table.add_row(name, value)
    table.add_row("guests run under", report.accelerator or "nothing: QEMU is not installed")
    return table


def tuning_table(report: HostReport) -> Table:
    """Return a table with one row per setting that disturbs measurements: found, wanted, why."""
    table = Table("Settings that `tuning: true` in a plan changes")
    for heading in ("setting", "found", "wanted", "why"):
        table.add_column(heading, measured=True)
    for row in report.tuning:
        style = "" if not row.available else "green" if row.value == row.wanted else "yellow"
        found = Text((row.value or "") if row.available else "not available", style=style)
        except_for = f"; not {', '.join(row.exempt)}" if row.exempt else ""
        table.add_row(row.name, found, row.wanted, Text(row.reason + except_for))
    return table


def waking_table(report: HostReport) -> Table:
    """Return a table with one row per timer or service that may wake up while trials run."""
    table = Table(
        "Timers and services that may wake up while trials run" + _unreported(report.waking_unknown)
    )
    for heading in ("unit", "due next, UTC", "with tuning", "what it does"):
        table.add_column(heading, measured=True)
    for row in report.waking:
        due = row.next.replace("T", " ").rstrip("Z") if row.next else ""
        does = Text("stopped", style="green") if row.stopped else Text("left", style="yellow")
        table.add_row(row.name, due, does, Text(row.reason))
    return table


def _unreported(why: str) -> str:
    return f": not known; {why}" if why else ""


def _facts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the rows of the table of facts: name and value."""
    cpu, disk, memory = facts["cpu"], facts["disk"], facts["memory_mib"]
    cgroup = facts["cgroup"]["version"]
    return [
        ("system", f"{facts['distribution']}, kernel {facts['kernel']}, init {facts['init']}"),
        (
            "cpu",
            f"{cpu['model']}, allowed CPUs {format_cpu_list(cpu['allowed'])}"
            + _marked("isolated", cpu["isolated"])
            + _marked("without a tick", cpu["tickless"]),
        ),
        ("below", _below(facts["below"])),
        *_shape(facts),
        ("clock", f"{facts['clocksource']}, governor {facts['governor'] or 'none'}"),
        ("memory", f"{memory['available']} of {memory['total']} MiB available"),
        ("disk", f"{disk['free_mib']} MiB free for {disk['path']}"),
        ("cgroup", f"version {cgroup}" if cgroup else "not mounted"),
        *((name, _engine(engine)) for name, engine in facts["engines"].items()),
        ("kvm", f"{facts['kvm']['probe']}: {facts['kvm']['detail']}"),
        *_host_kernel(facts),
        ("gpu", ", ".join(gpu["name"] for gpu in facts["gpu"]) or "none"),
        ("iommu", _on_off(facts["iommu"])),
        *((f"image {name}", _image(image)) for name, image in facts["images"].items()),
    ]


def _host_kernel(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield whether guests could boot the host's kernel; nothing if the report does not have it."""
    kernel = facts.get("host_kernel")
    if not kernel:
        return
    if kernel["problem"]:
        yield "host's kernel for guests", f"no: {kernel['problem']}; {kernel['remedy']}"
        return
    without = f", without {', '.join(kernel['missing'])}" if kernel["missing"] else ""
    yield (
        "host's kernel for guests",
        f"{kernel['kernel']['release']}, {kernel['kernel']['file']}{without}",
    )


def _below(below: Mapping[str, Any]) -> str:
    name = below["name"] or "hardware"
    return f"{name}: times measured here are not used" if below["emulated"] else name


def _image(image: Mapping[str, Any]) -> str:
    return state(image).format(remedy="make setup, with a PLAN that names it,")


def _marked(what: str, cpus: list[int]) -> str:
    return f", {what} {format_cpu_list(cpus)}" if cpus else ""


def _shape(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the topology that hwloc reports, or why it reports none."""
    try:
        machine = machine_of(facts)
    except PlacementError as error:
        yield "topology", str(error)
        return
    yield "topology", f"{count(machine.packages, 'socket')}, SMT {_on_off(machine.smt)}"
    if len(machine.kinds) > 1:
        kinds = enumerate(machine.kinds, 1)
        yield (
            "core kinds",
            "; ".join(f"{n}: CPUs {format_cpu_list(k.cpus)} ({k.words})" for n, k in kinds),
        )
    for level in dict.fromkeys(d.name for d in machine.domains if d.cache or d.name == "cluster"):
        sets = [format_cpu_list(d.cpus) for d in machine.domains if d.name == level]
        yield level, " and ".join(f"CPUs {each}" for each in sets)
    yield "numa", "; ".join(map(_node, machine.nodes)) or "one node"
    for address, cpus in machine.cards.items():
        yield f"card {address}", f"near CPUs {format_cpu_list(cpus)}"


def _node(node: Node) -> str:
    cpus = f"CPUs {format_cpu_list(node.cpus)}" if node.own else "no CPUs of its own"
    memory = "memory not known" if node.memory_mib is None else f"{node.memory_mib} MiB"
    return f"node {node.node}: {cpus}, {memory}{'' if node.dram else ', not DRAM'}"


def _engine(engine: Mapping[str, Any]) -> str:
    if not engine["installed"]:
        return "not installed"
    version = engine["version"] or "unknown version"
    return f"{version}, not running" if engine["running"] is False else version


def _on_off(value: bool) -> str:
    return "on" if value else "off"
