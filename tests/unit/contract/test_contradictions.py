"""`contradictions` finds a label that differs between a result and its evidence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from virtbed_contract.codec import decode
from virtbed_contract.contradictions import contradictions, lasted_ns
from virtbed_contract.sweep import Evidence

from ..analysis.conftest import Folder, sample
from ..analysis.conftest import evidence as evidence_of

Json = dict[str, Any]
Change = Callable[[Json, Json], object]


def made(folder: Folder, platform: str, mode: str, **changes: Any) -> tuple[Json, Json]:
    """Return a result and the evidence of its trial."""
    trial = folder.plan(platform, mode, 1, **changes)
    result = folder.result(trial, [sample("a.png", 10, (0.25, 0.1))])
    return result, evidence_of(result)


def found(result: Json, evidence: Json) -> list[str]:
    return [*contradictions(result, decode(Evidence, evidence))]


@pytest.mark.parametrize("mode", ["vanilla", "pinned"])
@pytest.mark.parametrize("platform", ["bm", "cn", "podman", "gvisor", "vm", "vmcn", "microvm"])
def test_a_correctly_placed_trial_has_no_contradiction(
    folder: Folder, platform: str, mode: str
) -> None:
    assert found(*made(folder, platform, mode)) == []


def both(name: str, key: str, value: object) -> Change:
    """Change a reading before and after the trial."""

    def change(_: Json, evidence: Json) -> None:
        for moment in ("before", "after"):
            part = evidence[moment][name]
            evidence[moment] = {**evidence[moment], name: {**part, key: value}}

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r, _: r["trial"].update(platform="podman"), "is labelled platform 'podman'"),
        (lambda r, _: r["trial"].update(cores=2), "is labelled cores 2, its evidence 1"),
        (lambda r, _: r["trial"].update(emulated=True), "has emulated True, its evidence"),
        (lambda _, e: e.update(trial="other"), "evidence.json is of trial other"),
        (lambda _, e: e.update(attested=False), "its placement was not attested"),
        (lambda _, e: e.update(mismatches=["x"]), "attested, with mismatches: x"),
        (lambda _, e: e["asked"].update(id="cn-pinned-c01-r02"), "of the instance cn-pinned-c01"),
        (lambda _, e: e["asked"].update(image_name="0" * 16), "names the image 0000"),
        (lambda _, e: e["asked"].update(cpu_ids=[]), "pins 1 cores to CPUs"),
        (lambda _, e: e.update(after=None), "no reading of machine and enclosure after"),
        (lambda _, e: e.update(inside=None), "has no reading by the process"),
        (
            lambda r, _: r.update(environment={**r["environment"], "kernel": "5.0"}),
            "its result has kernel '5.0', its evidence '6.1.0'",
        ),
        (both("enclosure", "cpuset", "0-15"), "enclosure read before the trial: cpuset '0-15'"),
        (both("enclosure", "quota_cpus", 0.5), "enclosure read after the trial: quota_cpus 0.5"),
        (both("enclosure", "swap_limit", "2048 MiB"), "swap_limit '2048 MiB' found, '0 MiB' n"),
        (both("enclosure", "layers", ["sha256:0"]), "layers ['sha256:0']"),
        (both("enclosure", "seccomp", "none"), "seccomp_profile filter was requested"),
        (both("machine", "vcpus", 1), "vcpus, which the machine metal does not"),
        (lambda _, e: e.update(process_wall_ns=1), "its process took 0.000 s"),
        (lambda r, _: r.update(bench={"settings": {}}), "bench host's kernel contradicts"),
    ],
)
def test_a_contradiction_is_named(folder: Folder, change: Change, message: str) -> None:
    result, evidence = made(folder, "cn", "pinned")
    change(result, evidence)
    assert any(message in one for one in found(result, evidence)), found(result, evidence)


def test_a_pinned_vcpu_that_was_moved_between_the_readings_is_found(folder: Folder) -> None:
    result, evidence = made(folder, "vm", "pinned")
    (thread,) = evidence["after"]["machine"]["vcpu_threads"]
    after = {**evidence["after"]["machine"], "vcpu_threads": [{**thread, "migrations": 5}]}
    evidence["after"] = {**evidence["after"], "machine": after}
    assert found(result, evidence) == ["vCPU 0 was moved to another CPU 2 times, 0 needed"]


def test_the_duration_of_a_process_is_at_least_that_of_its_parts(folder: Folder) -> None:
    result, _ = made(folder, "bm", "pinned")
    result["startup"] = {"spawn_ns": None, "import_ns": 30, "load_ns": 20}
    result["samples"] = [{"e2e_ns": 5, "warmup": True}, {"e2e_ns": 900, "warmup": False}]
    result["confounders"]["window_ns"] = 1000
    assert lasted_ns(result) == 1055
