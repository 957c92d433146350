"""Files of a sweep on several hosts: the hosts' reports, and which hosts took part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from virtbed import records
from virtbed.bench import file_name
from virtbed.fleet_ledger import UNKNOWN
from virtbed.plan import Plan, PlanError
from virtbed.platforms import Platforms
from virtbed.sweep.admission import identity_from_report
from virtbed.sweep.recording import DOCTOR
from virtbed_contract import json_file
from virtbed_contract.codec import DocumentError, decode, encode
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
    """Return the host's name from the report of a sweep on one host; empty without a report.

    `UNKNOWN` if the report cannot be read.
    """
    try:
        return decode(HostReport, json_file.read(folder / DOCTOR), "the host's report").host
    except DocumentError:
        return UNKNOWN if (folder / DOCTOR).exists() else ""


def widen(folder: Path, host: str) -> None:
    """Change the files of a sweep on one host into those of a sweep on several, which has that one.

    The report is moved last: until then the folder is one of a sweep on one host, and each call
    rewrites its design.

    Args:
        folder: The sweep's folder.
        host: The host's own name.
    """
    with suppress(DocumentError):  # a damaged design is written again
        design = decode(Design, json_file.read(folder / "design.json"), "design.json")
        if not design.hosts:
            hosts = (PlannedHost(host, design.placements),)
            records.write_json(
                folder / "design.json", encode(replace(design, placements=(), hosts=hosts))
            )
    if (folder / DOCTOR).exists():
        (folder / REPORTS).mkdir(exist_ok=True)
        (folder / DOCTOR).replace(folder / report_of(host))


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
