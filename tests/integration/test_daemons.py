"""The engines' daemons of this host: kept off the measured CPU in a trial, and freed afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from virtbed.checkout import REPOSITORY

from .conftest import ENVIRONMENT, NOTHING, TOOLS, run, traces

SNAPSHOT = Path("/var/lib/virtbed/daemons.json")


def affinities() -> dict[str, set[int]]:
    """Return the CPUs on which each daemon's main thread may run, by daemon."""
    pids = {name: run("pgrep", "--exact", name).stdout for name in ("dockerd", "libvirtd")}
    return {name: os.sched_getaffinity(int(pid)) for name, pid in pids.items()}


def test_daemons_are_kept_off_the_measured_cpu_and_restored_after_a_kill(
    write_plan: Any,
) -> None:
    application = {"name": "image_classification", "scale": "trained", "samples": 300}
    plan, _ = write_plan("daemons", applications=[application], platforms={"cn": ["pinned"]})
    before = affinities()
    assert all(cpus == {0, 1} for cpus in before.values())
    sweep = subprocess.Popen(
        [TOOLS / "virtbed", "sweep", plan], cwd=REPOSITORY, env=ENVIRONMENT,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not all(cpus == {0} for cpus in affinities().values()):
        assert sweep.poll() is None and time.monotonic() < deadline, "never kept off"
        time.sleep(0.05)
    sweep.send_signal(signal.SIGKILL)
    sweep.wait()
    assert SNAPSHOT.exists()
    assert "restored" in run("virtbed", "restore").stdout
    assert affinities() == before
    # A vanilla container that is made afterwards may run on all CPUs; its attestation checks that.
    vanilla, _ = write_plan("after", platforms={"cn": ["vanilla"]})
    run("virtbed", "sweep", vanilla)
    assert affinities() == before
    assert not SNAPSHOT.exists()
    assert traces() == NOTHING
