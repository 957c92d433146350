"""The host_doctor module against made-up hosts, and its boot probe against made-up emulators."""

import copy
import json
import os
import time
from pathlib import Path
from typing import Any

import ansible.module_utils
import pytest

ROLE = Path(__file__).parents[3] / "roles/host_doctor"
# Ansible puts a role's module_utils beside its own when it ships a module; so do we.
ansible.module_utils.__path__.append(str(ROLE / "module_utils"))

from ansible.module_utils import host_doctor_facts as facts  # noqa: E402 - after the line above
from ansible.module_utils import host_doctor_probe as probe  # noqa: E402
from ansible.module_utils import host_doctor_verdict as verdict  # noqa: E402


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return root


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """Two sockets of two cores of two threads; CPU 7 offline, CPUs 8-15 only possible."""
    files = {
        "sys/devices/system/cpu/online": "0-6",
        "sys/devices/system/cpu/present": "0-7",
        "sys/devices/system/cpu/offline": "7-15",
        "sys/devices/system/node/online": "0-1",
        "proc/cpuinfo": "model name\t: Xeon\nflags\t\t: fpu vmx avx2 amx_tile\n\nmodel name\t: x",
        "proc/meminfo": "MemTotal:  8388608 kB\nMemFree: 1 kB\nMemAvailable: 4194304 kB",
    }
    for cpu in range(7):
        core = cpu % 4
        siblings = f"{core},{core + 4}" if core < 3 else "3"
        home = f"sys/devices/system/cpu/cpu{cpu}/topology"
        files[f"{home}/core_id"] = str(core % 2)
        files[f"{home}/physical_package_id"] = str(core // 2)
        files[f"{home}/thread_siblings_list"] = siblings
    for node, cpus in ((0, "0-1,4-5"), (1, "2-3,6")):
        home = f"sys/devices/system/node/node{node}"
        files[f"{home}/cpulist"] = cpus
        files[f"{home}/meminfo"] = f"Node {node} MemTotal:  4194304 kB\nNode {node} MemFree: 1 kB"
    return write(tmp_path, files)


def test_topology(server: Path) -> None:
    cpu = facts.cpu_facts(server, range(16))
    assert cpu["online"] == cpu["allowed"] == list(range(7))
    assert cpu["offline"] == [7]
    assert (cpu["sockets"], cpu["smt"], cpu["model"]) == (2, True, "Xeon")
    assert cpu["isa"] == ["avx2", "amx_tile"]
    assert cpu["cpus"][6] == {"cpu": 6, "core": 0, "socket": 1, "node": 1, "siblings": [2, 6]}
    assert facts.numa_facts(server)[1] == {"node": 1, "cpus": [2, 3, 6], "memory_mib": 4096}
    assert facts.memory_facts(server, 5) == {"total": 8192, "available": 4096, "needed": 5}


def test_allowed_is_online_and_affine_and_in_the_cpuset(server: Path) -> None:
    write(
        server,
        {
            "proc/mounts": "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0",
            "proc/self/cgroup": "0::/jobs/one",
            "sys/fs/cgroup/jobs/cpuset.cpus.effective": "2-7",
            "sys/fs/cgroup/cpuset.cpus.effective": "0-7",
        },
    )
    assert facts.cpu_facts(server, [0, 1, 2, 3])["allowed"] == [2, 3]


def test_a_kernel_that_tells_nothing_of_its_topology(tmp_path: Path) -> None:
    cpu = facts.cpu_facts(tmp_path, [0, 1])
    assert cpu["cpus"][1] == {"cpu": 1, "core": 1, "socket": 0, "node": 0, "siblings": [1]}
    assert (cpu["sockets"], cpu["smt"], cpu["offline"]) == (1, False, [])
    assert facts.numa_facts(tmp_path) == []


V1 = "cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu,cpuacct 0 0"
V2 = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0"


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        ([V1], {"version": 1, "controllers": ["cpu", "cpuacct"]}),
        ([V2], {"version": 2, "controllers": ["cpu", "cpuset"]}),
        ([V2, V1], {"version": 1, "controllers": ["cpu", "cpuacct"]}),
        ([], {"version": None, "controllers": []}),
    ],
)
def test_cgroup_version(tmp_path: Path, mounts: list[str], expected: dict[str, Any]) -> None:
    write(
        tmp_path,
        {
            "proc/mounts": "\n".join(["proc /proc proc rw 0 0", *mounts]),
            "proc/cgroups": "#subsys_name\thierarchy\ncpu\t1\t1\t1\ncpuacct\t2\t1\t1",
            "sys/fs/cgroup/unified/cgroup.controllers": "cpuset cpu",
        },
    )
    assert facts.cgroup_facts(tmp_path) == expected


def test_cpuset_of_a_namespace_that_climbs_above_its_mount(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/mounts": "cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0",
            "proc/self/cgroup": "3:cpuset:/../..",
            "sys/fs/cgroup/cpuset/cpuset.cpus": "1-2",
        },
    )
    assert facts.cgroup_cpuset(tmp_path) == [1, 2]


