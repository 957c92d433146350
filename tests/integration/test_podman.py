"""Real Podman: attested in both modes, and a change during a sweep is detected."""

from __future__ import annotations

from typing import Any

from .conftest import NOTHING, idles, read, run, sweep_with_change, traces


def test_both_modes_are_attested_and_give_the_answers_of_bare_metal(attested: Any) -> None:
    found = attested("podman")
    result, evidence = found["vanilla"]
    assert result["environment"]["cgroup"]["quota_cpus"] == 1.0
    assert evidence["before"]["enclosure"]["quota_cpus"] == 1.0
    result, evidence = found["pinned"]
    reading = evidence["after"]["enclosure"]
    assert (
        reading["cpuset"] == evidence["asked"]["cpus"] == result["environment"]["cgroup"]["cpuset"]
    )
    assert reading["runtime"].endswith("crun") and reading["seccomp"] == "filter"
    assert reading["layers"] == [result["trial"]["image_digest"]]


def test_a_container_changed_during_the_sweep_fails_the_trial(write_plan: Any) -> None:
    plan, folder = write_plan("podman-moved", platforms={"podman": ["pinned"]})
    name = "virtbed-podman-pinned-c01-r01"
    change = f"{idles('podman', name)} && podman update --cpuset-cpus 0 {name}"
    done = sweep_with_change(plan, change)
    assert done.returncode == 1, done.stdout + done.stderr
    trial = folder / "trials" / "podman-pinned-c01-image_classification-r01"
    assert not (trial / "result.json").exists()
    assert "something changed the container" in " ".join(
        read(trial / "failure.json")["message"].split()
    )
    assert traces() == NOTHING


def test_the_doctor_reports_podman_as_available() -> None:
    done = run("virtbed", "doctor", "--json", ok=False)
    assert '"platform": "podman",\n   "status": "available"' in done.stdout
