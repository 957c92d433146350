"""Tests that the script's output about a process equals a reading inside the process."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from virtbed_contract.kernel import readings
from virtbed_contract.kernel.cpus import allowed

from .conftest import lay


def printed(root: str = "", *pid: str) -> str:
    command = ["sh", "-c", readings.SCRIPT, "sh", root, *pid]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def test_this_process() -> None:
    found = readings.process(readings.unpack(printed()))
    assert found == readings.process(Path("/"))
    assert found["cpus_allowed_list"] == allowed()


def test_a_reading_starts_few_programs(tmp_path: Path) -> None:
    """Each program costs time, twice in every trial."""
    live = lay(tmp_path / "live", STATUS | TREES["version 1"])
    (tmp_path / "bin").mkdir()
    for name in ("cat", "grep", "head"):
        program = tmp_path / "bin" / name
        own = shutil.which(name)
        program.write_text(f'#!/bin/sh\necho {name} >> "{tmp_path}/started"\nexec {own} "$@"\n')
        program.chmod(0o755)
    command = ["sh", "-c", readings.SCRIPT, "sh", str(live)]
    path = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=path)
    assert readings.process(readings.unpack(done.stdout)) == readings.process(live)
    assert sorted((tmp_path / "started").read_text().split()) == ["grep", "head", "head"]


V1 = """\
22 1 254:0 / / rw - ext4 /dev/vda rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""
V2 = "30 23 0:26 {top} /sys/fs/cgroup rw - cgroup2 cgroup2 rw"
STATUS = {
    "proc/self/status": "Name:\tcat\nCpus_allowed_list:\t0-63\nMems_allowed_list:\t0-1",
    "proc/self/numa_maps": "7f00 bind:0 anon=1\n7f01 bind:0",
    "sys/devices/system/cpu/online": "0-3",
    "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc",
}
TREES = {
    "version 1": {
        "proc/self/mountinfo": V1,
        "proc/self/cgroup": "3:cpuset:/a\n2:memory:/m\n1:cpu,cpuacct:/a/b\n0::/",
        "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "50000",
        "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us": "-1",
        "sys/fs/cgroup/cpuset/a/cpuset.cpus": "1",
        "sys/fs/cgroup/unified/cgroup.controllers": "",
    },
    "version 2, no controller in the process's own group": {
        "proc/self/mountinfo": V2.format(top="/"),
        "proc/self/cgroup": "0::/a/b c/d",
        "sys/fs/cgroup/cpuset.cpus.effective": "0-3",
        "sys/fs/cgroup/a/cpu.max": "150000 100000",
        "sys/fs/cgroup/a/b c/d/cgroup.procs": "7",
    },
    "version 2, in a container": {
        "proc/self/mountinfo": V2.format(top="/docker/x"),
        "proc/self/cgroup": "0::/docker/x/inner",
        "sys/fs/cgroup/cpu.max": "50000 100000",
        "sys/fs/cgroup/inner/cpu.max": "max 100000",
    },
    "version 2, a path that is the host's": {
        "proc/self/mountinfo": V2.format(top="/"),
        "proc/self/cgroup": "0::/not/here",
        "sys/fs/cgroup/cpu.max": "50000 100000",
    },
    "no control groups": {"proc/self/mountinfo": "22 1 254:0 / / rw - ext4 /dev/vda rw"},
}


@pytest.mark.parametrize("name", TREES)
def test_the_script_prints_what_the_readers_need(tmp_path: Path, name: str) -> None:
    live = lay(tmp_path / "live", STATUS | TREES[name])
    found = readings.process(readings.unpack(printed(str(live))))
    assert found == readings.process(live)
    assert found["cpus_allowed_list"] == "0-3"  # the other CPUs are possible, but not present
    assert (found["cpus_visible"], found["memory_policy"]) == (4, "bind:0")
    bound = {"version 1": 0.5, "no control groups": None}
    expected = bound.get(name, 1.5 if "own group" in name else 0.5)
    assert found["cgroup"]["quota_cpus"] == expected


