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

# As the modules see it: Ansible's copy of the contract.
from ansible.module_utils.virtbed_contract import documents  # noqa: E402
from ansible.module_utils.virtbed_contract.codec import decode, encode  # noqa: E402
from ansible.module_utils.virtbed_contract.documents import Engine  # noqa: E402
from ansible.module_utils.virtbed_contract.sweep import HostReport  # noqa: E402

from virtbed.platforms import load_platforms  # noqa: E402
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


def engine(**changes: Any) -> Engine:
    how: dict[str, Any] = {
        "name": "Engine",
        "programs": (("engine",), ("engined", "engine-server")),
        "version": ("engine", "--version"),
        "answers": ("engine", "ping"),
    }
    return Engine(**how | changes)


@pytest.mark.parametrize(
    ("client", "daemons", "installed", "running", "version"),
    [
        ("echo 'Engine version 20.10.24+dfsg1, build 297e128'", ["engined"], True, True,
         "20.10.24+dfsg1"),
        ("echo 9.0.0; test $1 = --version", ["engine-server"], True, False, "9.0.0"),
        ("exit 1", [], False, False, None),
        ("echo 5.4", [], True, True, "5.4"),  # a daemon answers from elsewhere
        ("sleep 60", ["engined"], True, False, None),
    ],
)  # fmt: skip
def test_an_engine_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: str, daemons: list[str],
    installed: bool, running: bool, version: str | None,
) -> None:  # fmt: skip
    for name, body in {"engine": client, **dict.fromkeys(daemons, "exit 1")}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(probe, "ASK_DEADLINE_S", 0.5)
    expected = {
        "name": "Engine", "installed": installed, "running": running, "version": version,
    }  # fmt: skip
    assert probe.engine_facts({"key": engine()}) == {"key": expected}


def test_an_engine_without_a_service_runs_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = {"key": engine(programs=(("engine",),), answers=())}
    assert not probe.engine_facts(quiet)["key"]["running"]
    (tmp_path / "engine").write_text("#!/bin/sh\necho no number\n")
    (tmp_path / "engine").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = probe.engine_facts(quiet)["key"]
    assert found["running"] and found["version"] is None


@pytest.fixture(scope="module")
def house() -> verdict.House:
    """The platforms and roles of this checkout."""
    platforms = load_platforms()
    return verdict.House(
        {name: decode(documents.Platform, encode(e)) for name, e in platforms.entries.items()},
        {name: platforms.host_roles(name) for name in platforms.entries},
        {
            name: decode(documents.RoleProperties, encode(role))
            for name, role in platforms.roles.items()
        },
    )


@pytest.fixture
def good(house: verdict.House) -> dict[str, Any]:
    """The facts of a server that can do everything."""
    engines = {key: each for role in house.roles.values() for key, each in role.engines.items()}
    controllers = sorted({name for role in house.roles.values() for name in role.controllers})
    return {
        "is_root": True,
        "cpu": {"allowed": [0, 1]},
        "memory_mib": {"available": 8000, "needed": 6144},
        "disk": {"path": "/v", "free_mib": 9000, "needed_mib": 5120},
        "cgroup": {"version": 2, "controllers": controllers},
        "engines": {
            key: {"name": each.name, "installed": True, "running": True, "version": "1.0"}
            for key, each in engines.items()
        },
        "kvm": {"device": True, "usable": True, "probe": "booted", "detail": "booted in 1 s"},
        "gpu": [{"name": "H200", "pci": "0000:01:00.0", "driver": "nvidia"}],
        "iommu": True,
        "image": {"digest": "sha256:01"},
    }


def status(report: Any) -> dict[str, str]:
    return {row.platform: row.status for row in report.platforms}


def guests(house: verdict.House) -> set[str]:
    return {
        name
        for name, roles in house.host_roles.items()
        if any(house.roles[role].own_kernel for role in roles)
    }


def test_a_good_host_can_do_everything(house: verdict.House, good: dict[str, Any]) -> None:
    report = verdict.report("bench01", good, house)
    assert list(status(report)) == [*house.entries, "gpu"]
    assert set(status(report).values()) == {"available"}
    assert report.ok and report.accelerator == "kvm"
    decode(HostReport, json.loads(json.dumps(encode(report))))


@pytest.mark.parametrize(
    ("part", "change", "word"),
    [
        ("disk", {"free_mib": 5119}, "5119 MiB free for /v, 5120"),
        ("memory_mib", {"available": 1}, "1 MiB of memory"),
        ("image", {"digest": None}, "not built"),
    ],
)
def test_what_all_need_hits_all(
    house: verdict.House, good: dict[str, Any], part: str, change: dict[str, Any], word: str
) -> None:
    good[part].update(change)
    report = verdict.report("bench01", good, house)
    rows = [row for row in report.platforms if row.platform in house.entries]
    assert {row.status for row in rows} == {"unavailable"}
    assert not report.ok
    assert all(word in row.reason and row.remedy for row in rows)


@pytest.mark.parametrize(
    ("change", "word", "remedy"),
    [
        ({"installed": False, "running": False}, "no {} installed", "make testbed"),
        ({"running": False}, "{} does not answer", "make setup"),
    ],
)
def test_an_engine_that_is_missing_hits_those_that_need_it(
    house: verdict.House, good: dict[str, Any], change: dict[str, Any], word: str, remedy: str
) -> None:
    for key in good["engines"]:
        bad = copy.deepcopy(good)
        bad["engines"][key].update(change)
        report = verdict.report("bench01", bad, house)
        hit = {
            name
            for name, roles in house.host_roles.items()
            if any(key in house.roles[role].engines for role in roles)
        }
        assert hit
        assert {name for name, found in status(report).items() if found == "unavailable"} == hit
        for row in report.platforms:
            if row.platform in hit:
                assert word.format(good["engines"][key]["name"]) in row.reason
                assert remedy in row.remedy


def test_a_controller_that_is_missing_hits_those_that_need_it(
    house: verdict.House, good: dict[str, Any]
) -> None:
    good["cgroup"]["controllers"].remove("cpuset")
    report = verdict.report("bench01", good, house)
    for row in report.platforms:
        needs = row.platform in house.entries and any(
            "cpuset" in house.roles[role].controllers for role in house.host_roles[row.platform]
        )
        assert (row.status == "unavailable") == needs
        assert not needs or "no cgroup controller cpuset" in row.reason


def test_without_usable_kvm_guests_are_emulated(house: verdict.House, good: dict[str, Any]) -> None:
    good["kvm"] = {"device": True, "usable": False, "probe": "hung", "detail": "silent for 20 s"}
    report = verdict.report("bench01", good, house)
    assert {name for name, found in status(report).items() if found == "emulated"} == guests(house)
    assert report.ok and report.accelerator == "tcg"
    row = next(row for row in report.platforms if row.platform in guests(house))
    assert "silent for 20 s" in row.reason and "nested" in row.remedy


def test_everything_that_is_missing_is_named(house: verdict.House, good: dict[str, Any]) -> None:
    good["is_root"] = False
    good["engines"]["docker"]["running"] = False
    (row,) = (r for r in verdict.report("bench01", good, house).platforms if r.platform == "cn")
    assert "root" in row.reason and "Docker" in row.reason


def test_a_gpu_needs_its_driver(house: verdict.House, good: dict[str, Any]) -> None:
    def row() -> Any:
        return verdict.report("h", good, house).platforms[-1]

    good["iommu"] = False
    assert "no IOMMU" in row().reason
    good["gpu"][0]["driver"] = None
    assert row().status == "unavailable"
    good["gpu"] = []
    assert "PCI bus" in row().reason
