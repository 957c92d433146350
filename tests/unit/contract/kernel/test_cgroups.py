"""Tests of control groups under version 1, version 2 and both, on hosts and in containers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from virtbed_contract.kernel import cgroups

from .conftest import lay

V1_MOUNTS = """\
32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 {root} /sys/fs/cgroup/cpuset rw,relatime shared:9 - cgroup cgroup rw,cpuset
35 31 0:32 {root} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 {root} /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
V1_GROUPS = "5:memory:/docker/abc\n3:cpuset:/docker/abc\n1:cpu,cpuacct:/docker/abc\n0::/"
V2_MOUNTS = "30 23 0:26 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1_CPU, V1_SET, V1_MEMORY = (
    f"sys/fs/cgroup/{name}" for name in ("cpu,cpuacct", "cpuset", "memory")
)
V2 = "sys/fs/cgroup"
SCOPE = f"{V2}/system.slice/docker-abc.scope"


def host(root: Path, mounts: str, groups: str, files: dict[str, str], pid: Any = "self") -> Path:
    recorded = {"proc/self/mountinfo": mounts, f"proc/{pid}/cgroup": groups}
    return lay(root, recorded | files)


def limits(root: Path, pid: Any = "self") -> tuple[int | None, float | None, str | None]:
    return cgroups.version(root), cgroups.quota_cpus(root, pid), cgroups.cpuset(root, pid)


def quota_v1(quota: int, folder: str) -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}", f"{folder}/cpu.cfs_period_us": "100000"}


@pytest.mark.parametrize("pid", ["self", 7])
def test_v1_on_the_host(tmp_path: Path, pid: Any) -> None:
    files = {
        **quota_v1(-1, V1_CPU),
        **quota_v1(-1, f"{V1_CPU}/docker"),
        **quota_v1(150000, f"{V1_CPU}/docker/abc"),
        f"{V1_CPU}/docker/abc/cpu.stat": "nr_periods 9\nnr_throttled 4\nthrottled_time 5",
        f"{V1_SET}/cpuset.cpus": "0-3",
        f"{V1_SET}/docker/abc/cpuset.cpus": "1",
        f"{V1_MEMORY}/memory.limit_in_bytes": "9223372036854771712",
        f"{V1_MEMORY}/docker/abc/memory.limit_in_bytes": str(2**32),
    }
    root = host(tmp_path, V1_MOUNTS.format(root="/"), V1_GROUPS, files, pid)
    assert limits(root, pid) == (1, 1.5, "1")
    assert cgroups.memory_bytes(root, pid) == 2**32
    counted = {"periods": 9, "throttled": 4, "throttled_ns": 5}
    assert cgroups.throttling(root, pid) == counted


@pytest.mark.parametrize("mount_root", ["/docker/abc", "/"])
def test_v1_in_a_container(tmp_path: Path, mount_root: str) -> None:
    """The path in /proc does not exist below the mount point, which is the process's own cgroup."""
    files = {**quota_v1(100000, V1_CPU), f"{V1_SET}/cpuset.cpus": "0-1"}
    root = host(tmp_path, V1_MOUNTS.format(root=mount_root), V1_GROUPS, files)
    assert limits(root) == (1, 1.0, "0-1")


def test_v1_the_quota_of_an_ancestor_applies_too(tmp_path: Path) -> None:
    files = {
        **quota_v1(50000, f"{V1_CPU}/docker"),
        **quota_v1(200000, f"{V1_CPU}/docker/abc"),
    }
    root = host(tmp_path, V1_MOUNTS.format(root="/"), V1_GROUPS, files)
    assert cgroups.quota_cpus(root) == 0.5


@pytest.mark.parametrize("pid", ["self", 7])
def test_v2_on_the_host(tmp_path: Path, pid: Any) -> None:
    files = {
        f"{V2}/cpuset.cpus.effective": "0-7",
        f"{V2}/cpu.stat": "usage_usec 1",
        f"{V2}/system.slice/memory.max": str(2**31),
        f"{SCOPE}/cpu.max": "200000 100000",
        f"{SCOPE}/cpuset.cpus.effective": "2-3",
        f"{SCOPE}/cpu.stat": "usage_usec 1\nnr_periods 9\nnr_throttled 4\nthrottled_usec 5",
        f"{SCOPE}/memory.max": "max",
    }
    groups = "0::/system.slice/docker-abc.scope"
    root = host(tmp_path, V2_MOUNTS.format(root="/"), groups, files, pid)
    assert limits(root, pid) == (2, 2.0, "2-3")
    assert cgroups.memory_bytes(root, pid) == 2**31
    counted = {"periods": 9, "throttled": 4, "throttled_ns": 5000}
    assert cgroups.throttling(root, pid) == counted


@pytest.mark.parametrize("path", ["/", "/../..", "/system.slice/docker-abc.scope"])
def test_v2_in_a_container(tmp_path: Path, path: str) -> None:
    files = {f"{V2}/cpu.max": "max 100000", f"{V2}/cpuset.cpus.effective": "0"}
    root = host(tmp_path, V2_MOUNTS.format(root="/"), f"0::{path}", files)
    assert limits(root) == (2, None, "0")


