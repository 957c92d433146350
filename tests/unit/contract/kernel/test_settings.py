"""Tests of the reader of settings, on synthetic trees: a setting that is not reported is None."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from virtbed_contract import likeness
from virtbed_contract.kernel import settings

from .conftest import lay

CPU = "sys/devices/system/cpu"
TREE = {
    "proc/sys/kernel/osrelease": "6.1.0-28-amd64",
    "proc/sys/kernel/version": "#1 SMP PREEMPT_DYNAMIC Debian 6.1.119-1 (2024-11-22)",
    "proc/sys/kernel/numa_balancing": "1",
    "proc/cmdline": "root=/dev/vda1 ro  mitigations=off",
    "proc/cpuinfo": "processor\t: 0\nmicrocode\t: 0xd0003d1\n\nprocessor\t: 1\nmicrocode\t: 0x1",
    "proc/swaps": "Filename\tType\tSize\tUsed\tPriority\n/dev/dm-1  partition 999424 0 -2",
    "boot/config-6.1.0-28-amd64": "CONFIG_HZ=250\n# CONFIG_HZ_1000 is not set\n"
    "CONFIG_EXT4_FS=y\nCONFIG_PREEMPT_VOLUNTARY=y",
    "boot/config-5.10.0": "CONFIG_HZ=1000",
    "sys/kernel/mm/ksm/run": "1",
    "sys/kernel/debug/sched/preempt": "none (voluntary) full",
    "sys/kernel/sched_ext/state": "enabled",
    "sys/kernel/sched_ext/root/ops": "lavd",
    "sys/module/kvm/parameters/halt_poll_ns": "200000",
    f"{CPU}/cpuidle/current_driver": "intel_idle",
    f"{CPU}/cpuidle/current_governor": "menu",
    f"{CPU}/cpu0/cpuidle/state0/name": "POLL",
    f"{CPU}/cpu0/cpuidle/state0/disable": "0",
    f"{CPU}/cpu0/cpuidle/state1/name": "C6",
    f"{CPU}/cpu0/cpuidle/state1/disable": "1",
    f"{CPU}/cpu1/cpuidle/state0/name": "POLL",
    f"{CPU}/cpu1/cpuidle/state0/disable": "0",
    f"{CPU}/cpu1/cpuidle/state1/name": "C6",
    f"{CPU}/cpu1/cpuidle/state1/disable": "0",
}
SETTINGS = {
    "build": "#1 SMP PREEMPT_DYNAMIC Debian 6.1.119-1 (2024-11-22)",
    "config": "HZ=250; PREEMPT_VOLUNTARY=y",
    "preemption": "voluntary",
    "cmdline": "root=/dev/vda1; ro; mitigations=off",
    "scheduler": "numa_balancing 1; sched_ext lavd",
    "microcode": "0xd0003d1",
    "idle": "driver intel_idle; governor menu; POLL on; C6 mixed",
    "halt_poll": "200000",
    "guest_halt_poll": None,
    "ksm": "on",
    "swap": "976 MiB",
}


def test_every_setting_is_read(tmp_path: Path) -> None:
    assert settings.kernel(lay(tmp_path, TREE)) == SETTINGS


def test_the_settings_read_are_those_of_the_registry() -> None:
    assert list(SETTINGS) == [one.name for one in likeness.held("kernel")]
    found = settings.process(Path("/"), {})
    assert found.keys() == {one.name for one in likeness.held("process")}


@pytest.mark.parametrize(
    ("nice", "policy", "words"),
    [("0", "0", "other, nice 0"), ("19", "3", "batch, nice 19"), ("0", "8", None)],
)
def test_the_scheduling_policy_of_the_process(
    tmp_path: Path, nice: str, policy: str, words: str | None
) -> None:
    """An engine's daemon starts its process with its own, whatever bare metal inherits."""
    rest = ["S", *["0"] * 15, nice, *["0"] * 21, policy, "0"]
    root = lay(tmp_path, {"proc/self/stat": f"7 (a (b) c) {' '.join(rest)}"})
    assert settings.process(root, {})["scheduling"] == words


