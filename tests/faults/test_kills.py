"""A controller killed at any moment loses no trial, repeats no trial and leaves nothing behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from virtbed.ledger import NAME, Ledger

from ..commands import run
from .conftest import NULL, end, results, start
from .host import changes, facts

KILLS = int(os.environ.get("VIRTBED_KILLS", "40"))
PLAN = NULL | {"replicates": 2, "platforms": {"bm": ["pinned"], "cn": ["vanilla", "pinned"]}}


def test_each_trial_is_run_once_whenever_the_controller_is_killed(
    write_plan: Any, null_image: None
) -> None:
    plan, folder = write_plan("kills", **PLAN)
    began = time.monotonic()
    run("virtbed", "sweep", plan)
    lasts = time.monotonic() - began
    wanted = set(results(folder))
    assert len(wanted) == 6
    before = facts()
    seed = random.randrange(2**32)
    draw = random.Random(seed)
    # One moment in each of KILLS equal parts of a sweep's duration, in random order.
    moments = [(part + draw.random()) / KILLS * lasts for part in range(KILLS)]
    draw.shuffle(moments)
    for number, moment in enumerate(moments):
        with_ansible = number % 2 == 1
        where = f"kill {number}, {moment:.1f} s after the start, {with_ansible=}, {seed=}"
        print(where, flush=True)
        kill_and_resume(plan, folder, moment, with_ansible, wanted, where)
        assert changes(before) == [], where


def kill_and_resume(
    plan: str, folder: Path, moment: float, with_ansible: bool, wanted: set[str], where: str
) -> None:
    subprocess.run(["rm", "-rf", folder], check=True)
    sweep = start("virtbed", "sweep", plan)
    try:
        sweep.wait(moment)
    except subprocess.TimeoutExpired:
        (os.killpg if with_ansible else os.kill)(sweep.pid, signal.SIGKILL)
    end(sweep)
    kept = results(folder)
    resumed = run("virtbed", "sweep", plan, ok=False)
    assert resumed.returncode == 0, f"{where}\n{resumed.stdout}\n{resumed.stderr}"
    after = results(folder)
    assert set(after) == wanted, where
    assert {trial: after[trial] for trial in kept} == kept, where
    assert {p.name for p in (folder / "trials").iterdir()} == wanted, where
    assert not (folder / "aside").exists(), where
    with Ledger(folder / NAME) as ledger:
        assert ledger.counts() == {"done": len(wanted)}, where
