"""The pure parts of the modules that read placement back, on recorded and made-up trees."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import ansible.module_utils
import pytest

ROLES = Path(__file__).resolve().parents[3] / "roles"

# Ansible puts the playbooks' module_utils beside its own when it ships a module; so do we.
ansible.module_utils.__path__.append(str(ROLES.parent / "playbooks" / "module_utils"))

from ansible.module_utils.kernel_lists import allowed, kernel_list  # noqa: E402 - as above


def module(role: str, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROLES / role / "library" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded  # where dataclasses look their annotations up
    spec.loader.exec_module(loaded)
    return loaded


domain = module("machine_kvm", "domain_placement")
container = module("enclosure_docker", "container_placement")
processes = module("enclosure_process", "instance_processes")


@pytest.mark.parametrize(
    ("cpus", "text"),
    [({0}, "0"), ({1}, "1"), ({0, 1}, "0-1"), ({4, 2, 0, 3}, "0,2-4"), (set(), "")],
)
def test_cpus_read_as_the_kernel_writes_them(cpus: set[int], text: str) -> None:
    assert kernel_list(cpus) == text


def test_what_a_thread_may_use_is_what_is_plugged_in() -> None:
    assert allowed(os.getpid()) == kernel_list(os.sched_getaffinity(0))


def test_memory_nodes_are_read_of_a_status_file() -> None:
    assert domain.memory_nodes("Name:\tqemu\nMems_allowed_list:\t0-1\nSeccomp: 0\n") == "0-1"


def test_vcpu_threads_are_told_from_qemus_others(tmp_path: Path) -> None:
    for thread, name in ((7, "qemu-system-x86"), (9, "CPU 1/TCG"), (8, "CPU 0/KVM"), (10, "IO 1")):
        task = tmp_path / "7" / "task" / str(thread)
        task.mkdir(parents=True)
        (task / "comm").write_text(f"{name}\n")
    assert domain.vcpu_threads(7, tmp_path) == {0: 8, 1: 9}


def test_a_thread_that_was_moved_and_put_back_shows_in_the_count(tmp_path: Path) -> None:
    fill(tmp_path, {"7/task/8/sched": "CPU 0/KVM (8, #threads: 4)\nse.nr_migrations : 12\nx : 1"})
    assert domain.migrations(7, 8, tmp_path) == 12
    assert domain.migrations(7, 9, tmp_path) is None


def test_the_emulators_cpus_are_those_of_every_thread_but_the_vcpus() -> None:
    me = os.getpid()
    threads = {int(task.name) for task in Path(f"/proc/{me}/task").iterdir()}
    assert domain.helpers_allowed(me, set()) == os.sched_getaffinity(0)
    assert domain.helpers_allowed(me, threads) == set()


def test_only_quotas_that_bind_are_quotas() -> None:
    found = {"cpu_shares": 1024, "vcpu_quota": 50_000, "emulator_quota": -1, "global_quota": 0}
    assert domain.quotas(found | {"iothread_quota": 17_592_186_044_415}) == {"vcpu_quota": 50_000}


def fill(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


V1 = {
    "cpu/docker/x/cpu.cfs_quota_us": "150000\n",
    "cpu/docker/x/cpu.cfs_period_us": "100000\n",
    "cpu/docker/x/cpu.stat": "nr_periods 9\nnr_throttled 4\nthrottled_time 5\n",
    "cpuset/docker/x/cpuset.cpus": "0-1\n",
    "memory/docker/x/memory.limit_in_bytes": str(4096 * 2**20),
}
V2 = {
    "docker/x/cpu.max": "150000 100000\n",
    "docker/x/cpu.stat": "usage_usec 1\nnr_throttled 4\n",
    "docker/x/cpuset.cpus.effective": "0-1\n",
    "docker/x/memory.max": str(4096 * 2**20),
}


@pytest.mark.parametrize(
    ("files", "proc"),
    [
        (V1, "5:cpuset:/docker/x\n4:memory:/docker/x\n2:cpu:/docker/x\n0::/\n"),
        (V2, "0::/docker/x\n"),
    ],
    ids=["v1", "v2"],
)
def test_limits_of_either_control_group_version(
    tmp_path: Path, files: dict[str, str], proc: str
) -> None:
    fill(tmp_path, files)
    assert container.limits(container.groups(proc), tmp_path) == {
        "cpuset": "0-1",
        "quota_cpus": 1.5,
        "memory_mib": 4096,
        "throttled_periods": 4,
    }


@pytest.mark.parametrize(
    ("files", "unlimited", "proc"),
    [
        (V1, {"cpu/docker/x/cpu.cfs_quota_us": "-1\n"}, "1:cpu,cpuset,memory:/docker/x\n"),
        (V2, {"docker/x/cpu.max": "max 100000\n"}, "0::/docker/x\n"),
    ],
    ids=["v1", "v2"],
)
def test_no_quota_is_none_and_not_a_number(
    tmp_path: Path, files: dict[str, str], unlimited: dict[str, str], proc: str
) -> None:
    fill(tmp_path, files | unlimited)
    limits: dict[str, Any] = container.limits(container.groups(proc), tmp_path)
    assert limits["quota_cpus"] is None


def test_a_left_process_is_found_by_its_mark_and_no_other() -> None:
    marked = subprocess.Popen(["sleep", "60"], env=os.environ | {"VIRTBED_INSTANCE": "unit-r01"})
    other = subprocess.Popen(["sleep", "60"], env=os.environ | {"VIRTBED_INSTANCE": "unit-r012"})
    try:
        assert processes.marked("^unit-r01$") == [marked.pid]
    finally:
        for process in (marked, other):
            process.kill()
            process.wait()


def test_a_mount_of_an_image_is_found() -> None:
    table = "proc /proc proc rw 0 0\nnone /var/lib/virtbed/images/ab/rootfs/proc proc rw 0 0\n"
    assert processes.mounted(table) == ["/var/lib/virtbed/images/ab/rootfs/proc"]


@pytest.mark.parametrize(
    ("files", "above", "proc"),
    [
        (
            V1,
            {"cpu/docker/cpu.cfs_quota_us": "50000\n", "cpu/docker/cpu.cfs_period_us": "100000\n"},
            "1:cpu,cpuset,memory:/docker/x\n",
        ),
        (V2, {"docker/cpu.max": "50000 100000\n"}, "0::/docker/x\n"),
    ],
)
def test_a_quota_above_the_container_binds_it_as_well(
    tmp_path: Path, files: dict[str, str], above: dict[str, str], proc: str
) -> None:
    """As of a slice that Docker's daemon puts its containers in; inside of one nothing shows it."""
    fill(tmp_path, files | above)
    assert container.limits(container.groups(proc), tmp_path)["quota_cpus"] == 0.5
