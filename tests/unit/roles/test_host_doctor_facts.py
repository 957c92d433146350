"""Facts that host_doctor reads on made-up hosts."""

from pathlib import Path
from typing import Any

import ansible.module_utils
import pytest

from .conftest import REPOSITORY

# Ansible ships a role's module_utils next to its own: imitate that.
ansible.module_utils.__path__.append(str(REPOSITORY / "roles/host_doctor/module_utils"))

from ansible.module_utils import host_doctor_facts as facts  # noqa: E402 - after the line above


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return root


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """A host with CPUs 0-6 online, CPU 7 offline, and CPUs 8-15 possible but not present."""
    files = {
        "sys/devices/system/cpu/online": "0-6",
        "sys/devices/system/cpu/present": "0-7",
        "sys/devices/system/cpu/offline": "7-15",
        "proc/cpuinfo": "model name\t: Xeon\nflags\t\t: fpu vmx avx2 amx_tile\n\nmodel name\t: x",
        "proc/meminfo": "MemTotal:  8388608 kB\nMemFree: 1 kB\nMemAvailable: 4194304 kB",
    }
    return write(tmp_path, files)


def test_cpus_and_memory_are_read_from_the_kernel(server: Path) -> None:
    cpu = facts.cpu_facts(server, range(16))
    assert cpu["online"] == cpu["allowed"] == list(range(7))
    assert cpu["offline"] == [7]
    assert (cpu["isolated"], cpu["tickless"], cpu["parts"], cpu["model"]) == ([], [], {}, "Xeon")
    assert cpu["isa"] == ["avx2", "amx_tile"]
    assert facts.memory_facts(server, 5) == {"total": 8192, "available": 4096, "needed": 5}


def test_a_machines_identity_does_not_reveal_its_machine_id(server: Path) -> None:
    write(server, {"etc/machine-id": "0" * 32, "sys/class/dmi/id/sys_vendor": "Dell"})
    machine = facts.machine_facts(server, None, 12.5)
    assert (machine["model"], machine["topology"], machine["clock_s"]) == ("Dell", None, 12.5)
    assert machine["id"] and "0" * 32 not in str(machine)


def test_the_shape_of_a_machine_counts_its_parts() -> None:
    xml = """<topology version="2.0">
    <object type="Machine" os_index="0" cpuset="0x3"><info name="x" value="PU"/>
    <object type="Package" cpuset="0x3"><object type="NUMANode" os_index="0"/>
    <object type="L3Cache" cpuset="0x3" cache_size="33554432" depth="3">
    <object type="L2Cache" cache_size="1048576"><object type="Core"><object type="PU"/></object>
    </object><object type="L2Cache" cache_size="1048576"><object type="Core"><object type="PU"/>
    </object></object></object></object></object></topology>"""
    assert facts.shape(xml) == (
        "1 Package, 1 NUMANode, 1 L3Cache of 32768 KiB, 2 L2Cache of 1024 KiB, 2 Core, 2 PU"
    )


def test_memory_nodes_are_those_of_the_processs_cpuset(server: Path) -> None:
    assert facts.nodes_allowed(server) == []
    write(server, {"proc/self/status": "Name:\tx\nMems_allowed_list:\t0,2-3"})
    assert facts.nodes_allowed(server) == [0, 2, 3]


def test_allowed_cpus_are_online_and_in_affinity_and_cpuset(server: Path) -> None:
    write(
        server,
        {
            "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
            "proc/self/cgroup": "0::/jobs/one",
            "sys/fs/cgroup/jobs/one/cgroup.procs": "1",
            "sys/fs/cgroup/jobs/cpuset.cpus.effective": "2-7",
            "sys/fs/cgroup/cpuset.cpus.effective": "0-7",
        },
    )
    assert facts.cpu_facts(server, [0, 1, 2, 3])["allowed"] == [2, 3]
    # Isolated CPUs are not in a new process's affinity, but it may be bound to them in its cpuset.
    home = "sys/devices/system/cpu"
    write(server, {f"{home}/isolated": "1,4-5,7", f"{home}/nohz_full": "3-5"})
    cpu = facts.cpu_facts(server, [0, 1, 2, 3])
    assert (cpu["allowed"], cpu["isolated"], cpu["tickless"]) == ([2, 3], [4, 5], [3, 4, 5])


def test_without_topology_files_online_is_the_affinity(tmp_path: Path) -> None:
    cpu = facts.cpu_facts(tmp_path, [0, 1])
    assert (cpu["online"], cpu["offline"], cpu["isolated"]) == ([0, 1], [], [])


V1 = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct"
V2 = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        ([V1], {"version": 1, "controllers": ["cpu", "cpuacct"]}),
        ([V2], {"version": 2, "controllers": ["cpu", "cpuset"]}),
        ([V2, V1], {"version": 1, "controllers": ["cpu", "cpuacct"]}),
        ([], {"version": None, "controllers": []}),
    ],
)
def test_cgroup_version_is_read_from_the_mounts(
    tmp_path: Path, mounts: list[str], expected: dict[str, Any]
) -> None:
    write(
        tmp_path,
        {
            "proc/self/mountinfo": "\n".join(["25 1 0:4 / /proc rw - proc proc rw", *mounts]),
            "proc/cgroups": "#subsys_name\thierarchy\ncpu\t1\t1\t1\ncpuacct\t2\t1\t1",
            "sys/fs/cgroup/unified/cgroup.controllers": "cpuset cpu",
        },
    )
    assert facts.cgroup_facts(tmp_path) == expected


def test_an_image_exists_once_its_manifest_is_complete(tmp_path: Path) -> None:
    variant = {"words": "w", "build_s": 60, "key": "k", "lock": "cpu.txt"}

    def cpu_image() -> dict[str, object]:
        described = facts.image_facts(tmp_path, {"cpu": variant, "null": {**variant, "key": "n"}})
        assert described["null"] == {
            "variant": "null", "words": "w", "build_s": 60, "current": False, **none,
        }  # fmt: skip
        return {name: described["cpu"][name] for name in (*none, "current")}

    none = {"digest": None, "key": None, "path": None}
    image = tmp_path / "images/0123"
    image.mkdir(parents=True)
    (tmp_path / "images/current-cpu").symlink_to(image)
    assert cpu_image() == {**none, "current": False}
    (image / "manifest.json").write_text('{"digest": "sha')
    assert cpu_image() == {**none, "current": False}
    whole = {"digest": "sha256:01", "key": "k", "path": str(image)}
    (image / "manifest.json").write_text('{"digest": "sha256:01", "key": "k"}')
    assert cpu_image() == {**whole, "current": True}
    (image / "manifest.json").write_text('{"digest": "sha256:01", "key": "older"}')
    assert cpu_image() == {**whole, "key": "older", "current": False}


def test_free_disk_space_of_a_missing_directory_is_its_parents(tmp_path: Path) -> None:
    disk = facts.disk_facts(tmp_path / "not/yet", 7)
    assert disk["free_mib"] > 0 and disk["needed_mib"] == 7
    assert not (tmp_path / "not").exists()
