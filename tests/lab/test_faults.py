"""Faults that need systemd, a clock of the host's own or a reboot: named, and then resumed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from virtbed.lab import LabError
from virtbed.lab.server import BOOT_S, Server

from ..commands import run
from .benches import bench_host, read
from .sweeps import WritePlan, failures, inodes, traces, watched
from .sweeps import write_plan as write_plan

pytestmark = pytest.mark.full
TIMEOUT_S = 600
# Long enough for a fault to happen in the middle of a trial.
LONG: dict[str, Any] = {
    "platforms": {"bm": ["pinned"], "cn": ["pinned"]},
    "applications": [{"name": "null", "scale": "tiny", "samples": 4000, "warmup": 1}],
    "timeout_s": TIMEOUT_S,
}
# By instance: the fault in the middle of its trial, and the reason that its failure needs. A
# container survives that containerd is restarted.
FAULTS = {
    "bm-pinned-c01-r01": ("date --set='+1 hour'", "the clock was set forward by 3"),
    "bm-pinned-c01-r02": ("date --set='-1 hour'", "the clock was set back by 3"),
    "cn-pinned-c01-r01": ("systemctl restart docker", "SIGKILL"),
    "cn-pinned-c01-r02": ("systemctl restart containerd", ""),
    "cn-pinned-c01-r03": ("systemctl kill --signal=KILL docker", "SIGKILL|daemon"),
}
DONE = "/run/fault-"


def test_a_clock_that_was_set_and_a_dead_daemon_are_named_and_the_next_call_finishes(
    server: Callable[..., Server], write_plan: WritePlan
) -> None:
    lab = bench_host(server, "bookworm")
    plan, folder = write_plan("faults", **LONG, replicates=3)
    command = ("virtbed", "sweep", plan, "--inventory", str(lab.inventory))
    with watched(lab, "faults.sh", {name: fault for name, (fault, _) in FAULTS.items()}):
        first = run(*command, ok=False)
    output = first.stdout + first.stderr + failures(folder)
    happened = lab.shell(f"ls -d {DONE}*").split()
    assert {*happened} >= {DONE + name for name in FAULTS}, output
    for name, (_, reason) in FAULTS.items():
        stem, replicate = name.rsplit("-", 1)
        failure = folder / "trials" / f"{stem}-null-{replicate}" / "failure.json"
        assert not reason or re.search(reason, read(failure)["message"]), output
    assert_finished_by_the_next(command, folder, 6, output)
    assert traces(lab) == ""


def test_a_rebooted_host_is_named_and_the_next_call_finishes(
    server: Callable[..., Server], write_plan: WritePlan
) -> None:
    lab = bench_host(server, "bookworm")
    plan, folder = write_plan("reboot", **LONG)
    command = ("virtbed", "sweep", plan, "--inventory", str(lab.inventory))
    with watched(lab, "faults.sh", {"cn-pinned-c01-r01": "systemctl reboot --force"}):
        first = run(*command, ok=False)
    output = first.stdout + first.stderr + failures(folder)
    assert first.returncode != 0, output
    assert re.search("unreachable|rebooted|boot id", output), output
    answers_again(lab)
    run("make", "setup", f"PLAN={plan}", f"INVENTORY={lab.inventory}")  # the daemons are stopped
    assert_finished_by_the_next(command, folder, 2, output)
    assert traces(lab) == ""


def assert_finished_by_the_next(
    command: tuple[str, ...], folder: Path, trials: int, output: str
) -> None:
    """Sweep again: each trial is then done once, with times that no clock's step changed."""
    kept = inodes(folder)
    run(*command)
    after = inodes(folder)
    assert len(after) == trials, output
    assert {trial: after[trial] for trial in kept} == kept, output
    assert not list(folder.glob("trials/*/failure.json"))
    for trial in folder.glob("trials/*"):
        assert read(trial / "evidence.json")["attested"]
        samples = read(trial / "result.json")["samples"]
        assert 0 < max(sample["e2e_ns"] for sample in samples) < TIMEOUT_S * 1e9


def answers_again(server: Server) -> None:
    """Wait until a server that was rebooted answers by SSH and has booted."""
    deadline = time.monotonic() + BOOT_S
    while True:
        try:
            if server.run("systemctl", "is-system-running", check=False).strip() == "running":
                return
        except LabError as error:
            assert time.monotonic() < deadline, error
        time.sleep(2)
