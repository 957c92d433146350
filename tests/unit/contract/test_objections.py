"""`objections` gives the reason to distrust a result, and none for a trial as planned."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from virtbed_contract.codec import decode
from virtbed_contract.objections import Planned, completed, objections
from virtbed_contract.sweep import Design, Evidence

from ..analysis.conftest import Folder, evidence, sample

Json = dict[str, Any]
Change = Callable[[Json, Json], object]


def made(folder: Folder, platform: str, mode: str, samples: int = 1, **changes: Any) -> Json:
    """Return a result of a planned trial."""
    trial = folder.plan(platform, mode, 1, **changes)
    return folder.result(trial, [sample("a.png", 10 + n, (0.25, 0.1)) for n in range(samples)])


def planned(folder: Folder) -> Planned:
    return Planned.of(decode(Design, folder.design))


def found(folder: Folder, result: Json, proof: Json | None = None) -> list[str]:
    return objections(result, decode(Evidence, proof or evidence(result)), planned(folder))


@pytest.mark.parametrize("scenario", ["single_stream", "offline", "server"])
@pytest.mark.parametrize("mode", ["vanilla", "pinned"])
@pytest.mark.parametrize(
    ("platform", "emulated"),
    [
        *((name, False) for name in ("bm", "cn", "podman", "gvisor", "vm", "vmcn", "microvm")),
        *((name, True) for name in ("vm", "vmcn", "microvm")),
    ],
)
def test_a_trial_as_planned_has_no_objection(
    folder: Folder, platform: str, mode: str, scenario: str, *, emulated: bool
) -> None:
    result = made(folder, platform, mode, emulated=emulated, scenario=scenario)
    assert found(folder, result) == []
    assert objections(result, decode(Evidence, evidence(result)), None) == []


def test_a_fact_that_is_newer_than_a_result_and_its_evidence_is_no_objection(
    folder: Folder,
) -> None:
    """Otherwise an update of virtbed would reject every earlier result."""
    result = made(folder, "cn", "pinned")
    proof = evidence(result)
    for settings in (result["environment"], proof["inside"]):
        kept = settings["process_settings"].items()
        settings["process_settings"] = {name: fact for name, fact in kept if name != "scheduling"}
    assert found(folder, result, proof) == []


def without_filter(_: Json, proof: Json) -> None:
    for moment in ("before", "after"):
        side = proof[moment]
        proof[moment] = side | {"enclosure": side["enclosure"] | {"seccomp": "none"}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_filter, "before the trial: seccomp_profile filter was requested"),
        (lambda r, _: r["samples"][0].update(pre_ns=1), "but its phases took"),
        (lambda r, _: r["trial"].update(attempt=1.0), "breaks the schema at trial.attempt: 1.0"),
        (lambda r, _: r["trial"].update(replicate=2), "its trial fields give cn-pinned-c01-image"),
        (lambda r, _: r["settings"].update(thread_policy="matched"), "ran with thread_policy 'ma"),
        (lambda r, _: r["settings"].update(seed=1), "has seed 1, but design.json plans 2112"),
        (lambda r, _: r["trial"].update(machine="kvm"), "but design.json plans 'metal'"),
        (lambda r, _: r["trial"].update(plan_digest="sha256:" + "0" * 64), "to another plan: sha"),
    ],
)
def test_an_objection_gives_its_reason(folder: Folder, change: Change, message: str) -> None:
    result = made(folder, "cn", "pinned")
    proof = evidence(result)
    change(result, proof)
    reasons = found(folder, result, proof)
    assert any(message in reason for reason in reasons), reasons


def test_a_trial_that_is_not_planned_is_objected_to(folder: Folder) -> None:
    result = made(folder, "cn", "pinned")
    folder.design["trials"][0]["id"] += "1"
    assert found(folder, result) == ["is not among the trials that design.json plans"]


def test_a_result_may_lack_a_factor_that_is_newer(folder: Folder) -> None:
    result = made(folder, "cn", "pinned")
    proof = evidence(result)
    del result["trial"]["neighbours"]
    assert found(folder, result, proof) == []
    assert completed(result)["trial"]["neighbours"] == "0"
    assert "neighbours" not in result["trial"]


def test_a_result_of_a_quick_trial_is_judged_in_milliseconds(folder: Folder) -> None:
    """A sweep judges each result before its next trial."""
    result = made(folder, "vm", "pinned", samples=60)
    proof, of_design = decode(Evidence, evidence(result)), planned(folder)
    times = []
    for _ in range(5):
        started = time.process_time()
        assert objections(result, proof, of_design) == []
        times.append(time.process_time() - started)
    assert min(times) < 0.05
