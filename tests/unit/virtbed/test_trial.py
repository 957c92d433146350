"""One trial as the harness and the roles are asked for it."""

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


def test_the_harness_understands_what_it_is_asked(trial: Trial) -> None:
    """By its own parser: of this trial, and of one with everything that is left out otherwise."""
    asked = _parser().parse_args([*trial.argv(7)])
    assert (asked.application, asked.scale, asked.seed) == ("image_classification", "trained", 7)
    assert (asked.samples, asked.threads, asked.slowdown) == (6, "default", 0.0)
    whole = replace(
        trial, scenario="server", target_qps=2.5, target_latency_ms=80.0, slowdown=0.1,
        factors={**trial.factors, "thread_policy": "matched"},
    )  # fmt: skip
    asked = _parser().parse_args([*whole.argv(7)])
    assert (asked.scenario, asked.target_qps, asked.target_latency_ms) == ("server", 2.5, 80.0)
    assert (asked.slowdown, asked.threads) == (0.1, "matched")


def test_a_request_names_what_is_to_be_confirmed(trial: Trial) -> None:
    asked = trial.request(7, report())
    assert (asked.id, asked.argv) == (trial.id, trial.argv(7))
    assert (asked.thread_policy, asked.huge_pages) == ("default", "kernel")
    assert asked.timeout_s == trial.timeout_s


def test_an_application_must_see_what_the_host_has_and_an_emulator_can(trial: Trial) -> None:
    assert isa_needed(report(), trial) == ("avx", "avx512f")  # of avx, avx512f and x
    emulated = replace(trial, instance=replace(trial.instance, accelerator="tcg"))
    assert "avx512f" not in TCG_ISA
    assert isa_needed(report(), emulated) == ("avx",)
    sandboxed = replace(trial, instance=replace(trial.instance, private_kernel=True))
    assert isa_needed(report(), sandboxed) == ()


def test_a_trial_is_emulated_with_its_guest_or_with_its_host(trial: Trial) -> None:
    assert not trial.emulated
    for changes in ({"accelerator": "tcg"}, {"host_emulated": True}):
        assert replace(trial, instance=replace(trial.instance, **changes)).emulated


def test_the_design_lists_it_with_each_factor(trial: Trial) -> None:
    planned = trial.planned()
    assert {name: getattr(planned, name) for name in trial.factors} == trial.factors
    assert (planned.id, planned.platform, planned.mode) == (trial.id, "cn", trial.instance.mode)
