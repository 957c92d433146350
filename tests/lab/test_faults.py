"""Faults that need systemd, a clock of the host's own or a reboot: named, and then resumed."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from virtbed.lab import LabError
from virtbed.lab.server import BOOT_S, Server

from ..commands import run
from .benches import bench_host, read
from .sweeps import WritePlan, failures, inodes, traces
from .sweeps import write_plan as write_plan

pytestmark = pytest.mark.full
# Long enough for a fault to happen in the middle of a trial.
LONG: dict[str, Any] = {
    "applications": [{"name": "null", "scale": "tiny", "samples": 4000, "warmup": 1}],
    "emulated": {"scale": "tiny", "samples": 4000, "warmup": 1},
    "timeout_s": 600,
}
# The condition of each fault: the application runs in the instance. The brackets keep pgrep from
# finding its own shell.
MEASURES = "pgrep -f '[v]irtbed_workloads null'"


@dataclass(frozen=True)
class Fault:
    """One fault: what it is, and what the sweep must say of it.

    Attributes:
        platform: The platform in whose trial it happens, once the application runs.
        what: A shell command on the bench host that causes it.
        reason: A regular expression that the sweep's output or a failure's message must match.
        harmless: Whether the trial may be done nevertheless.
        stops_daemons: Whether the set-up must start the daemons again.
    """

    platform: str
    what: str
    reason: str
    harmless: bool = False
    stops_daemons: bool = False


FAULTS = {
    "clock an hour ahead": Fault("bm", "date --set='+1 hour'", "", harmless=True),
    "clock an hour behind": Fault("cn", "date --set='-1 hour'", "", harmless=True),
    "dockerd restarted": Fault("cn", "systemctl restart docker", "", harmless=True),
    "containerd restarted": Fault("cn", "systemctl restart containerd", "", harmless=True),
    "dockerd killed": Fault("cn", "systemctl kill --signal=KILL docker", "", harmless=True),
    "rebooted": Fault(
        "cn", "systemctl reboot --force", "unreachable|rebooted|boot id", stops_daemons=True
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named_and_the_next_call_finishes(
    server: Callable[..., Server], write_plan: WritePlan, fault: Fault
) -> None:
    """Each trial is done once, with times that no clock's step changed, and nothing is left."""
    lab = bench_host(server, "bookworm")
    platforms = {"bm": ["pinned"], fault.platform: ["pinned"]}
    plan, folder = write_plan("fault", **LONG, platforms=platforms, replicates=2)
    command = ("virtbed", "sweep", plan, "--inventory", str(lab.inventory))
    watcher = subprocess.Popen(
        lab.ssh("sh", "-c", f"until {MEASURES}; do sleep 0.3; done; sleep 1; {fault.what}"),
        stdout=subprocess.DEVNULL,
    )
    try:
        done = run(*command, ok=False)
        assert watcher.poll() is not None, f"it ended before the fault:\n{done.stdout}"
    finally:
        watcher.kill()
        watcher.wait()
    output = done.stdout + done.stderr + failures(folder)
    assert re.search(fault.reason, output), output
    assert fault.harmless or done.returncode != 0, output
    kept = inodes(folder)
    if fault.stops_daemons:
        answers_again(lab)
        run("make", "setup", f"PLAN={plan}", f"INVENTORY={lab.inventory}")
    run(*command)
    after = inodes(folder)
    assert len(after) == 2 * len(platforms)
    assert {trial: after[trial] for trial in kept} == kept
    assert not list(folder.glob("trials/*/failure.json"))
    for trial in folder.glob("trials/*"):
        assert read(trial / "evidence.json")["attested"]
        samples = read(trial / "result.json")["samples"]
        assert 0 < max(sample["e2e_ns"] for sample in samples) < LONG["timeout_s"] * 1e9
    assert traces(lab) == ""


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
