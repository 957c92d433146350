"""What moves behind the testbed's back is caught, on the real thing, and named with its number."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from virtbed.image import REPOSITORY

from .conftest import NOTHING, read, run, traces


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


def test_a_guest_repinned_behind_our_back_fails_the_trial(write_plan: Any) -> None:
    plan, folder = write_plan("repinned", platforms={"vm": ["pinned"]})
    domain = "virtbed-vm-pinned-c01-r01"
    watcher = (
        f"for i in $(seq 1200); do virsh -c qemu:///system vcpupin {domain} 0 0-1 && exit; "
        "sleep 0.05; done >/dev/null 2>&1; exit 1"
    )
    done = run(
        "bash", "-c", f"({watcher}) & virtbed sweep {plan}; s=$?; wait $!; exit $s", ok=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    trial = folder / "trials" / "vm-pinned-c01-image_classification-r01"
    assert not (trial / "result.json").exists()
    message = " ".join(read(trial / "failure.json")["message"].split())
    assert "is pinned to 0-1" in message
    assert "virsh vcpupin" in message
    assert traces() == NOTHING


@pytest.fixture
def busy() -> Iterator[None]:
    """A process that keeps CPU 1 busy, the one on which a pinned instance of 1 core runs here."""
    process = subprocess.Popen(["taskset", "--cpu-list", "1", "sh", "-c", "while :; do :; done"])
    yield
    process.kill()
    process.wait()


@pytest.mark.usefixtures("busy")
def test_a_busy_process_on_a_measured_cpu_makes_the_trial_suspect(write_plan: Any) -> None:
    application = {"name": "image_classification", "scale": "trained", "samples": 60}
    plan, folder = write_plan("busy", applications=[application])
    run("virtbed", "sweep", plan)
    name = "bm-pinned-c01-image_classification-r01"
    result = read(folder / "trials" / name / "result.json")
    assert result["trial"]["cores"] == 1 and result["environment"]["affinity"] == [1]
    assert result["confounders"]["others_share"] > 0.2  # the scheduler shares the CPU in halves
    assert result["confounders"]["ran_on"] == [1]
    report = read(folder / "report.json")
    assert report["counts"]["suspect"] == 1
    (row,) = report["suspect"]
    assert row["trial"] == name
    assert any(s.startswith("other processes: ") for s in row["suspicions"])


def test_a_thread_policy_that_is_not_honoured_fails_the_trial(write_plan: Any) -> None:
    plan, folder = write_plan("unmatched", threads=["matched"])
    script = (
        "import sys; from virtbed.cli import main; from virtbed.design import Trial;"
        "argv = Trial.argv;"
        "Trial.argv = lambda t, seed: [a for a in argv(t, seed) if 'threads' not in a];"
        "sys.argv = ['virtbed', 'sweep', sys.argv[1]]; main()"
    )
    done = run(sys.executable, "-c", script, plan, ok=False)
    assert done.returncode == 1, done.stdout + done.stderr
    trial = folder / "trials" / "bm-pinned-c01-image_classification-matched-r01"
    assert not (trial / "result.json").exists()
    message = " ".join(read(trial / "failure.json")["message"].split())
    assert "thread policy default" in message and "matched asked" in message


def test_a_guest_without_avx2_fails_the_trial(write_plan: Any, tmp_path: Path) -> None:
    plan, folder = write_plan("avx2", platforms={"vm": ["pinned"]})
    inventory = tmp_path / "inventory"
    shutil.copytree(REPOSITORY / "inventory" / "local", inventory)
    with (inventory / "group_vars" / "all.yml").open("a") as file:
        file.write("machine_kvm_hidden_cpu_features: [avx2]\n")
    done = run("virtbed", "sweep", plan, "--inventory", str(inventory), ok=False)
    assert done.returncode == 1, done.stdout + done.stderr
    trial = folder / "trials" / "vm-pinned-c01-image_classification-r01"
    assert not (trial / "result.json").exists()
    message = " ".join(read(trial / "failure.json")["message"].split())
    assert "avx2 hidden from the application" in message
    assert "avx2" not in read(trial / "evidence.json")["inside"]["isa"]
    explained = run("virtbed", "attest", str(trial), ok=False)
    assert explained.returncode == 1
    assert "NOT attested" in explained.stdout
    assert traces() == NOTHING
