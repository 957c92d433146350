"""A sweep on three hosts over SSH, one of which is killed; boxes.py describes the hosts."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from virtbed.checkout import REPOSITORY

from .boxes import Box, inventory, running
from .conftest import ENVIRONMENT, run

NAMES = ("box01", "box02", "box03")


@pytest.fixture
def boxes() -> Iterator[dict[str, Box]]:
    with running(NAMES) as found:
        yield found


def heads(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text())["trial"] for path in folder.glob("trials/*/result.json")]


def until(what: Callable[[], bool], sweep: subprocess.Popen[str]) -> None:
    for _ in range(1200):
        if what():
            return
        assert sweep.poll() is None, sweep.communicate()[0]
        time.sleep(0.1)
    raise AssertionError("the condition was not met within two minutes")


def test_three_hosts_share_a_sweep_and_one_that_is_killed_loses_nothing(
    boxes: dict[str, Box], write_plan: Any, tmp_path: Path
) -> None:
    plan, folder = write_plan(
        "fleet", replicates=9,
        applications=[{"name": "null", "scale": "tiny", "samples": 2, "warmup": 1}],
    )  # fmt: skip
    # Two more names: a second one for box01, and one for box02 with a wrong host key.
    wrong = tmp_path / "known_hosts"
    wrong.write_text((boxes["box03"].folder / "known_hosts").read_text().replace(
        f":{boxes['box03'].port} ", f":{boxes['box02'].port} "))  # fmt: skip
    where = inventory(
        boxes, tmp_path, twin=boxes["box01"].variables,
        forged=boxes["box02"].variables | {"ansible_ssh_common_args":
            f"-o UserKnownHostsFile={wrong} -o StrictHostKeyChecking=yes -o ControlPath=none"},
    )  # fmt: skip
    sweep = subprocess.Popen(
        ["setpriv", "--pdeathsig=TERM", "virtbed", "sweep", plan, "--inventory", where,
         "--hung-after", "180"],
        cwd=REPOSITORY, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        until(lambda: {trial["host"] for trial in heads(folder)} == {*NAMES}, sweep)
        boxes["box02"].kill()
        output, _ = sweep.communicate(timeout=300)
    finally:
        sweep.kill()
    assert sweep.returncode == 0, output
    assert "box02 is set aside" in output and "box02 was set aside, and other hosts" in output
    assert "twin (box01) is set aside: it is the same machine as box01" in output
    assert "forged is set aside" in output and "Host key verification failed" in output
    trials = heads(folder)
    assert sorted(trial["replicate"] for trial in trials) == list(range(1, 10))  # each once
    assert {trial["host"] for trial in trials} >= {"box01", "box03"}
    reports = {path.stem for path in folder.glob("doctor/*.json")}
    assert reports == {*NAMES}
    # After its restart, nothing is left on the host, and nothing is left to do.
    boxes["box02"].start()
    status = run("virtbed", "status", plan, "--inventory", inventory(boxes, tmp_path), ok=False)
    assert "box02 is set aside" in status.stdout and status.returncode == 0, status.stdout
    before = {path: path.read_bytes() for path in folder.glob("trials/*/result.json")}
    again = run("virtbed", "sweep", plan, "--inventory", inventory(boxes, tmp_path))
    assert "9 done before; 0 to go" in again.stdout
    assert {p: p.read_bytes() for p in folder.glob("trials/*/result.json")} == before
    for box in boxes.values():
        assert not list((box.folder / "state").glob("instances/*"))
