"""A trial's command line for the harness, its request for the roles, and its row in the design."""

from __future__ import annotations

from dataclasses import replace

import pytest

from virtbed.design import design
from virtbed.plan import Plan
from virtbed.trial import Trial, isa_needed
from virtbed_contract.kernel.isa import TCG_ISA
from virtbed_workloads.__main__ import _parser

from .conftest import PLATFORMS, report


@pytest.fixture
def trial(plan: Plan) -> Trial:
    return next(t for t in design(plan, report(), PLATFORMS).trials if t.instance.platform == "cn")


def test_the_harness_parses_a_trials_arguments(trial: Trial) -> None:
    """With its own parser: a trial's arguments, and those of a trial with every optional one."""
    parsed = _parser().parse_args([*trial.argv(7)])
    assert (parsed.application, parsed.scale, parsed.seed) == ("image_classification", "trained", 7)
    assert (parsed.samples, parsed.threads, parsed.slowdown) == (6, "default", 0.0)
    whole = replace(
        trial, scenario="server", target_qps=2.5, target_latency_ms=80.0, slowdown=0.1,
        factors={**trial.factors, "thread_policy": "matched"},
    )  # fmt: skip
    parsed = _parser().parse_args([*whole.argv(7)])
    assert (parsed.scenario, parsed.target_qps, parsed.target_latency_ms) == ("server", 2.5, 80.0)
    assert (parsed.slowdown, parsed.threads) == (0.1, "matched")


def test_a_request_has_the_settings_that_the_roles_confirm(trial: Trial) -> None:
    parsed = trial.request(7, report())
    assert (parsed.id, parsed.argv) == (trial.id, trial.argv(7))
    assert (parsed.thread_policy, parsed.huge_pages) == ("default", "kernel")
    assert parsed.timeout_s == trial.timeout_s


def test_a_trial_must_see_the_hosts_extensions_or_those_that_tcg_emulates(trial: Trial) -> None:
    assert isa_needed(report(), trial) == ("avx", "avx512f")  # of avx, avx512f and x
    emulated = replace(trial, instance=replace(trial.instance, accelerator="tcg"))
    assert "avx512f" not in TCG_ISA
    assert isa_needed(report(), emulated) == ("avx",)
    sandboxed = replace(trial, instance=replace(trial.instance, private_kernel=True))
    assert isa_needed(report(), sandboxed) == ()


def test_a_trial_is_emulated_if_its_guest_or_its_host_is(trial: Trial) -> None:
    assert not trial.emulated
    for changes in ({"accelerator": "tcg"}, {"host_emulated": True}):
        assert replace(trial, instance=replace(trial.instance, **changes)).emulated


def test_the_design_lists_a_trial_with_each_factor(trial: Trial) -> None:
    planned = trial.planned()
    assert {name: getattr(planned, name) for name in trial.factors} == trial.factors
    assert (planned.id, planned.platform, planned.mode) == (trial.id, "cn", trial.instance.mode)
