"""The environment that a process reads about itself, here and on a kernel with few files."""

import os
from pathlib import Path

import pytest

from virtbed_contract.kernel.cpus import format_cpu_list
from virtbed_workloads.environment import read_environment, read_memory_kib, usable_cores


def test_the_environment_of_this_process_has_its_affinity_and_threads() -> None:
    environment = read_environment(3, 4)
    assert environment["affinity"] == sorted(os.sched_getaffinity(0))
    assert environment["cpus_allowed_list"] == format_cpu_list(environment["affinity"])
    assert environment["threads"]["process_threads"] >= 1
    assert {"cpu_model", "turbo", "mitigations", "clocksource"} <= environment.keys()
    assert (environment["threads"]["intra_op"], environment["threads"]["inter_op"]) == (3, 4)


@pytest.mark.parametrize(("quota", "cores"), [("50000", 1), ("100000", 1), ("max", None)])
def test_a_quota_is_rounded_down_to_whole_cores_and_at_least_one(
    tmp_path: Path, quota: str, cores: int | None
) -> None:
    files = {
        "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
        "proc/self/cgroup": "0::/",
        "sys/fs/cgroup/cpu.max": f"{quota} 100000",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == (cores or len(os.sched_getaffinity(0)))


def test_peak_memory_comes_from_getrusage_where_the_kernel_has_no_vmhwm(tmp_path: Path) -> None:
    assert read_memory_kib()["VmHWM"]
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/status").write_text("Name:\tpython3\nVmRSS:\t  1234 kB\n")
    found = read_memory_kib(tmp_path)
    assert found["VmRSS"] == 1234
    assert found["VmHWM"] > 1234  # of this process, from getrusage


def test_the_quota_from_the_environment_counts_only_without_control_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sandbox's kernel shows no control group; then VIRTBED_QUOTA_CPUS is the quota."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text("")
    (tmp_path / "proc/self/cgroup").write_text("")
    monkeypatch.setenv("VIRTBED_QUOTA_CPUS", "1.0")
    assert usable_cores(tmp_path) == 1
    (tmp_path / "proc/self/mountinfo").write_text(
        "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"
    )
    (tmp_path / "proc/self/cgroup").write_text("0::/")
    assert usable_cores(tmp_path) == len(os.sched_getaffinity(0))
