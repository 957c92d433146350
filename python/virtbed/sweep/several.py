"""Files of a sweep on several hosts: the hosts' reports, and which hosts took part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from virtbed.bench import file_name
from virtbed.plan import Plan, PlanError
from virtbed.platforms import Platforms
from virtbed.sweep.admission import identity_from_report
from virtbed.sweep.recording import DOCTOR
from virtbed_contract import json_file
from virtbed_contract.codec import DocumentError, decode
from virtbed_contract.sweep import Design, HostReport, PlannedHost

REPORTS = "doctor"
"""The folder of the reports of several hosts, one file per host."""


def is_of_several(folder: Path) -> bool:
    """Return whether a folder holds a sweep on several hosts."""
    return (folder / REPORTS).is_dir()


def report_of(host: str) -> str:
    """Return the path of a host's report, relative to a sweep's folder."""
    return f"{REPORTS}/{file_name(host)}.json"


def one_host(folder: Path) -> str:
    """Return the host's name from the report of a sweep on one host; empty without one."""
    try:
        return decode(HostReport, json_file.read(folder / DOCTOR), "the host's report").host
    except DocumentError:
        return "unknown" if (folder / DOCTOR).exists() else ""


def planned_hosts(folder: Path) -> dict[str, PlannedHost]:
    """Return the hosts of design.json, by their own names; empty if it cannot be read."""
    try:
        design = decode(Design, json_file.read(folder / "design.json"), "design.json")
    except DocumentError:
        return {}
    return {host.host: host for host in design.hosts}


def identities(
    folder: Path, plan: Plan, platforms: Platforms
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the name and identity of each host of design.json whose report can be read."""
    for name, planned in planned_hosts(folder).items():
        try:
            content = json_file.read(folder / report_of(name))
            report = decode(HostReport, content, "the host's report")
            yield name, identity_from_report(plan, report, planned.placements, platforms)
        except (DocumentError, PlanError, KeyError, TypeError):
            continue
