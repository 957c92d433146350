"""Tuning this very host: set in a sweep, put back after it, and after one that was killed."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from virtbed.checkout import REPOSITORY

from .conftest import ENVIRONMENT, TOOLS, run

SWAPPINESS = Path("/proc/sys/vm/swappiness")
SNAPSHOT = Path("/var/lib/virtbed/tuning.json")


def test_a_killed_sweep_leaves_a_snapshot_and_restore_puts_the_host_back(write_plan: Any) -> None:
    plan, _ = write_plan("tuned", tuning=True)
    before = SWAPPINESS.read_text()
    assert before.strip() != "1"
    sweep = subprocess.Popen(
        [TOOLS / "virtbed", "sweep", plan], cwd=REPOSITORY, env=ENVIRONMENT,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while SWAPPINESS.read_text().strip() != "1":
        assert sweep.poll() is None and time.monotonic() < deadline, "never tuned"
        time.sleep(0.1)
    sweep.send_signal(signal.SIGKILL)
    sweep.wait()
    assert SNAPSHOT.exists()
    assert "restored" in run("virtbed", "restore").stdout
    assert SWAPPINESS.read_text() == before
    assert not SNAPSHOT.exists()
    assert "nothing to restore" in run("virtbed", "restore").stdout
    # What the killed one left standing is the next one's to clear, which tunes and restores itself.
    run("virtbed", "sweep", plan)
    assert SWAPPINESS.read_text() == before
