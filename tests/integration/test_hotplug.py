"""Bare metal scaled by taking CPUs of this host offline, while Docker and libvirt run."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from virtbed.checkout import REPOSITORY

from .conftest import ENVIRONMENT, NOTHING, NULL, TOOLS, read, run, traces

ONLINE = Path("/sys/devices/system/cpu/online")


def cpusets() -> dict[str, str]:
    """Return every cpuset of the host's control groups, of v1, v2 or both."""
    files = sorted(Path("/sys/fs/cgroup").rglob("cpuset.cpus"))
    return {str(path): path.read_text().strip() for path in files}


@pytest.fixture
def other_container() -> Iterator[str]:
    """Run a container that does not belong to virtbed, and must not be affected."""
    image = run("docker", "images", "--quiet", "virtbed/rootfs").stdout.split()[0]
    options = ("--detach", "--name", "not-ours", "--network", "none")
    try:
        run("docker", "run", *options, image, "sleep", "infinity")
        yield "not-ours"
    finally:
        run("docker", "rm", "--force", "not-ours")


def test_cpusets_are_restored_after_cpus_were_offline(
    write_plan: Any, other_container: str
) -> None:
    plan, folder = write_plan("hotplug", scale_up="hotplug", platforms={"bm": ["vanilla"]})
    online = ONLINE.read_text()
    before = cpusets()
    assert any("docker" in name for name in before)
    run("virtbed", "sweep", plan)
    assert ONLINE.read_text() == online
    assert cpusets() == before
    run("docker", "exec", other_container, "true")
    result = read(folder / "trials" / "bm-vanilla-c01-image_classification-r01" / "result.json")
    assert result["environment"]["affinity"] == [0]
    assert result["environment"]["threads"]["usable_cores"] == 1
    # A container and a guest start as before.
    both, _ = write_plan("after", **NULL, platforms={"cn": ["pinned"], "vm": ["pinned"]})
    run("virtbed", "sweep", both)
    assert traces() == NOTHING


def test_cpus_that_a_killed_sweep_left_offline_are_online_after_the_next(write_plan: Any) -> None:
    plan, _ = write_plan("unplugged", scale_up="hotplug", platforms={"bm": ["vanilla"]})
    online, before = ONLINE.read_text(), cpusets()
    sweep = subprocess.Popen(
        [TOOLS / "virtbed", "sweep", plan], cwd=REPOSITORY, env=ENVIRONMENT,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while ONLINE.read_text() == online:
        assert sweep.poll() is None and time.monotonic() < deadline, "never offline"
        time.sleep(0.1)
    sweep.send_signal(signal.SIGKILL)
    sweep.wait()
    assert "restored what an interrupted sweep" in run("virtbed", "sweep", plan).stdout
    assert ONLINE.read_text() == online
    assert cpusets() == before
    assert traces() == NOTHING
