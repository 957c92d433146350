"""Examination of several hosts."""

from __future__ import annotations

from dataclasses import replace
from threading import Barrier
from typing import Any

import pytest

from virtbed import doctor
from virtbed.bench import Bench, BenchError
from virtbed_contract.sweep import HostReport, PlatformVerdict

from .conftest import report

UNREACHABLE = "the host could not be examined: ssh: connect to host bench02: No route to host"


def named(host: str, **machine: str) -> HostReport:
    one = report()
    return replace(one, host=host, facts={**one.facts, "machine": machine})


def examined(monkeypatch: pytest.MonkeyPatch, **hosts: HostReport | BenchError) -> Any:
    def examine(self: Bench, **options: Any) -> tuple[HostReport, bool]:
        assert options["restore"] is False and options["image"] == "null"
        if isinstance(answer := hosts[self.name], BenchError):
            raise answer
        return answer, False

    monkeypatch.setattr(Bench, "examine", examine)
    return doctor.examine([Bench().one_of(name) for name in hosts], "null")


def test_a_host_that_cannot_be_examined_has_its_reason_and_the_others_a_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = examined(
        monkeypatch, bench01=named("bench01"), bench02=BenchError(UNREACHABLE), bench03=named("b")
    )
    assert [host.name for host in found.hosts] == ["bench01", "bench02", "bench03"]
    assert [host.problem for host in found.hosts] == ["", UNREACHABLE, ""]
    assert found.hosts[1].report is None and found.hosts[2].report.host == "b"
    assert not found.ok


def test_several_hosts_are_good_if_each_of_them_is(monkeypatch: pytest.MonkeyPatch) -> None:
    good = replace(named("a"), ok=True)
    assert examined(monkeypatch, a=good, b=good).ok
    assert not examined(monkeypatch, a=good, b=replace(good, ok=False)).ok


def test_differences_are_those_that_keep_a_sweep_from_pooling(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = examined(monkeypatch, a=named("a", model="R650"), b=named("b", model="R660"))
    (row,) = found.unlike
    assert (row.fact, row.values) == ("model", {"a": "R650", "b": "R660"})
    assert examined(monkeypatch, a=named("a"), b=BenchError("x")).unlike == ()


def test_names_of_one_machine_and_cloned_machines_are_stated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hosts = {
        name: named(name, id=number, boot=f"boot {board}", product=board)
        for name, number, board in (
            ("a", "1", "p"), ("again", "2", "p"), ("c", "3", "q"), ("d", "3", "r"), ("e", "3", "s"),
        )
    }  # fmt: skip
    one, cloned = examined(monkeypatch, **hosts).identities
    assert one.startswith("a and again are one machine, by the firmware's UUID")
    assert cloned.startswith("c, d, e are cloned: different machines with one machine-id")


def test_ctrl_c_ends_all_examinations(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []
    both = Barrier(2)

    def examine(self: Bench, *, cancelled: Any, **_: Any) -> tuple[HostReport, bool]:
        both.wait(20)
        if self.name == "a":
            raise KeyboardInterrupt
        for _attempt in range(10_000_000):
            if cancelled():
                ended.append(self.name)
                raise BenchError("cancelled")
        return report(), False

    monkeypatch.setattr(Bench, "examine", examine)
    with pytest.raises(KeyboardInterrupt):
        doctor.examine([Bench().one_of(name) for name in ("a", "b")], "null")
    assert ended == ["b"]


def lacking(*rows: tuple[str, str, str, str]) -> HostReport:
    return replace(report(), platforms=tuple(PlatformVerdict(*row) for row in rows))


def test_the_reason_that_most_platforms_share_comes_first() -> None:
    found = lacking(
        ("cn", "unavailable", "no Docker installed", "make setup"),
        ("bm", "unavailable", "no root", "use sudo"),
        ("vm", "unavailable", "no root; no QEMU installed", "use sudo; make setup"),
        ("microvm", "emulated", "no KVM", "another host"),
        ("gpu", "unavailable", "no GPU", "buy one"),
    )
    names = ("bm", "cn", "vm", "microvm")
    assert doctor.chief_lack(found, names) == (["bm", "vm"], "no root", "use sudo")
    assert doctor.chief_lack(found, ["microvm"]) == (["microvm"], "no KVM", "another host")
    assert doctor.chief_lack(found, []) == ([], "", "")