def test_an_empty_tree_and_empty_files_give_no_settings(tmp_path: Path) -> None:
    """Engines hide files by mounting empty ones over them, so an empty file gives None."""
    assert set(settings.kernel(tmp_path).values()) == {None}
    root = lay(tmp_path / "masked", dict.fromkeys(TREE, ""))
    assert set(settings.kernel(root).values()) == {None}
    assert settings.huge_share(root) is None


def test_a_configuration_in_proc_is_preferred(tmp_path: Path) -> None:
    root = lay(tmp_path, TREE)
    (root / "proc/config.gz").write_bytes(gzip.compress(b"CONFIG_HZ=100\n"))
    assert settings.config(root) == "HZ=100"


def test_offline_cpus_do_not_change_idle_states(tmp_path: Path) -> None:
    """Bare metal takes CPUs offline to have a size; the reading must not depend on that."""
    alike = {name: "0" if name.endswith("disable") else text for name, text in TREE.items()}
    both = settings.idle(lay(tmp_path / "both", alike))
    one = {name: text for name, text in alike.items() if "cpu1/" not in name}
    assert settings.idle(lay(tmp_path / "one", one)) == both


@pytest.mark.parametrize(
    ("environment", "files", "found"),
    [
        ({"HOME": "/tmp", "LANG": "C.UTF-8"}, {}, likeness.DEFAULT_ALLOCATOR),
        ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}, {},
         "GLIBC_TUNABLES=glibc.malloc.hugetlb=1"),
        ({"MALLOC_ARENA_MAX": "1", "LD_PRELOAD": "x.so"}, {},
         "LD_PRELOAD=x.so; MALLOC_ARENA_MAX=1"),
        ({}, {"etc/ld.so.preload": "/usr/lib/y.so"}, "ld.so.preload /usr/lib/y.so"),
        ({}, {"proc/self/maps": "7f00-7f01 r-xp 0 fe:00 1   /usr/lib/libjemalloc.so.2"},
         "libjemalloc.so.2"),
    ],
)  # fmt: skip
def test_changes_of_the_allocator_are_reported(
    tmp_path: Path, environment: dict[str, str], files: dict[str, str], found: str
) -> None:
    assert settings.allocator(lay(tmp_path, files), environment) == found


@pytest.mark.parametrize(
    ("enabled", "environment", "policy"),
    [
        ("1", {}, "kernel"),
        ("1", {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}, "malloc"),
        ("1", {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=2"}, "kernel"),
        ("0", {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}, "never"),
        (None, {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}, None),
    ],
)
def test_the_huge_pages_setting_of_a_process(
    tmp_path: Path, enabled: str | None, environment: dict[str, str], policy: str | None
) -> None:
    lay(
        tmp_path,
        {"proc/self/status": f"Name:\tx\nTHP_enabled:\t{enabled}\n" if enabled else "Name:\tx"},
    )
    assert settings.page_policy(tmp_path, environment) == policy
    # Any other tunable changes the allocator, and no plan requests that.
    changed = settings.allocator(tmp_path, environment) != settings.DEFAULT_ALLOCATOR
    assert changed == ("hugetlb=2" in str(environment) or policy is None)


def test_the_share_of_huge_pages(tmp_path: Path) -> None:
    rollup = "5-7 ---p 0 0 0 [rollup]\nAnonymous:  4096 kB\nAnonHugePages:  1024 kB"
    assert settings.huge_share(lay(tmp_path, {"proc/self/smaps_rollup": rollup})) == 0.25


def test_without_swap_its_limit_is_not_read(tmp_path: Path) -> None:
    root = lay(tmp_path, {"proc/swaps": "Filename\tType\tSize\tUsed\tPriority"})
    assert settings.process(root, {})["swap_limit"] == "none"


def test_reading_the_clock_takes_less_than_a_thousandth_of_a_request() -> None:
    assert 0 < settings.clock_ns(100) < 1e5
    assert settings.libc() == os.confstr("CS_GNU_LIBC_VERSION")


def test_settings_that_differ_between_two_readings_are_listed() -> None:
    now = SETTINGS | {"ksm": "off", "cmdline": "root=/dev/vda1; ro; quiet", "swap": None}
    assert likeness.changed(SETTINGS, now) == [
        "kernel's command line mitigations=off before, quiet after",
        "merging of equal pages (KSM) on before, off after",
    ]
