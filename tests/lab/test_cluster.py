"""Three servers in a box are one cluster: set up together, swept together, and disturbed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from virtbed.checkout import REPOSITORY
from virtbed.lab.recipe import Recipe
from virtbed.lab.server import Server

from ..commands import ENVIRONMENT, run
from .benches import bench_image, read
from .conftest import say
from .sweeps import WritePlan, failures, inodes, joined, traces
from .sweeps import write_plan as write_plan

pytestmark = pytest.mark.full
PLAN: dict[str, Any] = {
    "platforms": {"bm": ["pinned"], "cn": ["pinned"]},
    "replicates": 9,
    "memory_mib": 512,
}
TRIALS = PLAN["replicates"] * len(PLAN["platforms"])
# The network of one server is cut for longer than a lost connection is noticed (two minutes).
CUT_S = 200
CUT = (
    "systemd-run --collect sh -c 'iptables -I INPUT -p tcp --dport 22 -j DROP; "
    f"sleep {CUT_S}; iptables -D INPUT -p tcp --dport 22 -j DROP'"
)


@pytest.fixture
def cluster(server: Callable[..., Server], tmp_path: Path) -> tuple[list[Server], Path]:
    """Boot three servers; return them with an inventory of all, which holds theirs."""
    image = bench_image(Recipe())
    servers = [server(image, None, memory_mib=2560) for _ in range(3)]
    return servers, joined(servers, tmp_path / "cluster")


def test_a_cluster_loses_no_trial(
    cluster: tuple[list[Server], Path], write_plan: WritePlan, tmp_path: Path
) -> None:
    """A server is reset in a trial; then the network of another is cut and the controller killed.

    Every trial is done exactly once, on any server, and nothing is left on any of them.
    """
    servers, inventory = cluster
    plan, folder = write_plan("cluster", **PLAN)
    say("setting three servers up at the same time")
    run("make", "setup", f"PLAN={plan}", f"INVENTORY={inventory}")
    command = ("virtbed", "sweep", plan, "--inventory", str(inventory))
    names = {each.name for each in servers}
    log = tmp_path / "sweep.log"
    with started(log, *command) as sweep:
        until(lambda: {trial["host"] for trial in heads(folder)} == names, sweep, log)
        subprocess.run(servers[1].ssh("sh", "-c", "echo b > /proc/sysrq-trigger"), check=False)
        until(lambda: f"{servers[1].name} is set aside" in log.read_text(), sweep, log)
        servers[2].shell(CUT)
        time.sleep(5)
        os.kill(sweep.pid, signal.SIGKILL)
    # A replicate that a host had started may be repeated as a whole by another.
    kept = {
        trial: inode
        for trial, inode in inodes(folder).items()
        if len(list(folder.glob(f"trials/*{trial[-4:]}/result.json"))) == len(PLAN["platforms"])
    }
    assert 0 < len(kept) < TRIALS
    again = run(*command, ok=False)
    output = again.stdout + again.stderr + failures(folder)
    assert again.returncode == 0, output
    after = inodes(folder)
    assert len(after) == TRIALS, output
    assert kept.items() <= after.items(), output
    say("setting the server up that was reset, because its daemons do not start at boot")
    run("make", "setup", f"PLAN={plan}", f"INVENTORY={inventory}")
    third = run(*command)
    assert "0 to go" in third.stdout
    assert inodes(folder) == after
    assert {s.name: traces(s) for s in servers} == {s.name: "" for s in servers}


@contextmanager
def started(log: Path, *command: str) -> Iterator[subprocess.Popen[str]]:
    """Start a command whose output goes to a file; it is killed at the end."""
    with log.open("w") as file:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", *command], cwd=REPOSITORY, env=ENVIRONMENT, text=True,
            stdout=file, stderr=file,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(
    holds: Callable[[], bool], sweep: subprocess.Popen[str], log: Path, seconds: float = 900
) -> None:
    """Wait until a condition holds while a sweep runs."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert sweep.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.5)


def heads(folder: Path) -> list[Any]:
    return [read(path)["trial"] for path in folder.glob("trials/*/result.json")]
