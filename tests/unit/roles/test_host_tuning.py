"""Tuning a recorded host, and putting it back, whatever comes in between."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import module

tuning = module("host_tuning", "host_tuning")

FILES = {
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "performance",
    "sys/devices/system/cpu/intel_pstate/no_turbo": "0",
    "sys/kernel/mm/transparent_hugepage/enabled": "[always] madvise never",
    "proc/sys/kernel/randomize_va_space": "2",
    "proc/sys/vm/swappiness": "60",
}
TUNED = {
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance",
    "sys/devices/system/cpu/intel_pstate/no_turbo": "1",
    "sys/kernel/mm/transparent_hugepage/enabled": "madvise",
    "proc/sys/vm/swappiness": "1",
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


def values(host: Path) -> dict[str, str]:
    return {
        place: value for setting in tuning.SETTINGS for place, value in setting.read(host).items()
    }


def test_it_sets_what_is_wanted_and_puts_back_what_was(host: Path, snapshot: Path) -> None:
    before = values(host)
    assert tuning.tune(host, snapshot) is True
    assert values(host) == before | TUNED
    assert tuning.restore(host, snapshot) is True
    assert values(host) == before
    assert not snapshot.exists()


def test_it_changes_nothing_twice(host: Path, snapshot: Path) -> None:
    tuning.tune(host, snapshot)
    assert tuning.tune(host, snapshot) is False
    tuning.restore(host, snapshot)
    assert tuning.restore(host, snapshot) is False


def test_after_a_crash_the_first_values_are_put_back(host: Path, snapshot: Path) -> None:
    before = values(host)
    tuning.tune(host, snapshot)
    # Killed, and set anew after somebody changed a value meanwhile.
    (host / "proc/sys/vm/swappiness").write_text("30\n")
    tuning.tune(host, snapshot)
    tuning.restore(host, snapshot)
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
            tuning.tune(host, snapshot)
    assert json.loads(snapshot.read_text())["values"]["swappiness"] == {
        "proc/sys/vm/swappiness": "60"
    }
    tuning.restore(host, snapshot)
    assert values(host) == before


def test_a_setting_that_does_not_take_its_value_is_named_and_the_snapshot_stays(
    host: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning.Files, "write", lambda *_: None)
    with pytest.raises(tuning.TuningError, match="scaling_governor is powersave, performance need"):
        tuning.tune(host, snapshot)
    assert snapshot.exists()


def test_a_snapshot_of_another_boot_is_dropped_and_nothing_put_back(
    host: Path, snapshot: Path
) -> None:
    tuning.tune(host, snapshot)
    tuned = values(host)
    snapshot.write_text(json.dumps(json.loads(snapshot.read_text()) | {"boot": "another"}))
    assert tuning.restore(host, snapshot) is False
    assert values(host) == tuned
    assert not snapshot.exists()


def test_the_governor_of_a_cpu_that_is_offline_is_not_forgotten(host: Path, snapshot: Path) -> None:
    tuning.tune(host, snapshot)
    governor = host / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    governor.rename(host / "offline")
    with pytest.raises(tuning.TuningError, match="bring its CPU online, or remove"):
        tuning.restore(host, snapshot)
    (host / "offline").rename(governor)
    tuning.restore(host, snapshot)
    assert governor.read_text() == "powersave\n"


def test_what_a_host_does_not_have_is_said(tmp_path: Path) -> None:
    rows = tuning.show(tmp_path)
    assert [row["available"] for row in rows] == [False] * len(tuning.SETTINGS)
    assert {row["reason"] for row in rows} == {"this host or its kernel does not have it"}
    assert tuning.tune(tmp_path, tmp_path / "none.json") is False
    assert not (tmp_path / "none.json").exists()
