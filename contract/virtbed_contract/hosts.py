"""Comparison of hosts by their reports, and the document of `virtbed doctor` for several hosts.

Replicates of several hosts are pooled only if the hosts are alike in the facts that are compared
here, and in what their trials recorded (`virtbed_analysis.hosts`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from .codec import described
from .identifiers import HOST_REPORTS
from .json_file import plain
from .likeness import SPLIT
from .result import Text
from .sweep import HostReport

MEMORY_APART_PERCENT = 1
"""Tolerated difference of memory, in percent: kernels of equal machines reserve unequal parts."""
UNKNOWN = "not known"
# Compared facts of a host report: name in messages, path in the report's facts.
_REPORTED = {
    "model": ("machine", "model"),
    "firmware": ("machine", "firmware"),
    "microcode": ("machine", "microcode"),
    "topology": ("machine", "topology"),
    "CPU": ("cpu", "model"),
    "kernel": ("kernel",),
    "distribution": ("distribution",),
    "clock source": ("clocksource",),
    "frequency governor": ("governor",),
    "hypervisor below": ("below", "name"),
}
_LONGEST = 120  # characters of a value


@dataclass(frozen=True)
class HostDifference:
    """One fact in which hosts differ."""

    fact: Text = described("Name of the fact.")
    values: dict[str, str] = described("The value on each host, by the host's name.")


@dataclass(frozen=True)
class ExaminedHost:
    """One host of several, which was examined or could not be."""

    name: Text = described("Name of the host in the inventory.")
    report: Optional[HostReport] = described("The host's report; null if it was not examined.")
    problem: str = described("Why the host could not be examined; empty if it was.", default="")


@dataclass(frozen=True)
class HostReports:
    """The reports of several hosts, and what makes the hosts unlike."""

    schema: str = described("Name and version of this document.", const=HOST_REPORTS)
    ok: bool = described("Whether every host was examined and can run every platform.")
    hosts: tuple[ExaminedHost, ...] = described("Each host, in the order of the inventory.")
    unlike: tuple[HostDifference, ...] = described(
        "Facts in which the examined hosts differ, so that a sweep does not pool their results."
    )
    identities: tuple[str, ...] = described(
        "Names that belong to one machine, and machines that share a machine-id, as sentences."
    )


def reported(reports: Mapping[str, HostReport]) -> dict[str, dict[str, str]]:
    """Return the compared facts of host reports: texts by fact and host.

    Args:
        reports: The reports, by the name of the host.
    """
    facts = {
        fact: {host: _text(_at(report.facts, path)) for host, report in reports.items()}
        for fact, path in _REPORTED.items()
    }
    cpus = {host: _at(report.facts, ("cpu", "online")) for host, report in reports.items()}
    facts["online CPUs"] = {
        host: str(len(online)) if isinstance(online, list) else UNKNOWN
        for host, online in cpus.items()
    }
    facts["memory"] = _memory({host: report.facts for host, report in reports.items()})
    engines = {host: _engines(report) for host, report in reports.items()}
    for engine in sorted({name for own in engines.values() for name in own}):
        facts[engine] = {host: own.get(engine, UNKNOWN) for host, own in engines.items()}
    return facts


def differing(facts: Mapping[str, Mapping[str, str]]) -> tuple[HostDifference, ...]:
    """Return the facts in which hosts differ.

    A fact that is known of some hosts only counts as a difference; one that is known of none does
    not.

    Args:
        facts: Texts by fact and host.
    """
    return tuple(
        HostDifference(fact, _not_shared(values))
        for fact, values in facts.items()
        if len(set(values.values())) > 1
    )


def _not_shared(values: Mapping[str, str]) -> dict[str, str]:
    """Return each host's text without the parts of a list that all hosts share."""
    parts = {host: value.split(SPLIT) for host, value in values.items()}
    shared = set.intersection(*map(set, parts.values()))
    own = {host: SPLIT.join(p for p in listed if p not in shared) for host, listed in parts.items()}
    return {host: plain(text)[:_LONGEST] or "nothing more" for host, text in own.items()}


def _at(facts: Mapping[str, Any], path: Sequence[str]) -> Any:
    value: Any = facts
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _text(value: Any) -> str:
    return UNKNOWN if value in (None, "") else str(value)


def _engines(report: HostReport) -> dict[str, str]:
    engines = report.facts.get("engines")
    every = engines.items() if isinstance(engines, dict) else ()
    return {
        str(engine.get("name") or name): str(engine["version"])
        for name, engine in every
        if isinstance(engine, dict) and engine.get("version")
    }


def _memory(facts: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the memory of each host in MiB, or "alike" for all within the tolerance."""
    totals = {host: _at(own, ("memory_mib", "total")) for host, own in facts.items()}
    if not all(type(total) is int and total > 0 for total in totals.values()):
        return {host: _text(total) for host, total in totals.items()}
    alike = 100 * max(totals.values()) <= (100 + MEMORY_APART_PERCENT) * min(totals.values())
    return {host: "alike" if alike else f"{total} MiB" for host, total in totals.items()}
