"""The doctor's report as a person sees it."""

import copy
import io
from typing import Any

import pytest
from rich.console import Console

from virtbed.doctor import doctor_table, exit_status, facts_table, tuning_table

REPORT: dict[str, Any] = {
    "schema": "virtbed.doctor/1",
    "host": "bench01",
    "ok": True,
    "facts": {
        "kernel": "6.1.0",
        "distribution": "Debian GNU/Linux 12",
        "is_root": True,
        "cpu": {"model": "EPYC", "sockets": 1, "smt": False, "allowed": [0, 1, 2, 5]},
        "numa": [{"node": 0, "cpus": [0, 1, 2, 5], "memory_mib": 7000}],
        "memory_mib": {"total": 8000, "available": 7000},
        "disk": {"path": "/var/lib/virtbed", "free_mib": 90000},
        "cgroup": {"version": 1, "controllers": ["cpu"]},
        "init": "other",
        "clocksource": "tsc",
        "governor": None,
        "docker": {"installed": True, "running": False, "version": None},
        "libvirt": {"installed": False, "running": False, "version": None},
        "qemu": {"installed": True, "version": "7.2.22"},
        "kvm": {"probe": "hung", "detail": "last console line: [/dim] [    0.1] x"},
        "gpu": [],
        "iommu": False,
        "image": {"digest": None, "key": None, "path": None},
    },
    "platforms": [
        {"platform": "bm", "status": "available", "reason": "root", "remedy": ""},
        {"platform": "vm", "status": "emulated", "reason": "line: [/dim]", "remedy": "use a host"},
        {"platform": "cn", "status": "available", "reason": "Docker 20", "remedy": ""},
        {"platform": "vmcn", "status": "emulated", "reason": "no KVM", "remedy": "use a host"},
        {"platform": "gpu", "status": "unavailable", "reason": "no GPU", "remedy": "find one"},
    ],
    "accelerator": "tcg",
}


def text(renderable: Any) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def test_every_platform_has_its_row_with_reason_and_remedy() -> None:
    shown = text(doctor_table(REPORT))
    assert "bench01" in shown
    lines = shown.splitlines()
    for row in REPORT["platforms"]:
        line = next(x for x in lines if f" {row['platform']} " in x)
        assert all(row[key] in line for key in ("status", "reason", "remedy"))


def test_the_facts_are_summed_up() -> None:
    shown = text(facts_table(REPORT))
    for part in ("CPUs 0-2,5", "7000 of 8000 MiB", "not running", "not installed", "hung: last"):
        assert part in shown
    assert "[/dim] [    0.1] x" in shown
    assert "not built" in shown and "tcg" in shown


@pytest.mark.parametrize("platform", ["bm", "vm", "cn", "vmcn", "gpu"])
def test_exit_status_is_about_the_four_platforms(platform: str) -> None:
    assert exit_status(REPORT) == 0
    worse = copy.deepcopy(REPORT)
    next(r for r in worse["platforms"] if r["platform"] == platform)["status"] = "unavailable"
    assert exit_status(worse) == (0 if platform == "gpu" else 1)


def test_a_missing_platform_is_not_a_good_one() -> None:
    assert exit_status({**REPORT, "platforms": REPORT["platforms"][1:]}) == 1


def test_the_settings_that_disturb_show_found_wanted_and_why() -> None:
    rows = [
        {"name": "swappiness", "available": True, "value": "60", "wanted": "1", "reason": "paging"},
        {"name": "governor", "available": False, "value": None, "wanted": "performance",
         "reason": "this host or its kernel does not have it"},
    ]  # fmt: skip
    shown = text(tuning_table(REPORT | {"tuning": rows}))
    assert "swappiness" in shown and "60" in shown and "paging" in shown
    assert "not available" in shown and "does not have it" in shown
