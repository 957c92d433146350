"""What a folder's files tell of the several hosts that took part in its sweep."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from virtbed.bench import file_name
from virtbed.plan import Plan, PlanError
from virtbed.platforms import Platforms
from virtbed.sweep.admission import of_report
from virtbed.sweep.recording import DOCTOR
from virtbed_contract import json_file
from virtbed_contract.codec import DocumentError, decode
from virtbed_contract.sweep import Design, HostReport, PlannedHost

REPORTS = "doctor"
"""The folder of the reports of several hosts, a file each."""


def is_of_several(folder: Path) -> bool:
    """Return whether several hosts carry the sweep of a folder out."""
    return (folder / REPORTS).is_dir()


def report_of(host: str) -> str:
    """Return the file of a host's report, within a sweep's folder."""
    return f"{REPORTS}/{file_name(host)}.json"


def one_host(folder: Path) -> str:
    """Return the host that a folder has the report of, if its sweep is one host's; else nothing."""
    try:
        return decode(HostReport, json_file.read(folder / DOCTOR), "the host's report").host
    except DocumentError:
        return "unknown" if (folder / DOCTOR).exists() else ""


def planned_hosts(folder: Path) -> dict[str, PlannedHost]:
    """Return the hosts that design.json names, by their own names; none where it cannot be read."""
    try:
        design = decode(Design, json_file.read(folder / "design.json"), "design.json")
    except DocumentError:
        return {}
    return {host.host: host for host in design.hosts}


def identities(
    folder: Path, plan: Plan, platforms: Platforms
) -> Iterator[tuple[str, dict[str, str]]]:
    """Give what must not change of each host that design.json names, as far as files tell it."""
    for name, planned in planned_hosts(folder).items():
        try:
            found = json_file.read(folder / report_of(name))
            report = decode(HostReport, found, "the host's report")
            yield name, of_report(plan, report, planned.placements, platforms)
        except (DocumentError, PlanError, KeyError, TypeError):
            continue
