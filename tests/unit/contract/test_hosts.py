"""Comparison of hosts by their reports."""

from __future__ import annotations

import pytest

from virtbed_contract.codec import decode, encode
from virtbed_contract.hosts import (
    UNKNOWN,
    ExaminedHost,
    HostDifference,
    HostReports,
    differing,
    reported,
)
from virtbed_contract.identifiers import HOST_REPORT, HOST_REPORTS
from virtbed_contract.sweep import HostReport


def report(**facts: object) -> HostReport:
    own = {"kernel": "6.1.0", "memory_mib": {"total": 64_000}, "cpu": {"online": [0, 1]}, **facts}
    return HostReport(HOST_REPORT, "h", True, own, (), None)


def differences(**hosts: HostReport) -> dict[str, dict[str, str]]:
    return {one.fact: one.values for one in differing(reported(hosts))}


def test_hosts_with_equal_facts_do_not_differ() -> None:
    assert differences(a=report(), b=report(), c=report()) == {}
    nearly = report(memory_mib={"total": 64_300})  # equal machines reserve unequal parts
    assert differences(a=report(), b=nearly) == {}


@pytest.mark.parametrize(
    ("fact", "facts", "value"),
    [
        ("kernel", {"kernel": "6.12"}, "6.12"),
        ("firmware", {"machine": {"firmware": "2"}}, "2"),
        ("CPU", {"cpu": {"online": [0, 1], "model": "Xeon"}}, "Xeon"),
        ("online CPUs", {"cpu": {"online": [0]}}, "1"),
        ("memory", {"memory_mib": {"total": 32_000}}, "32000 MiB"),
        ("Docker", {"engines": {"docker": {"name": "Docker", "version": "26"}}}, "26"),
    ],
)
def test_a_fact_of_one_host_is_a_difference(
    fact: str, facts: dict[str, object], value: str
) -> None:
    found = differences(a=report(), b=report(**facts))
    assert set(found) == {fact} and found[fact]["b"] == value
    assert found[fact]["a"] in ("6.1.0", UNKNOWN, "2", "64000 MiB")


def test_lists_are_reduced_to_what_hosts_do_not_share() -> None:
    (found,) = differing({"words": {"a": "quiet; x=1", "b": "quiet"}})
    assert found == HostDifference("words", {"a": "x=1", "b": "nothing more"})


def test_the_document_of_several_hosts_can_be_read_back() -> None:
    hosts = (ExaminedHost("a", report()), ExaminedHost("b", None, "unreachable"))
    document = HostReports(HOST_REPORTS, False, hosts, (HostDifference("f", {"a": "1"}),), ("x",))
    assert decode(HostReports, encode(document)) == document
