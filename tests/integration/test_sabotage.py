"""Changes during a sweep on real engines are detected and named with the value found."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from virtbed.checkout import REPOSITORY

from .conftest import NOTHING, NULL, TIED, idles, read, run, sweep_with_change, traces

VIRSH = "virsh -c qemu:///system "


@pytest.fixture
def throttled() -> Iterator[Path]:
    """Make a control group with a quota of 0.9 CPUs."""
    first = Path("/sys/fs/cgroup/cpu")
    group = (first if first.is_dir() else first.parent) / "throttled-by-a-test"
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
    """A service or session with CPUQuota slows bare metal, but not Docker's containers."""
    plan, folder = write_plan("quota")
    enter = f"echo $$ > {throttled}/cgroup.procs && exec virtbed sweep {plan}"
    done = run("bash", "-c", enter, ok=False)
    assert done.returncode == 1, done.stdout + done.stderr
    trial = folder / "trials" / "bm-pinned-c01-image_classification-r01"
    assert not (trial / "result.json").exists()
    assert "quota 0.9 CPUs found" in " ".join(read(trial / "failure.json")["message"].split())
    assert traces() == NOTHING


# Two more instances, cn-vanilla-c01-r03 and -r04, are not changed, and so must be attested.
CHANGED_CONTAINERS: dict[str, tuple[str, dict[str, Any]]] = {
    "cn-pinned-c01-r01": ("--cpuset-cpus=0", {"cpuset": "0"}),
    "cn-pinned-c01-r02": ("--cpus=0.9", {"cpuset": "1", "quota_cpus": 0.9}),  # throttled
    "cn-pinned-c01-r03": ("--memory-swap=8g", {"cpuset": "1", "swap_limit": "4096 MiB"}),
    "cn-pinned-c01-r04": ("--pids-limit=-1", {"pids_max": None}),
    "cn-vanilla-c01-r01": ("--cpu-quota=150000", {"quota_cpus": 1.5}),
    "cn-vanilla-c01-r02": (
        "--cpu-period=50000 --cpu-quota=50000",
        {"quota_cpus": 1.0, "quota_times": "period 50000 us, burst 0 us"},
    ),
}


def test_containers_changed_during_the_sweep_fail_their_trials(write_plan: Any) -> None:
    modes = ["vanilla", "pinned"]
    plan, folder = write_plan("container", **NULL, platforms={"cn": modes}, replicates=4)
    # Docker changes the limits as soon as the container idles, long before the trial starts.
    names = {instance: f"virtbed-{instance}" for instance in CHANGED_CONTAINERS}
    done = sweep_with_change(plan, *(
        f"{idles('docker', names[instance])} && docker update {change} {names[instance]}"
        for instance, (change, _) in CHANGED_CONTAINERS.items()
    ))  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    trials = {path.name.replace("-null", ""): path for path in folder.glob("trials/*")}
    report = (folder / "report.html").read_text()
    for instance, (_, found) in CHANGED_CONTAINERS.items():
        trial = trials.pop(instance)
        assert not (trial / "result.json").exists()
        message = read(trial / "failure.json")["message"]
        assert "docker update" in message
        evidence = read(trial / "evidence.json")
        assert evidence["attested"] is False
        assert evidence["mismatches"] == [message]
        assert evidence["before"]["enclosure"].items() >= found.items(), instance
        assert trial.name in report
    assert "docker update" in report
    assert all(read(trial / "evidence.json")["attested"] for trial in trials.values())
    assert set(trials) == {"cn-vanilla-c01-r03", "cn-vanilla-c01-r04"}
    assert traces() == NOTHING


@contextmanager
def repeatedly(command: str) -> Iterator[None]:
    """Run a shell command every two seconds, whether it succeeds or not."""
    loop = f"while :; do {{ {command}; }} >/dev/null 2>&1; sleep 2; done"
    process = subprocess.Popen([*TIED, "bash", "-c", loop], start_new_session=True)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_container_moved_and_moved_back_while_it_measures_fails_the_trial(
    write_plan: Any,
) -> None:
    application = {"name": "image_classification", "scale": "trained", "samples": 500}
    plan, folder = write_plan("moved", applications=[application], platforms={"cn": ["pinned"]})
    update = "docker update virtbed-cn-pinned-c01-r01 --cpuset-cpus"
    with repeatedly(f"{update} 0; sleep 0.7; {update} 1"):
        done = run("virtbed", "sweep", plan, ok=False)
    assert done.returncode == 1, done.stdout + done.stderr
    trial = folder / "trials" / "cn-pinned-c01-image_classification-r01"
    assert not (trial / "result.json").exists()
    message = " ".join(read(trial / "failure.json")["message"].split())
    # If another reading or the start falls into the moment of the move, that is detected as well.
    assert re.search(r"CPUs outside of its affinity: \[\d\]", message) or "docker update" in message
    assert traces() == NOTHING


