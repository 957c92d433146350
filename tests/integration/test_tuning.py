"""Tuning of this host: set during a sweep, restored after it and after a killed sweep."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from virtbed.checkout import REPOSITORY

from .conftest import ENVIRONMENT, TOOLS, read, run

SWAPPINESS = Path("/proc/sys/vm/swappiness")
SNAPSHOT = Path("/var/lib/virtbed/tuning.json")


def interrupts() -> dict[str, str]:
    """Return the CPUs of each interrupt, and the default for new interrupts."""
    files = [*Path("/proc/irq").glob("*/smp_affinity"), Path("/proc/irq/default_smp_affinity")]
    return {str(path): path.read_text() for path in files}


def test_restore_uses_the_snapshot_of_a_killed_sweep_to_restore_the_host(write_plan: Any) -> None:
    plan, folder = write_plan("tuned", tuning=True)
    affinities = interrupts()
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
    assert interrupts() == affinities
    assert not SNAPSHOT.exists()
    assert "nothing to restore" in run("virtbed", "restore").stdout
    # The next sweep clears the killed sweep's instance, and tunes and restores the host itself.
    run("virtbed", "sweep", plan)
    assert interrupts() == affinities
    tuned = {row["name"]: row for row in read(folder / "doctor.json")["tuned"]}
    assert all(row["value"] == row["wanted"] for row in tuned.values() if row["available"])
    # CPU 1 is measured: every interrupt that can be moved is off it, and the others are listed.
    assert tuned["interrupts"]["wanted"] == "0"
    # This machine's init is not systemd, which is the reason here.
    assert "not systemd" in tuned["timers and services"]["reason"]
    assert SWAPPINESS.read_text() == before