def test_gpu_is_an_nvidia_display_device(tmp_path: Path) -> None:
    def device(slot: str, vendor: str, kind: str) -> None:
        home = f"sys/bus/pci/devices/{slot}"
        write(tmp_path, {f"{home}/vendor": vendor, f"{home}/class": kind, f"{home}/device": "0x1"})

    device("0000:01:00.0", "0x10de", "0x030200")
    device("0000:01:00.1", "0x10de", "0x040300")  # the sound function of the same card
    device("0000:02:00.0", "0x1002", "0x030000")
    (gpu,) = facts.gpu_facts(tmp_path)
    expected = {"vendor": "nvidia", "pci": "0000:01:00.0", "name": "device 0x1", "driver": None}
    assert gpu == expected

    drivers = tmp_path / "sys/bus/pci/drivers/nvidia"
    drivers.mkdir(parents=True)
    (tmp_path / "sys/bus/pci/devices/0000:01:00.0/driver").symlink_to(drivers)
    write(tmp_path, {"proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t NVIDIA H1"})
    (gpu,) = facts.gpu_facts(tmp_path)
    assert (gpu["name"], gpu["driver"]) == ("NVIDIA H1", "nvidia")


def test_an_image_counts_once_its_manifest_is_there(tmp_path: Path) -> None:
    none = {"digest": None, "key": None, "path": None}
    image = tmp_path / "images/0123"
    image.mkdir(parents=True)
    (tmp_path / "images/current").symlink_to(image)
    assert facts.image_facts(tmp_path) == none
    (image / "manifest.json").write_text('{"digest": "sha')
    assert facts.image_facts(tmp_path) == none
    (image / "manifest.json").write_text('{"digest": "sha256:01", "key": "k"}')
    assert facts.image_facts(tmp_path) == {"digest": "sha256:01", "key": "k", "path": str(image)}


def test_disk_is_measured_where_the_directory_would_be(tmp_path: Path) -> None:
    disk = facts.disk_facts(tmp_path / "not/yet", 7)
    assert disk["free_mib"] > 0 and disk["needed_mib"] == 7
    assert not (tmp_path / "not").exists()


def fake_qemu(home: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> Path:
    """Put an emulator first on PATH that notes its process and then does `body`."""
    program = home / "qemu-system-x86_64"
    program.write_text(f'#!/bin/sh\necho $$ > {home}/pid\necho "$@" > {home}/argv\n{body}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}:{os.environ['PATH']}")
    return home


def gone(pid: int) -> bool:
    """Whether a process ended; one whose parent died first is reaped by init, a moment later."""
    for _ in range(100):
        state = facts.read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
        if not state or state[0] == "Z":
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize(
    ("body", "expected", "quoted"),
    [
        ("echo '[ 1.2] Run /init as init process'; sleep 60", "booted", "started user space"),
        ("echo 'Loading, please wait...'; sleep 60", "booted", "started user space"),
        ("printf 'Run /in'; sleep 0.1; echo 'it as init process'; sleep 60", "booted", ""),
        ("echo 'SeaBIOS'; sleep 60 & wait", "hung", "SeaBIOS"),
        ("exec >&- 2>&-; sleep 60", "failed", "nothing"),
        ("echo 'failed to set MSR 0x10a' >&2; exit 1", "failed", "failed to set MSR 0x10a"),
    ],
)
def test_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, expected: str, quoted: str
) -> None:
    home = fake_qemu(tmp_path, monkeypatch, body)
    began = time.monotonic()
    outcome = probe.boot(Path("/k"), Path("/i"), "kvm", 1)
    assert time.monotonic() - began < 10
    assert outcome["probe"] == expected
    assert quoted in outcome["detail"]
    assert outcome["seconds"] is not None
    argv = (home / "argv").read_text()
    assert "-accel kvm -cpu host" in argv and "console=ttyS0" in argv
    assert gone(int((home / "pid").read_text()))


def test_a_hung_guest_takes_its_children_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = fake_qemu(tmp_path, monkeypatch, f"sleep 60 & echo $! > {tmp_path}/child; wait")
    assert probe.boot(Path("/k"), Path("/i"), "tcg", 0.5)["probe"] == "hung"
    assert gone(int((home / "child").read_text()))


def test_kvm_says_why_it_is_not_usable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "kvm"
    image = tmp_path
    missing = probe.kvm_facts(device, {"svm"}, image, True, 1)
    assert (missing["device"], missing["usable"], missing["probe"]) == (False, False, "failed")
    assert "the CPU has svm" in missing["detail"]
    assert "no vmx or svm" in probe.kvm_facts(device, set(), image, True, 1)["detail"]

    device.touch()
    fake_qemu(tmp_path, monkeypatch, "echo 'Run /init as init process'; sleep 60")
    off = probe.kvm_facts(device, set(), image, False, 1)
    early = probe.kvm_facts(device, set(), None, True, 1)
    assert off["probe"] == early["probe"] == "not-run"
    assert "make testbed" in early["detail"] and not off["usable"]
    assert probe.kvm_facts(device, set(), image, True, 1)["usable"]


@pytest.mark.parametrize(
    ("printed", "running"),
    [
        ('{"ServerVersion": "20.10", "Driver": "overlay2", "CgroupDriver": "cgroupfs"}', True),
        ('{"ServerVersion": "", "Driver": ""}', False),
        ("no JSON", False),
    ],
)
def test_docker_runs_when_its_daemon_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: str, running: bool
) -> None:
    client = tmp_path / "docker"
    client.write_text(f"#!/bin/sh\necho '{printed}'\n")
    client.chmod(0o755)
    monkeypatch.setattr(probe, "find", {"docker": str(client)}.get)
    docker = probe.docker_facts()
    assert docker["running"] == docker["installed"] == running
    assert docker["storage_driver"] == ("overlay2" if running else None)


