"""A stopped daemon that neither answers nor refuses fails its block; the sweep does not hang."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from virtbed.checkout import REPOSITORY

from ..commands import ENVIRONMENT, run
from ..integration.conftest import NOTHING, traces

pytestmark = pytest.mark.usefixtures("as_before")
HUNG_AFTER_S = 25
SWEEP_S = 400  # time limit of a sweep, whatever hangs


@pytest.fixture
def dockerd() -> Iterator[int]:
    """Return the process id of Docker's daemon; continue the daemon after the test."""
    (daemon,) = map(int, run("pgrep", "--exact", "dockerd").stdout.split())
    yield daemon
    os.kill(daemon, signal.SIGCONT)


def sweep(plan: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["virtbed", "sweep", plan, f"--hung-after={HUNG_AFTER_S}"], cwd=REPOSITORY,
        env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def until(path: Path, pattern: str) -> None:
    """Wait until a file of a sweep exists."""
    deadline = time.monotonic() + SWEEP_S
    while not list(path.glob(pattern)):
        assert time.monotonic() < deadline, f"no {pattern} in {path}"
        time.sleep(0.1)


def test_a_hung_daemon_fails_the_block_and_the_sweep_continues(
    write_plan: Any, dockerd: int
) -> None:
    plan, folder = write_plan("hung", platforms={"cn": ["pinned"]}, replicates=2, timeout_s=20)
    running = sweep(plan)
    until(folder, "ansible/*-clear.log")  # then the host is clear, and the first block starts
    os.kill(dockerd, signal.SIGSTOP)
    until(folder, "trials/*/failure.json")
    os.kill(dockerd, signal.SIGCONT)
    output, _ = running.communicate(timeout=SWEEP_S)
    assert running.returncode == 1, output
    (failed,) = folder.glob("trials/*/failure.json")
    message = json.loads(failed.read_text())["message"]
    assert "the playbook block hung in the task " in message and "it did not end within " in message
    assert len(list(folder.glob("trials/*/result.json"))) == 1
    assert traces() == NOTHING


def test_a_hung_docker_stops_a_sweep_without_containers_only_if_containers_run(
    write_plan: Any, dockerd: int
) -> None:
    bare = {"platforms": {"bm": ["pinned"]}, "timeout_s": 100}
    plan, folder = write_plan("without", **bare)
    os.kill(dockerd, signal.SIGSTOP)
    run("virtbed", "sweep", plan)
    os.kill(dockerd, signal.SIGCONT)
    assert len(list(folder.glob("trials/*/result.json"))) == 1
    (image, *_) = run("docker", "image", "ls", "--quiet", "virtbed/rootfs").stdout.split()
    run(
        "docker", "run", "--detach", "--name=virtbed-left-over", "--label=virtbed=left-over",
        "--network=none", image, "sleep", "infinity",
    )  # fmt: skip
    plan, folder = write_plan("next", **bare)
    os.kill(dockerd, signal.SIGSTOP)
    done = run("virtbed", "sweep", plan, ok=False)
    os.kill(dockerd, signal.SIGCONT)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "could not be cleared" in done.stderr and "and containers run" in done.stderr
    run("virtbed", "sweep", plan)
    assert len(list(folder.glob("trials/*/result.json"))) == 1
    assert traces() == NOTHING


@pytest.mark.quick
def test_ctrl_c_ends_a_sweep_that_hangs(write_plan: Any, dockerd: int) -> None:
    plan, folder = write_plan("impatient", platforms={"cn": ["pinned"]}, timeout_s=600)
    running = sweep(plan)
    until(folder, "ansible/*-clear.log")
    os.kill(dockerd, signal.SIGSTOP)
    time.sleep(5)
    running.send_signal(signal.SIGINT)
    time.sleep(5)
    os.kill(dockerd, signal.SIGCONT)  # so that the instance can be released
    output, _ = running.communicate(timeout=120)
    assert running.returncode == 130, output
    assert list(folder.glob("trials/*/failure.json")) == []
    assert traces() == NOTHING
