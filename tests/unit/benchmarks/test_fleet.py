"""The benchmark of the controller, with few hosts."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from virtbed.checkout import REPOSITORY

from ...pages import script


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(REPOSITORY)  # as the Makefile's PYTHONPATH does
    monkeypatch.chdir(tmp_path)
    return script("benchmarks/fleet.py")


def test_every_trial_of_the_simulated_hosts_is_recorded(fleet: ModuleType) -> None:
    row = fleet.measure(3)
    assert (row["hosts"], row["trials"]) == (3, 18)
    assert row["cpu_s_per_host"] == pytest.approx(row["cpu_ms_per_trial"] * 6 / 1000)
    assert row["writes_per_s"] > 0 and row["peak_mib"] > 0


def test_two_sizes_are_compared(fleet: ModuleType) -> None:
    few = {"hosts": 3, "cpu_ms_per_trial": 8.0, "peak_mib": 60.0, "writes_per_s": 4000.0}
    many = {"hosts": 300, "cpu_ms_per_trial": 10.0, "peak_mib": 357.0, "writes_per_s": 3000.0}
    assert fleet.compared(few, many) == (
        "300 hosts over 3: 1.25 times the CPU time per trial, 0.75 times the ledger's writes per "
        "second, 1,024 KiB more memory per host."
    )