OF_ANOTHER = {
    "proc/7/stat": "7 (sle) ep) S 1 " + " ".join(str(n) for n in range(5, 40)),
    "proc/7/status": "Uid:\t7\t7\t7\t7\nGid:\t8\t8\t8\t8\nGroups:\t9 10 \n"
    "Cpus_allowed_list:\t1-63\nMems_allowed_list:\t0\nCapEff:\t00\nCapBnd:\t0a\nCapAmb:\t01\n"
    "NoNewPrivs:\t1\nSeccomp:\t2\nSpeculation_Store_Bypass:\tthread force mitigated",
    "proc/7/attr/current": "docker-default (enforce)",
    "proc/7/net/route": "Iface\tDestination\neth0\t00000000\n",
    "proc/7/net/ipv6_route": "0 00 0 00 0 lo\nfe80 40 0 00 0 eth1\n",
    "proc/7/mountinfo": "1 0 0:1 / / rw - ext4 d rw\n2 1 0:2 / / ro,nosuid - overlay o rw\n"
    "3 2 0:3 / /tmp rw - tmpfs t rw",
    "sys/devices/system/cpu/online": "0-3",
}
LIMITED = {
    "version 1": {
        "proc/self/mountinfo": V1
        + "36 31 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "37 31 0:34 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids",
        "sys/fs/cgroup/pids/d/pids.max": "500",
        "sys/fs/cgroup/pids/d/x/pids.max": "max",
        "proc/7/cgroup": "5:pids:/d/x\n4:memory:/d/x\n3:cpuset:/d/x\n1:cpu,cpuacct:/d/x\n0::/",
        "sys/fs/cgroup/cpu,cpuacct/d/x/cpu.cfs_quota_us": "150000",
        "sys/fs/cgroup/cpu,cpuacct/d/x/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/cpu,cpuacct/d/x/cpu.stat": "nr_periods 9\nnr_throttled 4\nthrottled_time 5",
        "sys/fs/cgroup/cpuset/d/x/cpuset.cpus": "1-2",
        "sys/fs/cgroup/memory/d/memory.limit_in_bytes": str(2**63 - 4096),
        "sys/fs/cgroup/memory/d/x/memory.limit_in_bytes": str(2**30),
        "sys/fs/cgroup/memory/d/memory.memsw.limit_in_bytes": str(2**63 - 4096),
        "sys/fs/cgroup/memory/d/x/memory.memsw.limit_in_bytes": str(3 * 2**29),
    },
    "version 2": {
        "proc/self/mountinfo": V2.format(top="/"),
        "proc/7/cgroup": "0::/d/x",
        "sys/fs/cgroup/d/memory.max": str(2**30),
        "sys/fs/cgroup/d/x/memory.max": "max",
        "sys/fs/cgroup/d/memory.swap.max": "max",
        "sys/fs/cgroup/d/x/memory.swap.max": str(2**29),
        "sys/fs/cgroup/d/x/pids.max": "500",
        "sys/fs/cgroup/d/x/cpu.max": "150000 100000",
        "sys/fs/cgroup/d/x/cpu.stat": "nr_periods 9\nnr_throttled 4\nthrottled_usec 5",
        "sys/fs/cgroup/d/x/cpuset.cpus.effective": "1-2",
    },
}


@pytest.mark.parametrize(("theirs", "network"), [("net:[7]", "own"), ("net:[1]", "host")])
def test_the_script_prints_the_network_namespace_of_another_process(
    tmp_path: Path, theirs: str, network: str
) -> None:
    live = lay(tmp_path / "live", OF_ANOTHER)
    for pid, link in (("self", "net:[1]"), ("7", theirs)):
        (live / "proc" / pid / "ns").mkdir(parents=True)
        (live / "proc" / pid / "ns/net").symlink_to(link)
    for root in (live, readings.unpack(printed(str(live), "7"))):
        assert (readings.enclosed(root, 7) or {})["network"] == network


@pytest.mark.parametrize("name", LIMITED)
def test_the_script_prints_another_process_and_its_limits(tmp_path: Path, name: str) -> None:
    live = lay(tmp_path / "live", OF_ANOTHER | LIMITED[name])
    found = readings.enclosed(readings.unpack(printed(str(live), "7")), 7)
    assert found == {
        "started": 22,
        "cpus_allowed_list": "1-3",
        "mems_allowed_list": "0",
        "privileges": {
            "users": [7],
            "groups": [8, 9, 10],
            "capabilities": "b",
            "no_new_privileges": True,
        },
        "networks": ["eth0", "eth1"],
        "network": None,
        "root": "ro",
        "seccomp": "filter",
        "store_bypass": "thread force mitigated",
        "indirect_branch": None,
        "apparmor": "docker-default (enforce)",
        "pids_max": 500,
        "cpuset": "1-2",
        "quota_cpus": 1.5,
        "quota_times": "period 100000 us, burst 0 us",
        "memory_mib": 1024,
        "swap_limit": "512 MiB",
        "throttled_periods": 4,
    }


def test_a_process_that_has_ended_has_no_reading() -> None:
    root = readings.unpack(printed("", str(2**22 + 1)))
    assert readings.enclosed(root, 2**22 + 1) is None


def test_carriage_returns_of_a_terminal_are_ignored() -> None:
    text = "warning: no tty\r\n==> /proc/self/status\r\nCpus_allowed_list:\t0-1\r\n"
    assert readings.process(readings.unpack(text))["cpus_allowed_list"] == "0-1"


def test_a_kernel_that_reports_little(tmp_path: Path) -> None:
    """Like gVisor's kernel: no NUMA, no cgroups, a status without lists of CPUs."""
    lay(tmp_path, {"proc/self/status": "Name:\tcat\nThreads:\t1"})
    assert readings.process(tmp_path) == {
        "cpus_visible": None,
        "cpus_allowed_list": None,
        "mems_allowed_list": None,
        "memory_policy": None,
        "cgroup": {"version": None, "quota_cpus": None, "cpuset": None},
        "clocksource": None,
        "privileges": dict.fromkeys(("users", "groups", "capabilities", "no_new_privileges")),
    }
