"""Hidden differences between the sides of a ratio, of each recorded kind: each is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from virtbed_analysis.document import document
from virtbed_analysis.frames import read_sweep
from virtbed_analysis.page import render
from virtbed_analysis.suspicion import suspicions
from virtbed_contract.kernel import moments
from virtbed_contract.likeness import RECORDED, held

from .conftest import KERNEL_SETTINGS, Folder, Json, quiet


@pytest.fixture
def pair(folder: Folder) -> Folder:
    """Bare metal, a container and a guest, one replicate."""
    for number, platform in enumerate(("bm", "cn", "vm")):
        folder.trial(platform, "pinned", 1, {"a": [20.0 + number]})
    return folder


def name(platform: str) -> str:
    return f"trials/{platform}-pinned-c01-image_classification-r01"


def facts(folder: Folder, platform: str, part: str, **values: Any) -> None:
    """Let the process of a trial tell other settings."""
    folder.edit(f"{name(platform)}/result.json", lambda r: r["environment"][part].update(values))


def counted(**changes: Any) -> Json:
    """What a bench host's kernel has counted, as a reading of a machine holds it."""
    return {
        "settings": dict(KERNEL_SETTINGS), "online": "0-15", "uptime_s": 10.0, "cpus": "0",
        "interrupts": {"36 nvme0q1": 5, "LOC": 100}, "aimed": "36", "throttled": 0,
        "processes": 500, "swapped_pages": 0, "messages": [[7, "ready"]], "timers": {},
    } | changes  # fmt: skip


def outside(
    folder: Folder, platform: str, before: Json, after: Json, *, alone: bool = False
) -> None:
    """Let the bench host's kernel be read around a trial, in its evidence and its result."""

    def machine(evidence: Json) -> None:
        evidence["before"]["machine"]["bench"] = before
        evidence["after"]["machine"]["bench"] = after

    folder.edit(f"{name(platform)}/evidence.json", machine)
    if not alone:
        bench = moments.bench({"bench": before}, {"bench": after})
        folder.edit(f"{name(platform)}/result.json", lambda r: r.update(bench=bench))


def test_each_setting_of_one_kernel_that_differs_leaves_no_ratio(pair: Folder) -> None:
    """KSM, swap, a command line: on one kernel all trials of a replicate run under one state."""
    facts(pair, "cn", "kernel_settings", ksm="on")
    (rejected,) = read_sweep(pair.path).rejected
    assert rejected.file == f"{name('cn')}/result.json"
    assert rejected.reason.startswith(
        "merging of equal pages (KSM) on found, ksm as it was in bare"
    )


@pytest.mark.parametrize("one", [*held("kernel"), *held("process")], ids=lambda one: one.name)
def test_every_recorded_fact_is_compared(pair: Folder, one: Any) -> None:
    """A guest's is said next to its ratio; what one image decides leaves none."""
    part = f"{one.held}_settings"
    # What is asked for is attested; the analysis would not take such a result at all.
    other = {"swap_limit": "max", "allocator": None, "quota_times": None, "page_policy": None}
    value = other.get(one.name, 900.0 if one.number else "another")
    facts(pair, "vm", part, **{one.name: value})
    sweep = read_sweep(pair.path)
    if value is None:
        assert not sweep.rejected and not document(sweep)["unlike"]
    elif one.alike == "everywhere":
        (rejected,) = sweep.rejected
        assert one.words in rejected.reason
    else:
        (row,) = document(sweep)["unlike"]
        assert (row["fact"], row["platform"], row["reason"]) == (one.words, "vm", one.why)


