"""Servers in a box have the requested hardware, and end with the process that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from virtbed.lab import FOLDER
from virtbed.lab.server import Server, load, servers
from virtbed.lab.shape import SPARE
from virtbed_contract.kernel.cpus import parse_cpu_list

pytestmark = pytest.mark.full
_CPUS = "/sys/devices/system/cpu"
_NODES = "/sys/devices/system/node"


def test_a_server_has_the_requested_hardware(server: Callable[..., Server]) -> None:
    lab = server(sockets=2, cores=1, threads=2, nodes=2, memory_mib=2560, iommu=True, spare=True)
    assert lab.run("systemctl", "is-system-running").strip() == "running"
    assert lab.run("systemctl", "--failed", "--no-legend", "--plain").strip() == ""
    assert lab.run("stat", "-fc", "%T", "/sys/fs/cgroup").strip() == "cgroup2fs"
    controllers = set(lab.run("cat", "/sys/fs/cgroup/cgroup.controllers").split())
    assert {"cpu", "cpuset", "io", "memory", "pids"} <= controllers

    topology = lab.shell(
        f"for n in 0 1 2 3; do cd {_CPUS}/cpu$n/topology; "
        "echo $(cat physical_package_id) $(cat core_cpus_list); done"
    ).splitlines()
    assert len({line.split()[0] for line in topology}) == 2
    assert [parse_cpu_list(line.split()[1]) for line in topology] == [(0, 1)] * 2 + [(2, 3)] * 2
    nodes = lab.shell(f"cat {_NODES}/node0/cpulist {_NODES}/node1/cpulist {_NODES}/node0/distance")
    assert nodes.splitlines() == ["0-1", "2-3", "10 21"]

    devices = lab.run("lspci", "-Dnd", SPARE).split()
    assert len(devices[:1]) == 1
    group = lab.shell(f"ls $(readlink -f /sys/bus/pci/devices/{devices[0]}/iommu_group)/devices")
    assert group.split() == [devices[0]]
    lab.run("test", "-c", "/dev/kvm")
    # A snapshot's clock shows the time when it was taken, so the start must set it.
    assert abs(float(lab.run("date", "+%s")) - time.time()) < 60


def test_a_server_without_virtualization_has_no_kvm(server: Callable[..., Server]) -> None:
    lab = server(svm=False, memory_mib=1536)
    assert "svm" not in lab.run("cat", "/proc/cpuinfo").split()
    assert lab.shell("test -e /dev/kvm && echo exists || echo none").strip() == "none"
    assert lab.shell("ls /sys/kernel/iommu_groups | wc -l").strip() == "0"


_HOLD = """
import sys, time
from virtbed.lab.image import build
from virtbed.lab.prepared import start_prepared
from virtbed.lab.recipe import Recipe
from virtbed.lab.shape import Shape, accelerator_here
start_prepared("killed", build(Recipe(), print), Shape(svm=False, memory_mib=1536), print,
               tied=True, accelerator=accelerator_here())
print("held", flush=True)
time.sleep(600)
"""


def test_a_server_is_killed_together_with_its_starter() -> None:
    holder = subprocess.Popen([sys.executable, "-c", _HOLD], stdout=subprocess.PIPE, text=True)
    assert holder.stdout
    try:
        assert any(line.strip() == "held" for line in holder.stdout)
        found = load(FOLDER / "servers/killed")
        assert found and found.running
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        end = time.monotonic() + 10
        while found.running and time.monotonic() < end:
            time.sleep(0.1)
        assert not found.running and not Path(f"/proc/{found.pid}/exe").exists()
        assert "killed" not in {each.name for each in servers()}
        assert not found.folder.exists()
    finally:
        holder.kill()
        holder.wait()
