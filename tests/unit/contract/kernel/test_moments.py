"""Tests of a kernel's events between two readings: synthetic, recorded, and of this kernel."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from virtbed_contract.codec import decode, encode
from virtbed_contract.kernel import moments, settings
from virtbed_contract.surroundings import Bench, Moved

from .conftest import lay
from .test_settings import SETTINGS, TREE

# From an Intel server, shortened; CPUs that are offline have no columns.
INTERRUPTS = """\
            CPU0       CPU1       CPU3
   8:          0          0          0   IO-APIC   8-edge      rtc0
  36:     885002       {nvme}       4  PCI-MSIX-0000:00:02.0   1-edge      nvme0q1
 130:          9          {nic}       8  PCI-MSIX-0000:3b:00.0   1-edge      eth0-TxRx-1
 LOC:   20005242   {loc}   77   Local timer interrupts
 TRM:          0          5          0   Thermal event interrupts
 ERR:          0"""
CPU = "sys/devices/system/cpu"
TIMER = "Id=fstrim.timer\nLastTriggerUSec={}\n\nId=apt-daily.timer\nLastTriggerUSec=n/a\n"
MESSAGE = "6,{},19410648598,-;{}\n SUBSYSTEM=block"


def tree(**changes: Any) -> dict[str, str]:
    now = {
        "nvme": 100, "nic": 7, "loc": 1000, "core": 3, "package": 1, "processes": 500, "out": 0,
        "up": "100.25", "nic_at": "0", "number": 41, "text": "ready", "fired": "Mon 03:00",
    } | changes  # fmt: skip
    return TREE | {
        "proc/interrupts": INTERRUPTS.format(**now),
        "proc/uptime": f"{now['up']} 180.00",
        "proc/stat": f"cpu  1 2 3\nctxt 99\nprocesses {now['processes']}\nprocs_running 1",
        "proc/vmstat": f"pgfault 7\npswpin 0\npswpout {now['out']}",
        "proc/irq/36/effective_affinity_list": "1",
        "proc/irq/130/effective_affinity_list": str(now["nic_at"]),
        "proc/irq/8/smp_affinity_list": "0,3",
        f"{CPU}/online": "0-1,3",
        f"{CPU}/cpu1/thermal_throttle/core_throttle_count": str(now["core"]),
        f"{CPU}/cpu1/thermal_throttle/package_throttle_count": str(now["package"]),
        "dev/kmsg": "\n".join(
            MESSAGE.format(number, now["text"] if number == now["number"] else "older")
            for number in range(40, now["number"] + 1)
        ),
        "run/systemd/timers": TIMER.format(now["fired"]),
    }


def read(folder: Path, cpus: tuple[int, ...] = (1,), **changes: Any) -> dict[str, Any]:
    root = lay(folder, tree(**changes))
    return {"settings": settings.kernel(root), **moments.counters(root, cpus)}


def test_counters_since_boot(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert found == {
        "settings": SETTINGS, "online": "0-1,3", "uptime_s": 100.25, "cpus": "1",
        "interrupts": {"36 nvme0q1": 100, "130 eth0-TxRx-1": 7, "LOC": 1000},
        "aimed": "36", "throttled": 4, "processes": 500, "swapped_pages": 0,
        "messages": [(40, "older"), (41, "ready")],
        "timers": {"fstrim.timer": "Mon 03:00", "apt-daily.timer": ""},
    }  # fmt: skip
    assert read(tmp_path / "two", (0, 3))["interrupts"]["36 nvme0q1"] == 885006


QUIET = {
    "window_s": 10.0, "cpus": "1", "device_interrupts": 0, "busiest": None, "timer_interrupts": 0,
    "aimed": [], "throttled": 0, "processes": 0, "swapped_pages": 0, "messages": 0,
    "last_message": None, "timers": [], "changed": [],
}  # fmt: skip
HAPPENED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {}),
    "a disk interrupts": ({"nvme": 350}, {"device_interrupts": 250, "busiest": "36 nvme0q1"}),
    "ticks": ({"loc": 3500}, {"timer_interrupts": 2500}),
    "an interrupt moved to a measured CPU": ({"nic_at": "1"}, {"aimed": ["130 eth0-TxRx-1"]}),
    "heat": ({"core": 5, "package": 2}, {"throttled": 3}),
    "a CPU with its counts went": ({"core": 0}, {"throttled": 0}),
    "a cron job": ({"processes": 540}, {"processes": 40}),
    "swapping": ({"out": 64}, {"swapped_pages": 64}),
    "messages": (
        {"number": 45, "text": "mce: CPU1: Package temperature above threshold"},
        {"messages": 4, "last_message": "mce: CPU1: Package temperature above threshold"},
    ),
    "a timer that fires": ({"fired": "Mon 04:00"}, {"timers": ["fstrim.timer"]}),
}


@pytest.mark.parametrize("what", HAPPENED)
def test_each_kind_of_event_is_counted_separately(tmp_path: Path, what: str) -> None:
    changes, expected = HAPPENED[what]
    found = moments.moved(read(tmp_path / "a"), read(tmp_path / "b", up="110.25", **changes))
    assert found == QUIET | expected
    assert encode(decode(Moved, found)) == found


@pytest.mark.parametrize(
    ("chosen", "permitted", "aimed"),
    [("0", "0-3", ""), ("1", "0-3", "7"), ("0", "1", "7"), ("0", "1-2", "7"), ("0", "0-1", ""),
     ("", "0-3", "7"), ("", "0", "")],
)  # fmt: skip
def test_an_interrupt_is_aimed_at_cpus_by_choice_or_as_the_only_permitted_ones(
    tmp_path: Path, chosen: str, permitted: str, aimed: str
) -> None:
    """A device that has not interrupted since its affinity was set still shows the old CPU."""
    irq = "proc/irq/7"
    root = lay(tmp_path, {
        f"{irq}/effective_affinity_list": chosen, f"{irq}/smp_affinity_list": permitted,
    })  # fmt: skip
    assert moments.aimed(root, (1, 2)) == aimed


def test_a_changed_setting_and_a_one_shot_timer_are_reported(tmp_path: Path) -> None:
    before, after = read(tmp_path / "a"), read(tmp_path / "b", up="110.25")
    before["timers"]["run-r7.timer"] = ""
    after["settings"]["ksm"] = "off"
    found = moments.moved(before, after)
    assert found["timers"] == ["run-r7.timer"]
    assert found["changed"] == ["merging of equal pages (KSM) on before, off after"]


def test_messages_of_daemons_in_the_kernels_log_are_left_out(tmp_path: Path) -> None:
    """Systemd writes with level 30 (3 << 3 | 6). `echo` writes with level 12, which is kept."""
    kernel = MESSAGE.format(41, "ready")
    unit = "30,{},19410648598,-;systemd[1]: Started something."
    quiet = lay(tmp_path / "a", {"dev/kmsg": kernel})
    log = "\n".join([kernel, *(unit.format(n) for n in range(42, 90))])
    chatty = lay(tmp_path / "b", {"dev/kmsg": log})
    echoed = lay(tmp_path / "d", {"dev/kmsg": f"{kernel}\n12,42,19410648598,-;of-a-test"})
    hot = lay(tmp_path / "c", {"dev/kmsg": f"{log}\n{MESSAGE.format(90, 'mce: hot')}"})

    def messages(root: Path) -> Any:
        before, after = moments.counters(quiet, (0,)), moments.counters(root, (0,))
        # The output of the shell script contains the same messages.
        command = ["sh", "-c", moments.SCRIPT, "sh", str(root)]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert moments.machine(printed, (0,))["messages"] == after["messages"]
        found = moments.moved(before, after)
        return found["messages"], found["last_message"]

    assert messages(chatty) == (0, None)
    assert messages(hot) == (1, "mce: hot")
    assert messages(echoed) == (1, "of-a-test")


def test_more_new_messages_than_are_kept(tmp_path: Path) -> None:
    found = moments.moved(read(tmp_path / "a"), read(tmp_path / "b", number=141, text="again"))
    assert (found["messages"], found["last_message"]) == (100, "again")


def test_all_files_of_a_large_machine_are_read(tmp_path: Path) -> None:
    """With 512 CPUs and 400 interrupts it is 2.4 MB, and the row of CPUs' timers is at the end."""
    heads = "".join(f"{f'CPU{n}':>11}" for n in range(512))
    zeros = f"{0:>11}" * 510
    rows = [f" {n:>4}:{n:>11}{3:>11}{zeros}  PCI-MSIX 1-edge nvme{n}" for n in range(100, 500)]
    last = f"  LOC:{7:>11}{5:>11}{zeros}  Local timer interrupts"
    root = lay(tmp_path, {"proc/interrupts": "\n".join([f"     {heads}", *rows, last])})
    command = ["sh", "-c", moments.SCRIPT, "sh", str(root)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = moments.machine(printed, (1,))["interrupts"]
    assert found == moments.interrupts(root, (1,))
    assert (len(found), found["LOC"], found["499 nvme499"]) == (401, 5, 3)


def test_a_kernel_that_reports_nothing(tmp_path: Path) -> None:
    nothing = moments.counters(tmp_path, (0,))
    found = moments.moved(nothing, nothing)
    assert {found[key] for key in QUIET if QUIET[key] != []} == {None, "0"}
    assert moments.bench(None, {"cpus_online": "0"}) is None
    masked = moments.counters(lay(tmp_path / "masked", dict.fromkeys(tree(), "")), (0,))
    assert masked == nothing | {"online": "", "timers": {}}


def test_the_script_prints_what_the_readers_need(tmp_path: Path) -> None:
    files = {name: text for name, text in tree().items() if "systemd" not in name}
    live = lay(tmp_path / "live", files)
    command = ["sh", "-c", moments.SCRIPT, "sh", str(live)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert moments.machine(done.stdout, (1,)) == {
        "settings": SETTINGS, **moments.counters(live, (1,)),
    }  # fmt: skip


def test_this_machine() -> None:
    """Read the live files, including the kernel's endless log, and the output of the script."""
    printed, live = moments.taken((0,)), moments.counters(Path("/"), (0,))
    assert live["uptime_s"] >= printed["uptime_s"] > 0
    assert (live["messages"] is None) == (printed["messages"] is None)
    kernel = settings.kernel(Path("/"))
    assert {k: v for k, v in printed["settings"].items() if v} == {
        k: v for k, v in kernel.items() if v
    }
    bench = moments.bench({"bench": printed}, {"bench": printed | live})
    assert bench is not None
    assert encode(decode(Bench, bench)) == bench


@pytest.mark.parametrize("name", ["x86_64-epyc_7451", "20em64t-hybrid", "s390-lpar", "arm-A510"])
def test_recorded_machines(recorded: Callable[[str], Path], name: str) -> None:
    """Recorded machines report few of these values, but none that is wrong."""
    root = recorded(name)
    found = moments.counters(root, (0,))
    assert found["messages"] is None and found["timers"] is None
    assert moments.moved(found, found)["changed"] == []
    for value in settings.kernel(root).values():
        assert value is None or value.strip() == value != ""
