"""Tuning of a made-up host, and its restoration after crashes and changes."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ansible.module_utils
import pytest

from virtbed_contract.codec import encode
from virtbed_contract.kernel.snapshots import kept

from .conftest import REPOSITORY, module

# Ansible ships a role's module_utils next to its own: imitate that.
ansible.module_utils.__path__.append(str(REPOSITORY / "roles/host_tuning/module_utils"))

from ansible.module_utils import host_tuning_settings as kinds  # noqa: E402 - after the line above

tuning = module("host_tuning", "host_tuning")
SETTINGS = tuning.settings_for("0")
CPUIDLE = "sys/devices/system/cpu/cpu{}/cpuidle/state{}/{}"

FILES = {
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "performance",
    "sys/devices/system/cpu/intel_pstate/no_turbo": "0",
    "sys/kernel/mm/transparent_hugepage/enabled": "[always] madvise never",
    "proc/sys/kernel/randomize_va_space": "2",
    "proc/sys/vm/swappiness": "60",
    "sys/kernel/mm/ksm/run": "1",
    # POLL, C1, C1E and C6 of two CPUs; C6 of CPU 1 is turned off already.
    **{
        CPUIDLE.format(cpu, state, file): value
        for cpu in (0, 1)
        for state, latency in enumerate((0, 2, 10, 133))
        for file, value in (
            ("latency", str(latency)),
            ("disable", str(int((cpu, state) == (1, 3)))),
        )
    },
    "proc/irq/default_smp_affinity": "f,ffffffff",
    "proc/irq/0/smp_affinity_list": "0",
    "proc/irq/24/smp_affinity_list": "0-35",
    "proc/irq/24/eth0/name": "",
    "proc/irq/131/smp_affinity_list": "32-35",
    "proc/irq/131/nvme0q3/name": "",
}
TUNED = {
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance",
    "sys/devices/system/cpu/intel_pstate/no_turbo": "1",
    "sys/kernel/mm/transparent_hugepage/enabled": "madvise",
    "proc/sys/vm/swappiness": "1",
    "sys/kernel/mm/ksm/run": "0",
    CPUIDLE.format(0, 2, "disable"): "1",
    CPUIDLE.format(0, 3, "disable"): "1",
    CPUIDLE.format(1, 2, "disable"): "1",
    "proc/irq/default_smp_affinity": "0",
    "proc/irq/24/smp_affinity_list": "0",
    "proc/irq/131/smp_affinity_list": "0",
}


@pytest.fixture
def host(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "host" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return tmp_path / "host"


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    return tmp_path / "state" / "tuning.json"


def refusing(errors: Mapping[str, int]) -> Callable[[Path, str], None]:
    """Return a function that writes files, and fails for some as the kernel would."""

    def write(path: Path, text: str) -> None:
        for place, error in errors.items():
            if path.match(place):
                raise OSError(error, os.strerror(error))
        path.write_text(text)

    return write


def values(host: Path) -> dict[str, str]:
    return {place: value for setting in SETTINGS for place, value in setting.read(host).items()}


def test_settings_are_set_and_restored(host: Path, snapshot: Path) -> None:
    before = values(host)
    assert tuning.tune(host, snapshot, SETTINGS) is True
    assert values(host) == before | TUNED
    assert tuning.restore(host, snapshot, SETTINGS) is True
    assert values(host) == before
    assert not snapshot.exists()


def test_a_second_call_changes_nothing(host: Path, snapshot: Path) -> None:
    tuning.tune(host, snapshot, SETTINGS)
    assert tuning.tune(host, snapshot, SETTINGS) is False
    tuning.restore(host, snapshot, SETTINGS)
    assert tuning.restore(host, snapshot, SETTINGS) is False


def test_after_a_crash_the_first_values_are_restored(host: Path, snapshot: Path) -> None:
    before = values(host)
    tuning.tune(host, snapshot, SETTINGS)
    # The sweep was killed, and another program changed a value before the next sweep.
    (host / "proc/sys/vm/swappiness").write_text("30\n")
    tuning.tune(host, snapshot, SETTINGS)
    tuning.restore(host, snapshot, SETTINGS)
    assert values(host) == before


def test_a_crash_before_the_first_change_leaves_a_good_snapshot(
    host: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = values(host)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tuning, "_set", killed)
        with pytest.raises(KeyboardInterrupt):
            tuning.tune(host, snapshot, SETTINGS)
    assert json.loads(snapshot.read_text())["values"]["governor"] == {
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave"
    }
    tuning.restore(host, snapshot, SETTINGS)
    assert values(host) == before


def test_a_setting_that_does_not_take_its_value_is_named_and_the_snapshot_stays(
    host: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinds.Files, "write", lambda *_: {})
    with pytest.raises(tuning.TuningError, match="scaling_governor is powersave, performance need"):
        tuning.tune(host, snapshot, SETTINGS)
    assert snapshot.exists()


def test_a_snapshot_of_another_boot_is_removed_and_nothing_restored(
    host: Path, snapshot: Path
) -> None:
    tuning.tune(host, snapshot, SETTINGS)
    tuned = values(host)
    snapshot.write_text(json.dumps(json.loads(snapshot.read_text()) | {"boot": "another"}))
    assert tuning.restore(host, snapshot, SETTINGS) is False
    assert values(host) == tuned
    assert not snapshot.exists()


def test_the_governor_of_an_offline_cpu_stays_in_the_snapshot(host: Path, snapshot: Path) -> None:
    tuning.tune(host, snapshot, SETTINGS)
    governor = host / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    governor.rename(host / "offline")
    with pytest.raises(tuning.TuningError, match="bring its CPU online, or remove"):
        tuning.restore(host, snapshot, SETTINGS)
    # Everything else is restored, and the snapshot stays for the governor.
    assert (host / "proc/sys/vm/swappiness").read_text() == "60\n" and snapshot.exists()
    (host / "offline").rename(governor)
    tuning.restore(host, snapshot, SETTINGS)
    assert governor.read_text() == "powersave\n"


def test_an_offline_cpu_whose_governor_fails_with_ebusy_is_handled(
    host: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Since Linux 4.3 the governor's file stays when a CPU goes offline."""
    tuning.tune(host, snapshot, SETTINGS)
    offline = host / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    real = Path.read_text

    def busy(path: Path, *args: Any, **named: Any) -> str:
        if path == offline:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return real(path, *args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", busy)
        (row,) = (row for row in tuning.show(host, SETTINGS) if row.name == "governor")
        assert row.available and row.value == "performance"
        with pytest.raises(tuning.TuningError, match="bring its CPU online, or remove"):
            tuning.restore(host, snapshot, SETTINGS)
    assert (host / "proc/sys/vm/swappiness").read_text() == "60\n" and snapshot.exists()
    assert tuning.restore(host, snapshot, SETTINGS) is True


def test_a_setting_that_cannot_be_restored_does_not_block_the_others(
    host: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For any failure, such as a daemon that does not answer or an unreadable file."""
    tuning.tune(host, snapshot, SETTINGS)

    def failing(*_: Any) -> set[str]:
        raise subprocess.TimeoutExpired(["systemctl", "show"], 100)

    with monkeypatch.context() as patch:
        patch.setattr(kinds.Interrupts, "gone", failing)
        with pytest.raises(tuning.TuningError, match=r"interrupts: .*timed out after 100"):
            tuning.restore(host, snapshot, SETTINGS)
    assert (host / "proc/sys/vm/swappiness").read_text() == "60\n" and snapshot.exists()
    assert tuning.restore(host, snapshot, SETTINGS) is True


def test_settings_that_the_host_lacks_are_not_available(tmp_path: Path) -> None:
    rows = tuning.show(tmp_path, SETTINGS)
    assert [row.available for row in rows] == [False] * len(SETTINGS)
    assert {row.reason for row in rows[1:]} == {"this host or its kernel does not have it"}
    assert "the init is no process 1, not systemd" in rows[0].reason
    assert tuning.tune(tmp_path, tmp_path / "none.json", SETTINGS) is False
    assert not (tmp_path / "none.json").exists()


def test_an_interrupt_that_cannot_be_moved_is_exempt_and_no_error(
    host: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = values(host)
    managed = "proc/irq/131/smp_affinity_list"
    monkeypatch.setattr(kinds, "_write", refusing({managed: errno.EIO}))
    assert tuning.tune(host, snapshot, SETTINGS) is True
    assert values(host) == before | TUNED | {managed: "32-35"}
    (row,) = (
        row
        for row in tuning.show(host, SETTINGS, kept(snapshot)[tuning.REFUSED])
        if row.name == "interrupts"
    )
    assert row.value == row.wanted == "0"
    (exemption,) = row.exempt
    assert "131 (nvme0q3)" in exemption and "its driver manages it" in exemption
    # It is not tried again, and not restored.
    assert tuning.tune(host, snapshot, SETTINGS) is False
    assert tuning.restore(host, snapshot, SETTINGS) is True
    assert values(host) == before and not snapshot.exists()


def test_an_interrupt_that_cannot_be_moved_for_another_reason_is_an_error(
    host: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinds, "_write", refusing({"proc/irq/24/smp_affinity_list": errno.EROFS}))
    with pytest.raises(tuning.TuningError, match=r"interrupts: .*Read-only file"):
        tuning.tune(host, snapshot, SETTINGS)


def test_an_interrupt_on_a_measured_cpu_is_shown(host: Path, snapshot: Path) -> None:
    tuning.tune(host, snapshot, SETTINGS)
    (host / "proc/irq/24/smp_affinity_list").write_text("7\n")
    (row,) = (row for row in tuning.show(host, SETTINGS) if row.name == "interrupts")
    assert row.value != row.wanted
    assert row.value == "1 of 4 elsewhere: 24 on CPUs 7"


def test_interrupts_of_a_removed_device_are_not_restored(host: Path, snapshot: Path) -> None:
    tuning.tune(host, snapshot, SETTINGS)
    shutil.rmtree(host / "proc/irq/24")
    assert tuning.restore(host, snapshot, SETTINGS) is True
    assert not (host / "proc/irq/24").exists()
    assert (host / "proc/irq/131/smp_affinity_list").read_text() == "32-35\n"


def test_before_a_sweep_the_cpus_of_interrupts_are_shown(host: Path) -> None:
    (row,) = (row for row in tuning.show(host, tuning.SETTINGS) if row.name == "interrupts")
    assert row.value == "on CPUs 0-35" and row.wanted == "the housekeeping CPUs of a sweep"
    assert encode(row)["exempt"] == []


@pytest.mark.parametrize(
    ("cpus", "mask"),
    [([0], "00000001"), ([0, 1, 32], "00000001,00000003"), ([64], "00000001,00000000,00000000")],
)
def test_masks_have_words_of_32_bits(cpus: list[int], mask: str) -> None:
    assert kinds._mask(cpus) == mask
    assert kinds._of_mask(mask) == cpus