def test_guests_changed_during_the_sweep_fail_their_trials(write_plan: Any) -> None:
    """The third is moved and moved back again and again, while it measures."""
    names = [f"vm-pinned-c01-r{replicate:02}" for replicate in (1, 2, 3)]
    samples = 1000  # several seconds
    plan, folder = write_plan(
        "guest", **NULL, platforms={"vm": ["pinned"]}, replicates=3,
        emulated={"replicates": 3, "scale": "tiny", "samples": samples, "warmup": 1},
    )  # fmt: skip
    pin = f"{VIRSH}vcpupin virtbed-{names[2]} 0"
    with repeatedly(f"{pin} 0; {pin} 1"):
        done = sweep_with_change(
            plan,
            f"{VIRSH}vcpupin virtbed-{names[0]} 0 0-1",
            f"{VIRSH}schedinfo virtbed-{names[1]} vcpu_quota=90000",
        )
    assert done.returncode == 1, done.stdout + done.stderr
    reasons = (
        "is pinned to 0-1.*virsh vcpupin|virsh vcpupin.*is pinned to 0-1",
        "CPU quotas.*virsh schedinfo|virsh schedinfo.*CPU quotas",
        "was moved to another CPU|is pinned to 0",
    )
    for name, reason in zip(names, reasons, strict=True):
        trial = folder / "trials" / name.replace("c01-", "c01-null-")
        assert not (trial / "result.json").exists()
        assert re.search(reason, " ".join(read(trial / "failure.json")["message"].split())), name
    assert traces() == NOTHING


KSM = Path("/sys/kernel/mm/ksm/run")


def test_a_setting_and_a_message_of_the_kernel_make_the_trial_suspect(write_plan: Any) -> None:
    """Both happen while the application runs, between the two readings of the host's kernel."""
    plan, folder = write_plan("host")
    # With -q and -s, grep succeeds even if another process ended before it was read.
    runs = "grep -qsxz VIRTBED_INSTANCE=bm-pinned-c01-r01 /proc/[0-9]*/environ"
    try:
        done = sweep_with_change(plan, f"{runs} && echo of-a-test > /dev/kmsg && echo 1 > {KSM}")
    finally:
        KSM.write_text("0")
    assert done.returncode == 0, done.stdout + done.stderr
    trial = folder / "trials" / "bm-pinned-c01-image_classification-r01"
    assert read(trial / "result.json")["bench"]["settings"]["ksm"] == "off"
    (row,) = read(folder / "report.json")["suspect"]
    suspicions = "; ".join(row["suspicions"])
    assert "kernel messages: 1 new, at most 0 expected (last: of-a-test)" in suspicions
    assert "(merging of equal pages (KSM) off before, on after)" in suspicions
    explained = run("virtbed", "attest", str(trial)).stdout
    assert "SUSPECT: changed settings: 1 of the kernel" in " ".join(explained.split())


@pytest.fixture
def busy() -> Iterator[None]:
    """Keep CPU 1 busy, on which a pinned instance of 1 core runs here."""
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
    assert result["confounders"]["others_share"] > 0.2  # the scheduler gives each about half
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
    assert "thread policy default" in message and "matched needed" in message


def test_a_guest_without_avx2_fails_the_trial(write_plan: Any, tmp_path: Path) -> None:
    plan, folder = write_plan("avx2", **NULL, platforms={"vm": ["pinned"]})
    inventory = tmp_path / "inventory"
    shutil.copytree(REPOSITORY / "inventory" / "local", inventory)
    with (inventory / "group_vars" / "all.yml").open("a") as file:
        file.write("machine_guest_hidden_cpu_features: [avx2]\n")
    done = run("virtbed", "sweep", plan, "--inventory", str(inventory), ok=False)
    assert done.returncode == 1, done.stdout + done.stderr
    trial = folder / "trials" / "vm-pinned-c01-null-r01"
    assert not (trial / "result.json").exists()
    message = " ".join(read(trial / "failure.json")["message"].split())
    assert "avx2 hidden from the application" in message
    assert "avx2" not in read(trial / "evidence.json")["inside"]["isa"]
    explained = run("virtbed", "attest", str(trial), ok=False)
    assert explained.returncode == 1
    assert "NOT attested" in explained.stdout
    assert traces() == NOTHING
