"""CPU hotplug on a made-up host: what the kernel would lose is restored."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from virtbed_contract.kernel.cpus import format_cpu_list, parse_cpu_list

from .conftest import module

hotplug = module("machine_metal", "cpu_hotplug")

CPUSETS = {
    "sys/fs/cgroup/cpuset/docker/cpuset.cpus": "0-3",
    "sys/fs/cgroup/cpuset/docker/abc/cpuset.cpus": "2",
    "sys/fs/cgroup/cpuset/machine/cpuset.cpus": "0-3",
}


class Host:
    """A made-up host of four CPUs, of which CPU 0 cannot be taken offline."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("sys/devices/system/cpu/online", "0-3")
        for cpu in (1, 2, 3):
            self.write(f"sys/devices/system/cpu/cpu{cpu}/online", "1")
        for name, cpus in {"sys/fs/cgroup/cpuset/cpuset.cpus": "0-3", **CPUSETS}.items():
            self.write(name, cpus)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")

    def read(self, name: str) -> str:
        return (self.root / name).read_text().strip()

    def on(self) -> set[int]:
        names = {cpu: f"sys/devices/system/cpu/cpu{cpu}/online" for cpu in (1, 2, 3)}
        return {0} | {cpu for cpu, name in names.items() if self.read(name) == "1"}

    def lose(self) -> None:
        """Remove offlined CPUs from cpusets for good, as the kernel does under v1."""
        for name in CPUSETS:
            left = set(parse_cpu_list(self.read(name))) & self.on() or {0}
            self.write(name, format_cpu_list(left))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path / "host")
    monkeypatch.setattr(hotplug, "online", lambda root: made.on())
    return made


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    return tmp_path / "state" / "hotplug.json"


def test_every_cpuset_is_restored(host: Host, snapshot: Path) -> None:
    assert hotplug.leave_online(host.root, {0, 1}, snapshot) is True
    host.lose()
    assert host.read("sys/fs/cgroup/cpuset/docker/abc/cpuset.cpus") == "0"
    assert hotplug.bring_back(host.root, snapshot) is True
    assert host.on() == {0, 1, 2, 3}
    assert {name: host.read(name) for name in CPUSETS} == CPUSETS
    assert not snapshot.exists()
    assert hotplug.bring_back(host.root, snapshot) is False


def test_interrupts_of_a_cpu_that_was_offline_are_restored(
    host: Host, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel lets all CPUs handle an interrupt that has no CPU left, also afterwards."""
    irqs = {
        f"proc/irq/{irq}/smp_affinity_list": cpus
        for irq, cpus in {0: "0-3", 30: "3", 31: "2", 32: "2-3", 40: "3"}.items()
    }
    for name, cpus in irqs.items():
        host.write(name, cpus)
    hotplug.leave_online(host.root, {0, 1}, snapshot)
    for irq in (30, 31, 32):
        host.write(f"proc/irq/{irq}/smp_affinity_list", "0-1")
    managed = host.root / "proc/irq/31/smp_affinity_list"
    (host.root / "proc/irq/40/smp_affinity_list").unlink()
    real = Path.write_text

    def write(path: Path, text: str) -> int:
        if path == managed:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, text)

    monkeypatch.setattr(Path, "write_text", write)
    assert hotplug.bring_back(host.root, snapshot) is True
    assert not snapshot.exists()
    affinity = {name: host.read(name) for name in irqs if (host.root / name).exists()}
    gone, kept = "proc/irq/40/smp_affinity_list", {"proc/irq/31/smp_affinity_list": "0-1"}
    assert affinity == {name: cpus for name, cpus in irqs.items() if name != gone} | kept


def test_after_a_crash_the_first_snapshot_is_restored(host: Host, snapshot: Path) -> None:
    hotplug.leave_online(host.root, {0, 1, 2}, snapshot)
    host.lose()
    hotplug.leave_online(host.root, {0}, snapshot)
    host.lose()
    hotplug.bring_back(host.root, snapshot)
    assert host.on() == {0, 1, 2, 3}
    assert {name: host.read(name) for name in CPUSETS} == CPUSETS


def test_a_removed_control_group_is_not_made_again(host: Host, snapshot: Path) -> None:
    hotplug.leave_online(host.root, {0, 1}, snapshot)
    gone = host.root / "sys/fs/cgroup/cpuset/docker/abc"
    (gone / "cpuset.cpus").unlink()
    gone.rmdir()
    assert hotplug.bring_back(host.root, snapshot) is True
    assert not gone.exists()


def test_nothing_is_changed_if_every_cpu_stays_online(host: Host, snapshot: Path) -> None:
    assert hotplug.leave_online(host.root, {0, 1, 2, 3}, snapshot) is False
    assert not snapshot.exists()


def test_a_cpu_that_cannot_go_offline_is_refused_before_any_change(
    host: Host, snapshot: Path
) -> None:
    with pytest.raises(hotplug.HotplugError, match=r"CPUs 0 cannot be taken offline.*affinity"):
        hotplug.leave_online(host.root, {1, 2}, snapshot)
    assert host.on() == {0, 1, 2, 3}
    assert not snapshot.exists()


def test_a_cpu_that_is_not_online_is_refused(host: Host, snapshot: Path) -> None:
    with pytest.raises(hotplug.HotplugError, match=r"CPUs 0-3 online, 0,7 needed"):
        hotplug.leave_online(host.root, {0, 7}, snapshot)
