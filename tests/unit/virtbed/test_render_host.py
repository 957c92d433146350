"""The terminal output of `virtbed doctor`."""

import io
from dataclasses import replace
from typing import Any

from rich.console import Console

from virtbed.render.host import (
    doctor_table,
    facts_table,
    gpu_table,
    tuning_table,
    waking_table,
)
from virtbed.render.image import image_line
from virtbed_contract.codec import decode
from virtbed_contract.identifiers import HOST_REPORT
from virtbed_contract.sweep import HostReport, TuningRow, WakingRow

from . import machines
from .conftest import PLATFORMS

DOCUMENT: dict[str, Any] = {
    "schema": HOST_REPORT,
    "host": "bench01",
    "ok": True,
    "facts": {
        "kernel": "6.1.0",
        "distribution": "Debian GNU/Linux 12",
        "is_root": True,
        **machines.facts(machines.flat(8), 8, model="EPYC", allowed=[0, 1, 2, 5], isolated=[6, 7]),
        "memory_mib": {"total": 8000, "available": 7000},
        "disk": {"path": "/var/lib/virtbed", "free_mib": 90000},
        "cgroup": {"version": 1, "controllers": ["cpu"]},
        "init": "other",
        "clocksource": "tsc",
        "governor": None,
        "engines": {
            "docker": {"name": "Docker", "installed": True, "running": False, "version": None},
            "libvirt": {"name": "libvirt", "installed": False, "running": False, "version": None},
            "qemu": {"name": "QEMU", "installed": True, "running": None, "version": "7.2.22"},
        },
        "kvm": {"probe": "hung", "detail": "last console line: [/dim] [    0.1] x"},
        "gpu": [],
        "iommu": False,
        "below": {"name": "KVM", "emulated": False},
        "images": {
            "cpu": {"digest": "sha256:12", "current": True, "build_s": 240},
            "null": {"digest": "sha256:34", "current": False, "build_s": 120},
            "other": {"digest": None, "current": False, "build_s": 90},
        },
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
REPORT = decode(HostReport, DOCUMENT)


def test_a_host_with_a_gpu_has_a_table_of_the_platforms_that_can_use_it() -> None:
    assert gpu_table(REPORT, PLATFORMS.entries) is None
    row = {"platform": "vm", "status": "unavailable", "reason": "no IOMMU", "remedy": "VT-d"}
    facts = {**DOCUMENT["facts"], "gpu": [{"name": "H200"}]}
    report = decode(HostReport, DOCUMENT | {"facts": facts, "gpus": [row]})
    shown = text(gpu_table(report, PLATFORMS.entries))
    assert "Platforms of bench01 with a GPU" in shown
    assert "KVM guest" in shown and "no IOMMU" in shown and "VT-d" in shown
    assert "H200" in text(facts_table(report))


def text(renderable: Any) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def test_every_platform_has_its_row_with_reason_and_remedy() -> None:
    shown = text(doctor_table(REPORT, PLATFORMS.entries))
    assert "bench01" in shown
    lines = shown.splitlines()
    for row in REPORT.platforms:
        line = next(x for x in lines if f" {row.platform} " in x)
        assert row.status in line and row.reason in line and row.remedy in line


def test_the_table_of_facts_has_the_host_in_short() -> None:
    shown = text(facts_table(REPORT))
    for part in ("CPUs 0-2,5, isolated 6-7", "1 socket, SMT off", "L3 ", "CPUs 0-7, 9000 MiB"):
        assert part in shown
    for part in ("7000 of 8000 MiB", "not running", "not installed", "hung: last"):
        assert part in shown
    assert "[/dim] [    0.1] x" in shown
    assert "tcg" in shown


def test_each_image_has_its_digest_or_the_command_that_builds_it_and_the_time() -> None:
    shown = [line.strip() for line in text(facts_table(REPORT)).splitlines() if "image " in line]
    builds = "make setup, with a PLAN that names it, builds it, in about"
    assert [line.split("  ", 1)[1].strip() for line in shown] == [
        "sha256:12, of these sources",
        f"of other sources than these: {builds} 2 min",
        f"not built: {builds} 2 min",
    ]


def test_a_plans_image_has_its_remedy_unless_no_platform_can_run_without_it() -> None:
    image = {"variant": "null", "words": "nothing", **REPORT.facts["images"]["other"]}
    assert image_line(image, "plans/x.yml") == (
        "image null (nothing): not built; that takes about 2 min"
    )
    image |= {"digest": "sha256:12", "current": False}
    assert image_line(image, "plans/x.yml") == (
        "image null (nothing): of other sources than these: make setup PLAN=plans/x.yml builds it, "
        "in about 2 min"
    )


def test_a_host_without_hwloc_says_what_to_install() -> None:
    facts = REPORT.facts | {"hwloc": {"xml": None, "problem": "no lstopo-no-graphics found"}}
    shown = text(facts_table(replace(REPORT, facts=facts)))
    assert "no lstopo-no-graphics found" in shown and "hwloc-nox" in shown


def test_settings_that_disturb_are_printed_with_found_wanted_and_why() -> None:
    rows = (
        TuningRow("swappiness", True, "60", "1", "paging"),
        TuningRow("governor", False, None, "performance", "this kernel does not have it"),
        TuningRow("interrupts", True, "0", "0", "measured", ("131 (nvme0q3): managed",)),
    )
    shown = text(tuning_table(replace(REPORT, tuning=rows)))
    assert "swappiness" in shown and "60" in shown and "paging" in shown
    assert "not available" in shown and "does not have it" in shown
    assert "measured; not 131 (nvme0q3): managed" in shown


def test_timers_are_printed_with_their_next_start_and_whether_tuning_stops_them() -> None:
    rows = (
        WakingRow("apt-daily.timer", "2026-08-05T22:00:00Z", True, "runs apt-daily.service"),
        WakingRow("nginx.service", None, False, "runs, and is left"),
    )
    lines = text(waking_table(replace(REPORT, waking=rows))).splitlines()
    (apt,) = (line for line in lines if "apt-daily.timer" in line)
    (nginx,) = (line for line in lines if "nginx" in line)
    assert "2026-08-05 22:00:00" in apt and "stopped" in apt and "left" not in apt
    assert " left " in nginx and "stopped" not in nginx


def test_unknown_timers_are_reported_with_the_reason() -> None:
    shown = text(waking_table(replace(REPORT, waking_unknown="the init is runit, not systemd")))
    assert "not known; the init is runit, not systemd" in " ".join(shown.split())


def test_an_emulated_host_is_called_emulated() -> None:
    assert "times measured here are not used" not in text(facts_table(REPORT))
    facts = REPORT.facts | {"below": {"name": "QEMU TCG", "emulated": True}}
    shown = text(facts_table(replace(REPORT, facts=facts)))
    assert "QEMU TCG: times measured here are not used" in shown