def test_seccomp_and_store_bypass_of_a_container_are_shown_with_its_ratio(
    pair: Folder,
) -> None:
    for platform, seccomp, bypass in (
        ("bm", "none", "thread vulnerable"), ("vm", "none", "thread vulnerable"),
        ("cn", "filter", "thread force mitigated"),
    ):  # fmt: skip
        facts(pair, platform, "process_settings", seccomp=seccomp, store_bypass=bypass)
    content = document(read_sweep(pair.path))
    assert [(r["fact"], r["where"], r["value"], r["other"]) for r in content["unlike"]] == [
        ("seccomp", "cn and its bare metal", "filter", "none"),
        ("store bypass", "cn and its bare metal", "thread force mitigated", "thread vulnerable"),
    ]


def test_a_setting_masked_by_an_engine_is_read_from_the_host(pair: Folder) -> None:
    for platform in ("bm", "cn"):
        outside(pair, platform, counted(), counted(uptime_s=20.0))
    facts(pair, "cn", "kernel_settings", **dict.fromkeys(KERNEL_SETTINGS))
    facts(pair, "cn", "process_settings", apparmor=None)
    sweep = read_sweep(pair.path)
    assert not sweep.rejected and not document(sweep)["unlike"]
    hidden = counted(settings=KERNEL_SETTINGS | {"swap": "2048 MiB"})
    outside(pair, "cn", hidden, hidden)
    (rejected,) = read_sweep(pair.path).rejected
    assert "swap 2048 MiB found, swap as it was in bare metal" in rejected.reason


def test_a_setting_of_the_host_that_only_guests_ran_under(pair: Folder) -> None:
    """Inside a guest nothing shows it."""
    for platform in ("bm", "cn", "vm"):
        settings = KERNEL_SETTINGS | {"ksm": "on" if platform == "vm" else "off"}
        if platform != "vm":
            facts(pair, platform, "kernel_settings", ksm="off")
        outside(pair, platform, counted(settings=settings), counted(settings=settings))
    (rejected,) = read_sweep(pair.path).rejected
    assert rejected.file == f"{name('vm')}/result.json"
    assert rejected.reason.startswith("bench host's merging of equal pages (KSM) on found, off in")


def test_a_result_that_contradicts_its_evidence_on_the_host_is_rejected(pair: Folder) -> None:
    outside(pair, "cn", counted(), counted(throttled=9), alone=True)
    outside(pair, "vm", {"settings": 3}, {"settings": 3}, alone=True)
    many = counted(aimed="0-99999999999")
    outside(pair, "bm", many, many, alone=True)
    reasons = {row.file: row.reason for row in read_sweep(pair.path).rejected}
    assert "bench host's kernel contradicts" in reasons[f"{name('cn')}/result.json"]
    for platform in ("vm", "bm"):
        assert (
            "an invalid reading of the bench host's kernel"
            in reasons[f"{name(platform)}/result.json"]
        )


def test_the_report_lists_each_fact_with_where_it_is_alike_and_why(pair: Folder) -> None:
    facts(pair, "cn", "process_settings", seccomp="filter", apparmor=None)
    facts(pair, "bm", "process_settings", huge_share=0.25)
    content = document(read_sweep(pair.path))
    rows = {row["fact"]: row for row in content["recorded"]}
    assert list(rows) == [one.words for one in RECORDED]
    assert all(row["why"] and row["matters"] for row in rows.values())
    assert rows["seccomp"]["found"] == "differs"
    assert rows["AppArmor"]["found"] == "apparmor as it was; not reported by cn"
    assert rows["share of memory in huge pages"]["found"] == "0.25 to 0.5"
    assert rows["C library"]["alike"] == "equal on all platforms"
    page = render(content)
    assert "Recorded settings of both sides" in page
    assert "at most 0 throttle events" in page


