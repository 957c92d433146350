"""Functions of the modules that read placement, with made-up trees and real processes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from virtbed_contract.kernel import cgroups, guests
from virtbed_contract.kernel import processes as kernel_processes
from virtbed_contract.kernel.cpus import format_cpu_list

from .conftest import module

domain = module("machine_kvm", "domain_placement")
processes = module("trial_run", "instance_processes")


def fill(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_vcpu_threads_are_distinguished_from_qemus_others(tmp_path: Path) -> None:
    named = ((7, "qemu-system-x86"), (9, "CPU 1/TCG"), (8, "CPU 0/KVM"), (10, "IO 1"))
    rest = " ".join(["S", *["0"] * 48])
    fill(tmp_path, {f"7/task/{thread}/stat": f"{thread} ({name}) {rest}" for thread, name in named})
    (tmp_path / "7/task/11").mkdir()  # a thread that has just ended
    assert guests.vcpu_threads(7, tmp_path) == {0: 8, 1: 9}


def test_the_emulators_cpus_are_those_of_all_other_threads() -> None:
    me = os.getpid()
    threads = dict(enumerate(int(task.name) for task in Path(f"/proc/{me}/task").iterdir()))
    assert guests.helpers_allowed(me, {}) == format_cpu_list(os.sched_getaffinity(0))
    assert guests.helpers_allowed(me, threads) == ""


def test_bound_memory_nodes_are_read_from_numa_maps(tmp_path: Path) -> None:
    lines = ("7f50 bind:0-1 anon=4 N0=4", "7f60 default file=/x", "7f70 bind=static:1 anon=1")
    fill(tmp_path, {"7/numa_maps": "\n".join(lines)})
    assert kernel_processes.bound_nodes(7, tmp_path) == ["0-1", "1"]
    assert kernel_processes.bound_nodes(8, tmp_path) == []


def test_quotas_without_a_limit_are_left_out() -> None:
    parameters = {"cpu_shares": 1024, "vcpu_quota": 50_000, "emulator_quota": -1, "global_quota": 0}
    assert domain.quotas(parameters | {"iothread_quota": 17_592_186_044_415}) == {
        "vcpu_quota": 50_000
    }


def test_a_quota_of_any_group_around_a_guest_is_found(tmp_path: Path) -> None:
    """`systemctl set-property` can set one on the scope, and libvirt does not report it."""
    scope = "machine.slice/machine-qemu.scope"
    fill(
        tmp_path,
        {
            "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
            "proc/8/cgroup": f"0::/{scope}/libvirt/vcpu0\n",
            "proc/9/cgroup": f"0::/{scope}/libvirt/vcpu1\n",
            **{f"sys/fs/cgroup/{scope}/libvirt/vcpu{n}/cpu.max": "max 100000\n" for n in (0, 1)},
            f"sys/fs/cgroup/{scope}/cpu.max": "max 100000\n",
        },
    )
    assert domain.quota_cpus([8, 9], tmp_path) is None
    fill(tmp_path, {f"sys/fs/cgroup/{scope}/libvirt/vcpu1/cpu.max": "90000 100000\n"})
    assert domain.quota_cpus([8, 9], tmp_path) == 0.9
    fill(tmp_path, {f"sys/fs/cgroup/{scope}/cpu.max": "50000 100000\n"})
    assert domain.quota_cpus([8, 9], tmp_path) == 0.5


def test_a_machines_properties_are_read_from_its_definition() -> None:
    xml = """
    <domain type="qemu"><memory unit="KiB">1048576</memory><cpu mode="maximum"/>
    <os><kernel>/images/0/vmlinuz</kernel></os>
    <devices><disk><backingStore><source file="/images/0/disk.raw"/></backingStore></disk></devices>
    </domain>"""
    assert domain.described(xml) == {
        "accelerator": "tcg",
        "cpu_mode": "maximum",
        "memory_mib": 1024,
        "kernel": "/images/0/vmlinuz",
        "backing_file": "/images/0/disk.raw",
    }


V1 = {
    "proc/self/mountinfo": "\n".join(
        f"3{n} 31 0:2{n} / /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}"
        for n, name in enumerate(("cpu", "cpuset", "memory", "pids"))
    ),
    "proc/7/cgroup": "6:pids:/docker/x\n5:cpuset:/docker/x\n4:memory:/docker/x\n2:cpu:/docker/x\n"
    "0::/\n",
    "proc/7/status": "Name:\tpython3\nMems_allowed_list:\t0\n",
    "sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us": "150000\n",
    "sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/cpu/docker/x/cpu.stat": "nr_periods 9\nnr_throttled 4\nthrottled_time 5\n",
    "sys/fs/cgroup/cpuset/docker/x/cpuset.cpus": "0-1\n",
    "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": str(4096 * 2**20),
    "sys/fs/cgroup/memory/docker/x/memory.memsw.limit_in_bytes": str(4096 * 2**20),
    "sys/fs/cgroup/pids/docker/x/pids.max": "16384\n",
}
V2 = {
    "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
    "proc/7/cgroup": "0::/docker/x\n",
    "proc/7/status": V1["proc/7/status"],
    "sys/fs/cgroup/docker/x/cpu.max": "150000 100000\n",
    "sys/fs/cgroup/docker/x/cpu.stat": "nr_periods 9\nnr_throttled 4\nthrottled_usec 5\n",
    "sys/fs/cgroup/docker/x/cpuset.cpus.effective": "0-1\n",
    "sys/fs/cgroup/docker/x/memory.max": str(4096 * 2**20),
    "sys/fs/cgroup/docker/x/memory.swap.max": "0\n",
    "sys/fs/cgroup/docker/x/pids.max": "16384\n",
}


@pytest.mark.parametrize("files", [V1, V2], ids=["v1", "v2"])
def test_limits_are_read_in_both_control_group_versions(
    tmp_path: Path, files: dict[str, str]
) -> None:
    fill(tmp_path, files)
    assert cgroups.limits(tmp_path, 7) == {
        "cpuset": "0-1",
        "quota_cpus": 1.5,
        "memory_mib": 4096,
        "swap_limit": "0 MiB",
        "pids_max": 16384,
        "quota_times": "period 100000 us, burst 0 us",
        "throttled_periods": 4,
    }


@pytest.mark.parametrize(
    ("files", "above"),
    [
        (
            V1,
            {
                "sys/fs/cgroup/cpu/docker/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu/docker/cpu.cfs_period_us": "100000\n",
            },
        ),
        (V2, {"sys/fs/cgroup/docker/cpu.max": "50000 100000\n"}),
    ],
    ids=["v1", "v2"],
)
def test_a_tighter_quota_of_a_parent_group_is_the_quota(
    tmp_path: Path, files: dict[str, str], above: dict[str, str]
) -> None:
    """Docker's daemon can put containers in a slice with a quota, which is not visible inside."""
    fill(tmp_path, files | above)
    assert cgroups.limits(tmp_path, 7)["quota_cpus"] == 0.5


