"""Confounder readings, from recorded kernel files that change between the two readings."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from virtbed_workloads.confounders import Watch, read_mhz

TICK_NS = 1e9 / os.sysconf("SC_CLK_TCK")
V1 = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
V2 = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"


class Machine:
    """A tree of /proc and /sys with two CPUs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ticks = {0: [0] * 10, 1: [0] * 10}
        self.write("proc/loadavg", "0.50 0.40 0.30 1/100 1234")
        self.write("proc/self/mountinfo", V1)
        self.write("proc/self/cgroup", "1:cpu:/trial")
        self.write("proc/cpuinfo", "processor : 0\ncpu MHz : 1000\nprocessor : 1\ncpu MHz : 3000")
        self.throttle(0, 0)
        self.press(0)
        self.spend(0, "idle", 0)
        self.run_on(7, 1)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")

    def spend(self, cpu: int, how: str, ticks: int) -> None:
        self.ticks[cpu][{"user": 0, "idle": 3, "softirq": 6, "steal": 7}[how]] += ticks
        lines = [f"cpu{n} {' '.join(map(str, values))}" for n, values in self.ticks.items()]
        self.write("proc/stat", "\n".join(["cpu 9 9 9 9 9 9 9 9 9 9", *lines, "ctxt 5"]))

    def throttle(self, throttled: int, ns: int) -> None:
        self.write(
            "sys/fs/cgroup/cpu/trial/cpu.stat",
            f"nr_periods {throttled * 2}\nnr_throttled {throttled}\nthrottled_time {ns}",
        )

    def press(self, us: int) -> None:
        for name in ("cpu", "memory"):
            self.write(f"proc/pressure/{name}", f"some avg10=0.00 avg60=0.00 total={us}\nfull x=1")

    def run_on(self, thread: int, cpu: int) -> None:
        fields = ["S", *["0"] * 35, str(cpu), "0"]
        self.write(f"proc/self/task/{thread}/stat", f"{thread} (a (b) c) {' '.join(fields)}")

    def move(self, thread: int, times: int) -> None:
        text = f"x ({thread}, #threads: 1)\n---\nse.nr_migrations   :   {times}\nnr_switches : 9"
        self.write(f"proc/self/task/{thread}/sched", text)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def window(machine: Machine, disturb: Any, cpus: tuple[int, ...] = (1,)) -> dict[str, Any]:
    """Return the readings of a window in which ``disturb`` is called."""
    watch = Watch(machine.root, cpus)
    time.sleep(0.05)
    disturb()
    return watch.read_off()


def test_a_quiet_machine_has_zero_shares(machine: Machine) -> None:
    found = window(machine, lambda: machine.spend(1, "idle", 5))
    assert (found["steal_share"], found["others_share"]) == (0.0, 0.0)
    assert found["throttling"] == {"periods": 0, "throttled": 0, "throttled_ns": 0}
    assert found["pressure"] == {"cpu": 0.0, "memory": 0.0, "io": None}
    assert (found["ran_on"], found["cpus"], found["looks"]) == ([1], "1", 1)


def test_steal_counts_the_watched_cpus_only(machine: Machine) -> None:
    def steal() -> None:
        machine.spend(0, "steal", 50)
        machine.spend(1, "steal", 1)
        machine.spend(1, "idle", 9)

    assert window(machine, steal)["steal_share"] == pytest.approx(0.1)


@pytest.mark.parametrize("how", ["user", "softirq"])
def test_the_share_of_others_is_busy_time_minus_own_time(machine: Machine, how: str) -> None:
    ticks = 20

    found = window(machine, lambda: machine.spend(1, how, ticks))
    expected = (ticks * TICK_NS - found["own_cpu_ns"]) / found["window_ns"]
    assert found["others_share"] == pytest.approx(expected, rel=1e-3)
    assert window(machine, lambda: machine.spend(0, how, ticks))["others_share"] == 0.0


def test_throttling_is_summed_from_this_cgroup_to_the_root(machine: Machine) -> None:
    machine.throttle(3, 1_000)
    found = window(machine, lambda: machine.throttle(5, 9_000))
    assert found["throttling"] == {"periods": 4, "throttled": 2, "throttled_ns": 8_000}