HAPPENED: dict[str, tuple[Json, str]] = {
    "an interrupt on a measured CPU": (
        {"device_interrupts": 5000},
        "interrupts: 2500 per second and CPU, at most 1000 expected (36 nvme0q1)",
    ),
    "an interrupt moved there": (
        {"aimed": ["36 nvme0q1"]},
        "moved interrupts: 1 devices, at most 0 expected (36 nvme0q1)",
    ),
    "timers of others": (
        {"timer_interrupts": 8000}, "timer interrupts: 4000 per second and CPU, at most 2000",
    ),
    "a cron job": ({"processes": 60}, "started processes: 30 per second, at most 5 expected"),
    "a timer that fires": (
        {"timers": ["fstrim.timer"]},
        "timers: 1 of systemd fired, at most 0 expected (fstrim.timer)",
    ),
    "heat": ({"throttled": 3}, "heat: 3 throttle events, at most 0 expected"),
    "swapping": ({"swapped_pages": 64}, "swapping: 64 pages, at most 0 expected"),
    "a kernel message": (
        {"messages": 2, "last_message": "mce: hot"},
        "kernel messages: 2 new, at most 0 expected (last: mce: hot)",
    ),
    "a setting": (
        {"changed": ["swap none before, 2048 MiB after"]},
        "changed settings: 1 of the kernel, at most 0 expected (swap none before, 2048 MiB after)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", HAPPENED)
def test_an_event_above_its_limit_makes_a_trial_suspect(pair: Folder, what: str) -> None:
    """Whether the process's kernel tells it or the bench host's."""
    changes, said = HAPPENED[what]
    result = json.loads((pair.path / f"{name('cn')}/result.json").read_text())
    assert suspicions(result) == []
    result["confounders"]["moved"] = quiet(**changes)
    (found,) = suspicions(result)
    assert found.startswith(said)
    result["confounders"]["moved"] = quiet()
    result["bench"] = {"settings": KERNEL_SETTINGS, "moved": quiet(**changes)}
    # The testbed's own tasks start processes between the readings of the host.
    assert suspicions(result) == ([] if what == "a cron job" else [found])
    result["confounders"]["moved"] = result["bench"] = None
    assert suspicions(result) == []


def test_timers_of_a_hypervisor_or_sandbox_are_not_suspect(pair: Folder) -> None:
    """Of gVisor the host counts 3000 a second on a quiet machine, in every trial."""
    busy = {"settings": KERNEL_SETTINGS, "moved": quiet(timer_interrupts=6000)}
    of = {
        platform: json.loads((pair.path / f"{name(platform)}/result.json").read_text())
        for platform in ("bm", "cn", "vm")
    }
    for result in of.values():
        result["bench"] = busy
    sandboxed = {**of["cn"], "environment": {**of["cn"]["environment"], "kernel_settings": None}}
    assert suspicions(of["vm"]) == suspicions(sandboxed) == []
    for platform in ("bm", "cn"):  # what the same kernel tells outside of it
        (suspicion,) = suspicions(of[platform])
        assert suspicion.startswith("timer interrupts: 3000 per second and CPU")
    of["vm"]["confounders"]["moved"] = quiet(timer_interrupts=6000)
    assert len(suspicions(of["vm"])) == 1


def test_a_handful_of_events_in_a_short_window_is_no_rate(pair: Folder) -> None:
    """Three requests of 10 ms; the kernel's clock is good to a hundredth of a second."""
    result = json.loads((pair.path / f"{name('cn')}/result.json").read_text())
    few = {"processes": 2, "device_interrupts": 40, "timer_interrupts": 80}
    for window_s in (0.0, 0.01, 0.03):
        result["confounders"]["moved"] = quiet(window_s=window_s, **few)
        assert suspicions(result) == []
    many = {"processes": 6, "device_interrupts": 200, "timer_interrupts": 300}
    result["confounders"]["moved"] = quiet(window_s=0.03, **many)
    assert [text.split(":")[0] for text in suspicions(result)] == [
        "interrupts", "timer interrupts", "started processes",
    ]  # fmt: skip


def test_a_clock_read_by_a_system_call_is_suspect(pair: Folder) -> None:
    result = json.loads((pair.path / f"{name('bm')}/result.json").read_text())
    result["environment"]["process_settings"]["clock_ns"] = 1800.0
    assert suspicions(result) == ["clock: 1800 ns per reading, at most 1000 expected"]
