"""Examination of several hosts at once, and what makes them unlike: `virtbed doctor`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from threading import Event
from typing import Any

from virtbed.bench import Bench, BenchError
from virtbed_contract.hosts import ExaminedHost, HostReports, differing, reported
from virtbed_contract.identifiers import HOST_REPORTS
from virtbed_contract.kernel import machine
from virtbed_contract.sweep import HostReport

AT_ONCE = 8
"""Hosts that are examined at the same time; each has an ansible-playbook on the controller."""


def examine(benches: Sequence[Bench], image: str) -> HostReports:
    """Examine several hosts, at most `AT_ONCE` at the same time.

    Args:
        benches: The hosts, each with its `name`.
        image: Variant of the image that is to run.
    """
    interrupted = Event()

    def one(bench: Bench) -> ExaminedHost:
        try:
            report, _ = bench.examine(restore=False, image=image, cancelled=interrupted.is_set)
            return ExaminedHost(bench.name, report)
        except BenchError as error:
            return ExaminedHost(bench.name, None, str(error))

    with ThreadPoolExecutor(min(AT_ONCE, len(benches))) as pool:
        try:
            examined = tuple(pool.map(one, benches))
        except BaseException:  # Ctrl-C
            interrupted.set()
            pool.shutdown(cancel_futures=True)
            raise
    reports = {host.name: host.report for host in examined if host.report}
    return HostReports(
        schema=HOST_REPORTS,
        ok=all(host.report is not None and host.report.ok for host in examined),
        hosts=examined,
        unlike=differing(reported(reports)) if len(reports) > 1 else (),
        identities=tuple(_identities(reports)),
    )


def _identities(reports: Mapping[str, HostReport]) -> Iterator[str]:
    """Yield a sentence per two names of one machine, and per group of cloned machines."""
    own: dict[str, Mapping[str, Any]] = {
        name: report.facts.get("machine") or {} for name, report in reports.items()
    }
    cloned: dict[str, set[str]] = defaultdict(set)
    for (first, one), (second, other) in combinations(own.items(), 2):
        if by := machine.one_by(one, other):
            yield (
                f"{first} and {second} are one machine, by {by}: a sweep uses the first; name it "
                "once, or change that on one of them if they are two machines"
            )
        elif machine.are_cloned(one, other):
            cloned[one["id"]] |= {first, second}
    for names in cloned.values():
        yield (
            f"{', '.join(sorted(names))} are cloned: different machines with one machine-id. "
            "Sweeps can use them; DHCP and logs may mistake one for another "
            "(systemd-machine-id-setup makes a new id)"
        )


def chief_lack(report: HostReport, platforms: Collection[str]) -> tuple[list[str], str, str]:
    """Return what a host lacks first: the first reason that most platforms have in common.

    Platforms that are unavailable come before those that are emulated.

    Args:
        report: The host's report.
        platforms: The platforms that count; a report has further rows.

    Returns:
        The platforms that it concerns, the reason, and the remedy; empty if nothing is lacking.
    """
    for status in ("unavailable", "emulated"):
        rows = [r for r in report.platforms if r.status == status and r.platform in platforms]
        if rows:
            reason = Counter(_first(row.reason) for row in rows).most_common(1)[0][0]
            of = [row for row in rows if _first(row.reason) == reason]
            return [row.platform for row in of], reason, _first(of[0].remedy)
    return [], "", ""


def _first(text: str) -> str:
    """Return the first of several reasons or remedies, which role host_doctor joins by "; "."""
    return text.partition("; ")[0]