@pytest.fixture
def good() -> dict[str, Any]:
    """The facts of a server that can do everything."""
    return {
        "is_root": True,
        "cpu": {"allowed": [0, 1]},
        "memory_mib": {"available": 8000, "needed": 6144},
        "disk": {"path": "/v", "free_mib": 9000, "needed_mib": 5120},
        "cgroup": {"version": 2, "controllers": ["cpu", "cpuset", "memory"]},
        "docker": {"installed": True, "running": True, "version": "20.10"},
        "libvirt": {"installed": True, "running": True},
        "qemu": {"installed": True},
        "kvm": {"device": True, "usable": True, "probe": "booted", "detail": "booted in 1 s"},
        "gpu": [{"name": "H200", "pci": "0000:01:00.0", "driver": "nvidia"}],
        "iommu": True,
        "image": {"digest": "sha256:01"},
    }


def status(report: dict[str, Any]) -> dict[str, str]:
    return {row["platform"]: row["status"] for row in report["platforms"]}


def test_a_good_host_can_do_everything(good: dict[str, Any]) -> None:
    report = verdict.report("bench01", good)
    assert list(status(report)) == ["bm", "vm", "cn", "vmcn", "gpu"]
    assert set(status(report).values()) == {"available"}
    assert report["ok"] and report["accelerator"] == "kvm"
    json.dumps(report)


@pytest.mark.parametrize(
    ("part", "change", "hit", "word"),
    [
        ("docker", {"installed": False, "running": False}, {"cn"}, "no Docker engine"),
        ("docker", {"running": False}, {"cn"}, "does not answer"),
        ("cgroup", {"controllers": ["cpu", "memory"]}, {"cn"}, "controller cpuset"),
        ("libvirt", {"installed": False}, {"vm", "vmcn"}, "no libvirt"),
        ("libvirt", {"running": False}, {"vm", "vmcn"}, "qemu:///system"),
        ("qemu", {"installed": False}, {"vm", "vmcn"}, "no QEMU"),
        ("disk", {"free_mib": 5119}, {"bm", "vm", "cn", "vmcn"}, "5119 MiB free for /v, 5120"),
        ("memory_mib", {"available": 1}, {"bm", "vm", "cn", "vmcn"}, "1 MiB of memory"),
        ("image", {"digest": None}, {"bm", "vm", "cn", "vmcn"}, "not built"),
    ],
)
def test_what_is_missing_hits_those_that_need_it(
    good: dict[str, Any], part: str, change: dict[str, Any], hit: set[str], word: str
) -> None:
    bad = copy.deepcopy(good)
    bad[part].update(change)
    report = verdict.report("bench01", bad)
    rows = {row["platform"]: row for row in report["platforms"]}
    assert {name for name, row in rows.items() if row["status"] == "unavailable"} == hit
    assert not report["ok"]
    assert all(word in rows[name]["reason"] and rows[name]["remedy"] for name in hit)


def test_without_usable_kvm_guests_are_emulated(good: dict[str, Any]) -> None:
    good["kvm"] = {"device": True, "usable": False, "probe": "hung", "detail": "silent for 20 s"}
    report = verdict.report("bench01", good)
    assert status(report)["vm"] == status(report)["vmcn"] == "emulated"
    assert report["ok"] and report["accelerator"] == "tcg"
    row = report["platforms"][1]
    assert "silent for 20 s" in row["reason"] and "nested" in row["remedy"]


def test_without_root_and_docker_both_are_named(good: dict[str, Any]) -> None:
    good["is_root"] = False
    good["docker"]["running"] = False
    row = verdict.report("bench01", good)["platforms"][2]
    assert "root" in row["reason"] and "Docker" in row["reason"]


def test_a_gpu_needs_its_driver(good: dict[str, Any]) -> None:
    good["iommu"] = False
    assert "no IOMMU" in verdict.report("h", good)["platforms"][4]["reason"]
    good["gpu"][0]["driver"] = None
    assert status(verdict.report("h", good))["gpu"] == "unavailable"
    good["gpu"] = []
    assert "PCI bus" in verdict.report("h", good)["platforms"][4]["reason"]
