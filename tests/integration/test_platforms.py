"""All four platforms for real: one trial in each, attested, and nothing left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from virtbed_workloads.registry import APPLICATIONS
from virtbed_workloads.schema import result_schema

from .conftest import NOTHING, read, run, traces


def test_every_application_gives_the_same_answers_on_four_platforms(write_plan: Any) -> None:
    """And every trial is attested, and nothing is left behind."""
    names = [name for name, entry in APPLICATIONS.items() if not entry.hidden]
    plan, folder = write_plan(
        "platforms",
        platforms={
            "bm": ["pinned"],
            "cn": ["vanilla", "pinned"],
            "vm": ["pinned"],
            "vmcn": ["vanilla"],
        },
        applications=[{"name": name, "scale": "tiny", "samples": 2, "warmup": 1} for name in names],
    )
    done = run("virtbed", "sweep", plan)
    assert traces() == NOTHING
    results = {p.parent.name: read(p) for p in (folder / "trials").glob("*/result.json")}
    assert sorted(results) == sorted(
        f"{cell}-c01-{name}-r01"
        for cell in ("bm-pinned", "cn-pinned", "cn-vanilla", "vm-pinned", "vmcn-vanilla")
        for name in names
    )
    assert "[25/25]" in done.stdout
    accelerator = read(folder / "design.json")["accelerator"]
    for name, result in results.items():
        jsonschema.validate(result, result_schema())
        evidence = read(folder / "trials" / name / "evidence.json")
        assert evidence["attested"] is True
        assert evidence["before"]["enclosure"] and evidence["after"]["enclosure"]
        guest = result["trial"]["machine"] == "kvm"
        assert result["trial"]["accelerator"] == (accelerator if guest else "none")
        assert result["trial"]["emulated"] == (guest and accelerator == "tcg")
        assert result["answers"]["checked"] == len(result["samples"])
        assert result["startup"]["spawn_ns"] > 0
    answers = {(r["trial"]["application"], r["answers"]["digest"]) for r in results.values()}
    assert sorted(name for name, _ in answers) == sorted(names)
    inside = {
        name.split("-c01")[0]: result["environment"]
        for name, result in results.items()
        if result["trial"]["application"] == "image_classification"
    }
    assert inside["bm-pinned"]["affinity"] == inside["cn-pinned"]["affinity"]
    assert len(inside["bm-pinned"]["affinity"]) == 1
    assert inside["bm-pinned"]["memory_policy"].startswith("bind:")
    assert inside["cn-vanilla"]["cgroup"]["quota_cpus"] == 1.0
    assert inside["vm-pinned"]["cpus_visible"] == inside["vmcn-vanilla"]["cpus_visible"] == 1
    pinned = read(folder / "trials" / "vm-pinned-c01-image_classification-r01" / "evidence.json")
    (thread,) = pinned["after"]["machine"]["vcpu_threads"]
    assert thread["cpus_allowed_list"] == pinned["asked"]["cpus"]
    report = read(folder / "report.json")
    assert report["answers_differ"] == []
    shown = {(c["platform"], "ratio" in c) for c in report["emulated"]}
    assert shown == ({("vm", False), ("vmcn", False)} if accelerator == "tcg" else set())


@pytest.fixture
def throttled() -> Iterator[Path]:
    """A control group of this test's own with a quota of 0.9 CPUs."""
    first = Path("/sys/fs/cgroup/cpu")
    group = (first if first.is_dir() else first.parent) / "virtbed-test"
    group.mkdir()
    try:
        if first.is_dir():
            (group / "cpu.cfs_quota_us").write_text("90000")
        else:
            (group / "cpu.max").write_text("90000 100000")
        yield group
    finally:
        group.rmdir()


def test_a_baseline_under_a_quota_is_refused(write_plan: Any, throttled: Path) -> None:
    """A service or session with CPUQuota slows bare metal, and not Docker's containers."""
    plan, folder = write_plan("quota")
    enter = f"echo $$ > {throttled}/cgroup.procs && exec virtbed sweep {plan}"
    done = run("bash", "-c", enter, ok=False)
    assert done.returncode == 1, done.stdout + done.stderr
    trial = folder / "trials" / "bm-pinned-c01-image_classification-r01"
    assert not (trial / "result.json").exists()
    assert "quota 0.9 CPUs found" in " ".join(read(trial / "failure.json")["message"].split())
    assert traces() == NOTHING


@pytest.mark.parametrize("mode", ["pinned", "vanilla"])
def test_a_container_changed_behind_our_back_fails_the_trial(write_plan: Any, mode: str) -> None:
    plan, folder = write_plan(f"sabotage-{mode}", platforms={"cn": [mode]})
    # Docker changes the limits as soon as the container is there, long before the trial begins.
    change = "--cpuset-cpus=0" if mode == "pinned" else "--cpus=1.5"
    watcher = (
        f"for i in $(seq 600); do docker update {change} virtbed-cn-{mode}-c01-r01 && exit; "
        "sleep 0.05; done 2>/dev/null; exit 1"
    )
    done = run(
        "bash", "-c", f"({watcher}) & virtbed sweep {plan}; s=$?; wait $!; exit $s", ok=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    trial = folder / "trials" / f"cn-{mode}-c01-image_classification-r01"
    assert not (trial / "result.json").exists()
    message = read(trial / "failure.json")["message"]
    assert "docker update" in message
    evidence = read(trial / "evidence.json")
    assert evidence["attested"] is False
    assert evidence["mismatches"] == [message]
    found = evidence["before"]["enclosure"]
    assert (found["cpuset"] == "0") if mode == "pinned" else (found["quota_cpus"] == 1.5)
    assert traces() == NOTHING
    report = (folder / "report.html").read_text()
    assert trial.name in report
    assert "docker update" in report