def test_a_mount_of_a_subtree_is_distinguished_from_one_with_the_same_prefix(
    tmp_path: Path,
) -> None:
    files = {f"{V2}/cpu.max": "100000 100000", f"{V2}/b/cpu.max": "50000 100000"}
    root = host(tmp_path, V2_MOUNTS.format(root="/a"), "0::/a/b", files)
    assert cgroups.quota_cpus(root) == 0.5
    lay(root, {"proc/self/cgroup": "0::/ab"})
    assert cgroups.quota_cpus(root) == 1.0


def test_a_hybrid_host_limits_cpu_time_by_version_1(tmp_path: Path) -> None:
    files = {
        "proc/cgroups": "#subsys_name\thierarchy\ncpu\t1\t1\t1\ncpuset\t2\t1\t1",
        f"{V2}/unified/cgroup.controllers": "io",
        f"{V2}/unified/cpu.max": "1 100000",
    }
    root = host(tmp_path, V1_MOUNTS.format(root="/"), V1_GROUPS, files)
    assert limits(root) == (1, None, None)
    assert cgroups.controllers(root) == ["cpu", "cpuset"]


def test_a_hybrid_host_whose_cpu_controller_is_in_version_2(tmp_path: Path) -> None:
    mounts = "\n".join(line for line in V1_MOUNTS.splitlines() if "cpu,cpuacct" not in line)
    files = {
        f"{V2}/unified/cgroup.controllers": "cpu io",
        f"{V2}/unified/jobs/cpu.max": "50000 100000",
        f"{V1_SET}/docker/abc/cpuset.cpus": "1",
    }
    groups = "3:cpuset:/docker/abc\n0::/jobs"
    root = host(tmp_path, mounts.format(root="/"), groups, files)
    assert limits(root) == (2, 0.5, "1")
    assert cgroups.controllers(root) == ["cpu", "io"]


def test_no_cgroup_mounted(tmp_path: Path) -> None:
    root = host(tmp_path, "22 1 254:0 / / rw - ext4 /dev/vda rw", "0::/", {})
    assert limits(root) == (None, None, None)
    assert cgroups.memory_bytes(root) is cgroups.throttling(root) is None
    assert cgroups.controllers(root) == []


def test_a_tree_without_proc(tmp_path: Path) -> None:
    assert limits(tmp_path) == (None, None, None)


def test_a_process_that_has_ended(tmp_path: Path) -> None:
    files = {f"{V2}/cpu.max": "100000 100000"}
    root = host(tmp_path, V2_MOUNTS.format(root="/"), "0::/", files)
    assert limits(root, 7) == (2, 1.0, None)


@pytest.mark.parametrize(
    ("memory", "both", "left"),
    [
        (2**30, 2**30, "0 MiB"),  # as the testbed sets it
        (2**30, 2**31, "1024 MiB"),  # Docker's default
        (2**30, 2**63 - 4096, "max"),
        (2**63 - 4096, 2**63 - 4096, "max"),
        (2**30, None, None),  # a kernel that does not count swap
    ],
)
def test_v1_swap_limit(tmp_path: Path, memory: int, both: int | None, left: str | None) -> None:
    group = f"{V1_MEMORY}/docker/abc"
    files = {f"{group}/memory.limit_in_bytes": str(memory)}
    if both is not None:
        files[f"{group}/memory.memsw.limit_in_bytes"] = str(both)
    root = host(tmp_path, V1_MOUNTS.format(root="/"), V1_GROUPS, files)
    assert cgroups.swap_limit(root) == cgroups.limits(root)["swap_limit"] == left


@pytest.mark.parametrize(
    ("own", "above", "left"),
    [("0", "max", "0 MiB"), ("max", str(2**29), "512 MiB"), ("max", "max", "max"), ("", "", None)],
)
def test_v2_swap_limit(tmp_path: Path, own: str, above: str, left: str | None) -> None:
    slice_ = SCOPE.rpartition("/")[0]
    files = {f"{SCOPE}/memory.swap.max": own, f"{slice_}/memory.swap.max": above}
    files = {name: text for name, text in files.items() if text} | {f"{SCOPE}/cgroup.procs": "7"}
    groups = "0::/system.slice/docker-abc.scope"
    root = host(tmp_path, V2_MOUNTS.format(root="/"), groups, files)
    assert cgroups.swap_limit(root) == left


def test_period_and_burst_of_the_tightest_quota(tmp_path: Path) -> None:
    files = {
        f"{SCOPE}/cpu.max": "50000 50000", f"{SCOPE}/cpu.max.burst": "20000",
        f"{SCOPE.rpartition('/')[0]}/cpu.max": "400000 100000",
    }  # fmt: skip
    groups = "0::/system.slice/docker-abc.scope"
    root = host(tmp_path / "2", V2_MOUNTS.format(root="/"), groups, files)
    assert cgroups.quota_times(root) == cgroups.times_in_words(50000, 20000)
    first = quota_v1(150000, f"{V1_CPU}/docker/abc")
    root = host(tmp_path / "1", V1_MOUNTS.format(root="/"), V1_GROUPS, first)
    assert cgroups.quota_times(root) == "period 100000 us, burst 0 us"
    none = quota_v1(-1, f"{V1_CPU}/docker/abc")
    assert cgroups.quota_times(host(tmp_path, V1_MOUNTS.format(root="/"), V1_GROUPS, none)) is None