def test_throttling_under_v2(machine: Machine) -> None:
    machine.write("proc/self/mountinfo", V2)
    machine.write("proc/self/cgroup", "0::/trial")
    stat = "usage_usec 1\nnr_periods {0}\nnr_throttled {0}\nthrottled_usec {0}"
    machine.write("sys/fs/cgroup/trial/cpu.stat", stat.format(0))
    machine.write("sys/fs/cgroup/cpu.stat", "usage_usec 1")
    found = window(machine, lambda: machine.write("sys/fs/cgroup/trial/cpu.stat", stat.format(7)))
    assert found["throttling"] == {"periods": 7, "throttled": 7, "throttled_ns": 7_000}


def test_pressure_is_a_share_of_the_window(machine: Machine) -> None:
    found = window(machine, lambda: machine.press(20_000))
    assert found["pressure"]["memory"] == pytest.approx(2e7 / found["window_ns"], rel=1e-3)


def test_ran_on_lists_every_cpu_that_a_thread_was_seen_on(machine: Machine) -> None:
    watch = Watch(machine.root, (0, 1))
    watch.look()
    machine.run_on(8, 0)
    watch.look()  # too soon after the first
    assert watch.read_off()["ran_on"] == [0, 1]
    assert watch.read_off()["looks"] == 3


def test_frequency_of_the_watched_cpus(machine: Machine) -> None:
    assert read_mhz(machine.root, (1,)) == 3000.0
    assert read_mhz(machine.root, (0, 1)) == 2000.0
    machine.write("sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq", "2500000")
    assert read_mhz(machine.root, (1,)) == 2500.0
    machine.write("proc/cpuinfo", "processor : 0")
    assert read_mhz(machine.root, (0,)) is None


def test_this_machine_can_be_read() -> None:
    watch = Watch()
    sum(range(2_000_000))
    found = watch.read_off()
    assert 0 < found["own_cpu_ns"] <= found["window_ns"] * 1.5
    assert found["ran_on"] and set(found["ran_on"]) <= os.sched_getaffinity(0)


def test_load_on_a_sibling_thread_is_separate_from_the_share_of_others(machine: Machine) -> None:
    machine.write("sys/devices/system/cpu/cpu1/topology/thread_siblings_list", "0-1")
    found = window(machine, lambda: machine.spend(0, "user", 3))
    assert found["siblings_share"] > 0.3
    assert found["others_share"] == 0.0


def test_a_process_on_every_thread_of_its_core_has_no_sibling(machine: Machine) -> None:
    machine.write("sys/devices/system/cpu/cpu1/topology/thread_siblings_list", "0,1")
    assert window(machine, lambda: None, cpus=(0, 1))["siblings_share"] is None


def test_migrations_count_the_window_and_threads_that_started_in_it(
    machine: Machine,
) -> None:
    machine.move(7, 40)

    def disturb() -> None:
        machine.move(7, 42)
        machine.move(8, 3)

    assert window(machine, disturb)["migrations"] == 5


def test_migrations_are_none_on_a_kernel_that_does_not_count_them(machine: Machine) -> None:
    assert window(machine, lambda: None)["migrations"] is None


def test_the_load_before_the_trial_is_passed_in(machine: Machine) -> None:
    watch = Watch(machine.root, (1,), load_before=0.1)
    assert watch.read_off()["load_1min"] == {"before": 0.1, "after": 0.5}


def test_readings_are_none_on_a_kernel_that_counts_no_cpu_time(tmp_path: Path) -> None:
    """gVisor's /proc/stat is all zeros; a share of 0 would look like a measurement."""
    (tmp_path / "proc/self/task").mkdir(parents=True)
    (tmp_path / "proc/stat").write_text("cpu 0 0 0 0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\n")
    (tmp_path / "proc/loadavg").write_text("0.00 0.00 0.00 0/0 0\n")
    found = Watch(tmp_path, (0,)).read_off()
    assert found["steal_share"] is None and found["others_share"] is None
    assert found["ran_on"] == [] and found["looks"] == 0
    assert found["mhz"] == {"before": None, "after": None}
    assert found["load_1min"]["after"] is None


def test_moved_lists_interrupts_and_changed_settings(machine: Machine) -> None:
    def interrupt(times: int) -> None:
        machine.write("proc/interrupts", f"   CPU0 CPU1\n 36: 9{times} {times} edge nvme0q1")

    interrupt(5)
    machine.write("sys/kernel/mm/ksm/run", "1")
    watch = Watch(machine.root, (1,), settings_before={"ksm": "off", "swap": "none"})
    interrupt(8)
    moved = watch.read_off()["moved"]
    assert (moved["device_interrupts"], moved["busiest"], moved["cpus"]) == (3, "36 nvme0q1", "1")
    assert moved["changed"] == ["merging of equal pages (KSM) off before, on after"]
