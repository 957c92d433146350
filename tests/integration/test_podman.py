"""Podman for real: attested in both modes, and caught when it is changed behind our back."""

from __future__ import annotations

from typing import Any

from .conftest import NOTHING, behind_our_back, idles, read, run, traces


def test_both_modes_are_attested_and_answer_as_bare_metal(attested: Any) -> None:
    found = attested("podman")
    result, evidence = found["vanilla"]
    assert result["environment"]["cgroup"]["quota_cpus"] == 1.0
    assert evidence["before"]["enclosure"]["quota_cpus"] == 1.0
    result, evidence = found["pinned"]
    reading = evidence["after"]["enclosure"]
    assert (
        reading["cpuset"] == evidence["asked"]["cpus"] == result["environment"]["cgroup"]["cpuset"]
    )
    assert reading["runtime"].endswith("crun") and reading["privileges"]["seccomp"] == "filter"
    assert reading["layers"] == [result["trial"]["image_digest"]]


def test_a_container_changed_behind_our_back_fails_the_trial(write_plan: Any) -> None:
    plan, folder = write_plan("podman-moved", platforms={"podman": ["pinned"]})
    name = "virtbed-podman-pinned-c01-r01"
    change = f"{idles('podman', name)} && podman update --cpuset-cpus 0 {name}"
    done = behind_our_back(plan, change)
    assert done.returncode == 1, done.stdout + done.stderr
    trial = folder / "trials" / "podman-pinned-c01-image_classification-r01"
    assert not (trial / "result.json").exists()
    assert "something changed the container" in " ".join(
        read(trial / "failure.json")["message"].split()
    )
    assert traces() == NOTHING


def test_the_doctor_knows_it() -> None:
    done = run("virtbed", "doctor", "--json", ok=False)
    assert '"platform": "podman",\n   "status": "available"' in done.stdout
