"""Parse recorded /proc and cgroup files, under v1, v2, hybrid and a container's namespaces."""

from pathlib import Path

import pytest

from virtbed_workloads.environment import (
    kernel_list,
    read_cgroup,
    read_environment,
    read_isa,
    read_memory_policy,
    read_status,
)

V1_MOUNTS = """\
32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 {root} /sys/fs/cgroup/cpuset rw,relatime shared:9 - cgroup cgroup rw,cpuset
41 31 0:38 {root} /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
V1_GROUPS = "3:cpuset:/docker/abc\n1:cpu,cpuacct:/docker/abc\n0::/\n"
V2_MOUNTS = "30 23 0:26 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1_CPU, V1_SET, V2 = "sys/fs/cgroup/cpu,cpuacct", "sys/fs/cgroup/cpuset", "sys/fs/cgroup"


def lay(root: Path, mounts: str, groups: str, files: dict[str, str]) -> Path:
    recorded = {"proc/self/mountinfo": mounts, "proc/self/cgroup": groups, **files}
    for name, text in recorded.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def quota_v1(quota: int, period: int = 100000) -> dict[str, str]:
    return {"cpu.cfs_quota_us": str(quota), "cpu.cfs_period_us": str(period)}


def below(folder: str, files: dict[str, str]) -> dict[str, str]:
    return {f"{folder}/{name}": text for name, text in files.items()}


def test_v1_on_the_host(tmp_path: Path) -> None:
    files = {
        **below(V1_CPU, quota_v1(-1)),
        **below(f"{V1_CPU}/docker", quota_v1(-1)),
        **below(f"{V1_CPU}/docker/abc", quota_v1(150000)),
        f"{V1_SET}/cpuset.cpus": "0-3",
        f"{V1_SET}/docker/abc/cpuset.cpus": "1",
    }
    root = lay(tmp_path, V1_MOUNTS.format(root="/"), V1_GROUPS, files)
    assert read_cgroup(root) == {"version": 1, "quota_cpus": 1.5, "cpuset": "1"}


@pytest.mark.parametrize("mount_root", ["/docker/abc", "/"])
def test_v1_in_a_container(tmp_path: Path, mount_root: str) -> None:
    """The recorded path does not exist below the mount, whose root is this process's cgroup."""
    files = {**below(V1_CPU, quota_v1(100000)), f"{V1_SET}/cpuset.cpus": "0-1"}
    root = lay(tmp_path, V1_MOUNTS.format(root=mount_root), V1_GROUPS, files)
    assert read_cgroup(root) == {"version": 1, "quota_cpus": 1.0, "cpuset": "0-1"}


def test_v1_the_ancestors_quota_binds_too(tmp_path: Path) -> None:
    files = {
        **below(f"{V1_CPU}/docker", quota_v1(50000)),
        **below(f"{V1_CPU}/docker/abc", quota_v1(200000)),
    }
    root = lay(tmp_path, V1_MOUNTS.format(root="/"), V1_GROUPS, files)
    assert read_cgroup(root)["quota_cpus"] == 0.5


def test_v2_on_the_host(tmp_path: Path) -> None:
    group = f"{V2}/system.slice/docker-abc.scope"
    files = {
        f"{V2}/cpuset.cpus.effective": "0-7",
        f"{group}/cpu.max": "200000 100000",
        f"{group}/cpuset.cpus.effective": "2-3",
    }
    groups = "0::/system.slice/docker-abc.scope\n"
    root = lay(tmp_path, V2_MOUNTS.format(root="/"), groups, files)
    assert read_cgroup(root) == {"version": 2, "quota_cpus": 2.0, "cpuset": "2-3"}


@pytest.mark.parametrize("path", ["/", "/../..", "/system.slice/docker-abc.scope"])
def test_v2_in_a_container(tmp_path: Path, path: str) -> None:
    files = {f"{V2}/cpu.max": "max 100000", f"{V2}/cpuset.cpus.effective": "0"}
    root = lay(tmp_path, V2_MOUNTS.format(root="/"), f"0::{path}\n", files)
    assert read_cgroup(root) == {"version": 2, "quota_cpus": None, "cpuset": "0"}


def test_no_cgroup_mounted(tmp_path: Path) -> None:
    root = lay(tmp_path, "22 1 254:0 / / rw - ext4 /dev/vda rw", "0::/", {})
    assert read_cgroup(root) == {"version": None, "quota_cpus": None, "cpuset": None}


def test_isa_and_status(tmp_path: Path) -> None:
    files = {
        "proc/cpuinfo": "processor\t: 0\nflags\t\t: fpu sse4_2 avx2 fma\n\nprocessor\t: 1\n",
        "proc/self/status": "Name:\tpython3\nThreads:\t7\nCpus_allowed_list:\t0-1",
    }
    root = lay(tmp_path, "", "", files)
    assert read_isa(root) == ["sse4_2", "avx2", "fma"]
    assert read_status(root)["Cpus_allowed_list"] == "0-1"
    assert read_status(root)["Threads"] == "7"


@pytest.mark.parametrize(
    ("text", "policy"),
    [("7f00 bind:1 anon=3\n7f01 bind:1\n", "bind:1"), ("7f00 default\n", "default"), ("", None)],
)
def test_the_memory_policy(tmp_path: Path, text: str, policy: str | None) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/numa_maps").write_text(text)
    assert read_memory_policy(tmp_path) == policy


def test_no_numa_is_no_memory_policy(tmp_path: Path) -> None:
    assert read_memory_policy(tmp_path) is None


def test_cpus_are_listed_as_the_kernel_does() -> None:
    assert kernel_list([5, 0, 2, 1]) == "0-2,5"


def test_this_process_reads_its_own_affinity() -> None:
    environment = read_environment(0, 0)
    assert environment["cpus_allowed_list"] == kernel_list(environment["affinity"])
