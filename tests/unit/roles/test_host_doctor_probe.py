"""Probes of host_doctor, with made-up engines and emulators."""

import os
import time
from pathlib import Path

import ansible.module_utils
import pytest

from virtbed_contract.documents import Engine, RoleProperties
from virtbed_contract.kernel.files import read

from .conftest import REPOSITORY

# Ansible ships a role's module_utils next to its own: imitate that.
ansible.module_utils.__path__.append(str(REPOSITORY / "roles/host_doctor/module_utils"))

from ansible.module_utils import host_doctor_probe as probe  # noqa: E402 - after the line above


def fake_qemu(home: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> Path:
    """Put an emulator first on PATH that writes its process id to a file and runs `body`."""
    program = home / "qemu-system-x86_64"
    program.write_text(f'#!/bin/sh\necho $$ > {home}/pid\necho "$@" > {home}/argv\n{body}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}:{os.environ['PATH']}")
    return home


def gone(pid: int) -> bool:
    """Return whether a process has ended; waits, as init reaps orphans with a delay."""
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
def test_the_outcome_of_a_boot_is_booted_hung_or_failed(
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


def test_the_children_of_a_hung_guest_are_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = fake_qemu(tmp_path, monkeypatch, f"sleep 60 & echo $! > {tmp_path}/child; wait")
    assert probe.boot(Path("/k"), Path("/i"), "tcg", 0.5)["probe"] == "hung"
    assert gone(int((home / "child").read_text()))


def test_unusable_kvm_has_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert "make setup PLAN=…" in early["detail"] and not off["usable"]
    assert probe.kvm_facts(device, set(), image, True, 1)["usable"]


SERVICE = Engine(
    "Jailer", (("jailctl",), ("jaild", "jailsvc")), ("jailctl", "version"), ("jailctl", "version")
)


def programs(home: Path, monkeypatch: pytest.MonkeyPatch, **bodies: str) -> Path:
    """Make these the only programs on PATH; each logs its calls to the returned file."""
    for name, body in bodies.items():
        program = home / name
        program.write_text(f'#!/bin/sh\necho "$0 $@" >> {home}/calls\n{body}\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(home))
    return home / "calls"


@pytest.mark.parametrize("daemon", ["jaild", "jailsvc"])
def test_one_of_an_engines_alternative_programs_suffices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, daemon: str
) -> None:
    calls = programs(
        tmp_path, monkeypatch, jailctl="echo Jailer version 1.2-rc1, x86", **{daemon: ""}
    )
    assert probe.engine_facts({"jail": SERVICE}) == {
        "jail": {"name": "Jailer", "installed": True, "running": True, "version": "1.2-rc1"}
    }
    # The service answers the command that prints the version, so it is called once.
    assert calls.read_text().splitlines() == [f"{tmp_path}/jailctl version"]


@pytest.mark.parametrize(
    ("installed", "facts"),
    [
        ({}, (False, False, None)),
        ({"jaild": "echo 1.2"}, (False, False, None)),
        ({"jailctl": "exit 1"}, (False, False, None)),
        ({"jailctl": "echo 1.2; exit 1", "jaild": ""}, (True, False, None)),
        ({"jailctl": "echo no number", "jaild": ""}, (True, True, None)),
        ({"jailctl": "echo 1.2"}, (True, True, "1.2")),  # the service is on another machine
    ],
)
def test_an_engine_runs_when_its_service_answers(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    installed: dict[str, str],
    facts: tuple[bool, bool, str | None],
) -> None:
    programs(tmp_path, monkeypatch, **installed)
    jail = probe.engine_facts({"jail": SERVICE})["jail"]
    assert (jail["installed"], jail["running"], jail["version"]) == facts


def test_a_version_does_not_show_that_the_service_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine("Jailer", (("jailctl",),), ("jailctl", "version"), ("jailctl", "ping"))
    programs(tmp_path, monkeypatch, jailctl='test "$1" = version && echo 3.4')
    jail = probe.engine_facts({"jail": engine})["jail"]
    assert jail == {"name": "Jailer", "installed": True, "running": False, "version": "3.4"}


@pytest.mark.parametrize("present", [True, False])
def test_an_engine_without_a_service_runs_if_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, present: bool
) -> None:
    programs(tmp_path, monkeypatch, **({"emulate": "echo 7.2.0"} if present else {}))
    engine = Engine("Emulator", (("emulate",),), ("emulate", "--version"))
    facts = probe.engine_facts({"emulator": engine})["emulator"]
    assert facts["installed"] == facts["running"] == present
    assert facts["version"] == ("7.2.0" if present else None)


def test_a_hanging_engine_is_given_up_at_its_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "COMMAND_DEADLINE_S", 0.2)
    program = tmp_path / "jailctl"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    started = time.monotonic()
    assert probe.output_of([str(program)]) is None
    assert time.monotonic() - started < 10


def test_hwlocs_topology_is_kept_without_what_identifies_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        '<topology version="2.0">',
        '  <info name="DMIProductSerial" value="4711"/>',
        '  <info name="Address" value="02:fc:00"/>',
        '  <info name="FrequencyMaxMHz" value="5000"/>',
        "</topology>",
    ]
    printed = "\n".join(f"echo '{line}'" for line in lines)
    calls = programs(tmp_path, monkeypatch, **{probe.HWLOC: printed})
    facts = probe.hwloc_facts()
    assert facts["problem"] is None and facts["xml"] is not None
    assert "FrequencyMaxMHz" in facts["xml"] and "</topology>" in facts["xml"]
    assert "4711" not in facts["xml"] and "02:fc" not in facts["xml"]
    # CPUs of other users may share caches with ours; disks and network cards are not needed.
    argv = calls.read_text()
    assert "--disallowed" in argv and "--filter osdev:none" in argv


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("echo no topology >&2; exit 3", "fails with status 3: no topology"),
        ("true", "printed nothing"),
        ("printf '%0200d' 0", "200 characters, 99 at most"),
    ],
)
def test_unusable_output_of_hwloc_is_a_problem(
    body: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(tmp_path, monkeypatch, **{probe.HWLOC: body})
    monkeypatch.setattr(probe, "MOST_HWLOC_BYTES", 99)
    facts = probe.hwloc_facts()
    assert facts["xml"] is None and problem in (facts["problem"] or "")


def test_missing_hwloc_is_a_problem() -> None:
    facts = probe.hwloc_facts("lstopo-that-is-nowhere")
    assert facts == {"xml": None, "problem": "no lstopo-that-is-nowhere found"}


@pytest.mark.parametrize(("times", "problem"), [(1, "does not answer in 0.25 s"), (40, None)])
def test_the_deadline_of_hwloc_is_longer_on_an_emulated_host(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, times: int, problem: str | None
) -> None:
    monkeypatch.setattr(probe, "LOCAL_DEADLINE_S", 0.25)
    programs(tmp_path, monkeypatch, **{probe.HWLOC: "/bin/sleep 0.6; echo '<topology/>'"})
    facts = probe.hwloc_facts(times=times)
    assert (problem or "") in (facts["problem"] or "") and (facts["xml"] is None) == bool(problem)


@pytest.mark.parametrize(("times", "expected"), [(1, None), (40, "slow")])
def test_the_deadline_of_engines_is_longer_on_an_emulated_host(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, times: int, expected: str | None
) -> None:
    monkeypatch.setattr(probe, "COMMAND_DEADLINE_S", 0.25)
    program = tmp_path / "slow"
    program.write_text("#!/bin/sh\nsleep 0.6; echo slow\n")
    program.chmod(0o755)
    assert probe.output_of([str(program)], times) == expected


def test_values_of_factors_that_the_host_lacks_are_listed() -> None:
    varies: dict[str, dict[str, tuple[str, ...]]] = {
        "runtime": {"crun": ("true",), "runc": ("false",), "youki": ("no-such-program",)},
        "network": {"host": ()},
    }
    limits = {"pinned": "set"}
    role = RoleProperties(limits=limits, trial_s={}, varies=varies)  # type: ignore[arg-type]
    bare = RoleProperties(limits=limits, trial_s={})  # type: ignore[arg-type]
    missing = probe.lacking({"enclosure_one": role, "enclosure_two": bare})
    assert missing == [["enclosure_one", "runtime", "runc"], ["enclosure_one", "runtime", "youki"]]