@pytest.mark.parametrize(
    ("files", "unlimited"),
    [
        (V1, {"sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us": "-1\n"}),
        (V2, {"sys/fs/cgroup/docker/x/cpu.max": "max 100000\n"}),
    ],
    ids=["v1", "v2"],
)
def test_no_quota_is_none(tmp_path: Path, files: dict[str, str], unlimited: dict[str, str]) -> None:
    fill(tmp_path, files | unlimited)
    assert cgroups.limits(tmp_path, 7)["quota_cpus"] is None


def test_only_processes_with_the_instances_mark_are_found() -> None:
    marked = subprocess.Popen(["sleep", "600"], env=os.environ | {"VIRTBED_INSTANCE": "unit-r01"})
    other = subprocess.Popen(["sleep", "600"], env=os.environ | {"VIRTBED_INSTANCE": "unit-r012"})
    try:
        assert processes.marked("^unit-r01$") == [marked.pid]
    finally:
        for process in (marked, other):
            process.kill()
            process.wait()


def test_a_mount_of_an_image_is_found() -> None:
    table = "proc /proc proc rw 0 0\nnone /var/lib/virtbed/images/ab/rootfs/proc proc rw 0 0\n"
    assert processes.mounted(table) == ["/var/lib/virtbed/images/ab/rootfs/proc"]
