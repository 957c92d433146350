"""The arithmetic and the plan of the benchmark of three hosts over one."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from virtbed.plan import Plan

from ...pages import script


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [*sys.path])
    return script("benchmarks/hosts.py")


def test_the_speed_up_is_the_ratio_of_the_two_sweeps_times(hosts: ModuleType) -> None:
    one = hosts.Row(1, 390.0, [25.0, 35.0] * 6)
    lines = hosts.table(one, hosts.Row(3, 150.0, [30.0] * 12)).splitlines()
    assert lines[4:6] == ["| 1 | 12 | 390 | 30.0 | 32.5 |", "| 3 | 12 | 150 | 30.0 | 37.5 |"]
    assert lines[-1] == "3 hosts over 1: 2.60 times as fast, aim at least 2.5: held"
    slow = hosts.table(one, hosts.Row(3, 160.0, [30.0] * 12))
    assert slow.endswith("3 hosts over 1: 2.44 times as fast, aim at least 2.5: MISSED")


def test_the_plan_has_one_waiting_trial_per_replicate(hosts: ModuleType) -> None:
    plan = Plan.model_validate(hosts.plan(15, 30))
    assert plan.most_trials() == 15
    (work,) = plan.applications
    assert (work.name, work.samples, work.target_qps) == ("null", 30, 1)
