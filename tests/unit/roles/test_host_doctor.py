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

from ansible.module_utils import host_doctor_probe as probe  # noqa: E402 - after the line above
from ansible.module_utils import host_doctor_verdict as verdict  # noqa: E402

from virtbed_contract.kernel.files import read  # noqa: E402


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
        state = (read(Path(f"/proc/{pid}/stat")) or "").rpartition(")")[2].split()
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
