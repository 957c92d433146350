"""A sweep that is killed or interrupted does no damage, and the next call finishes it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from virtbed.checkout import REPOSITORY

from .conftest import ENVIRONMENT, NOTHING, run, traces

FOUR = {"platforms": {"bm": ["pinned"], "cn": ["pinned"]}, "cores": [1, 2]}


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"the condition was not met within {seconds} s"
        time.sleep(0.1)


def results(folder: Path) -> dict[str, int]:
    """Return each result's inode by trial; a trial that is repeated gets another inode."""
    return {p.parent.name: p.stat().st_ino for p in folder.glob("trials/*/result.json")}


def start(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def test_a_killed_playbook_is_finished_by_the_next_and_repeats_nothing(write_plan: Any) -> None:
    plan, folder = write_plan("killed", **FOUR)
    first = start("ansible-playbook", "sweep.yml", "-e", f"plan={plan}")
    until(lambda: len(results(folder)) >= 1)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    before = results(folder)
    assert 1 <= len(before) < 4
    run("ansible-playbook", "sweep.yml", "-e", f"plan={plan}")
    after = results(folder)
    assert len(after) == 4
    assert {trial: after[trial] for trial in before} == before
    assert traces() == NOTHING
    third = run("ansible-playbook", "sweep.yml", "-e", f"plan={plan}")
    assert "4 trials, 4 done before; 0 to go" in third.stdout
    assert results(folder) == after


def kept() -> list[str]:
    """Return the folders that exist while a sweep runs: Ansible's files, keys of its guests."""
    return [str(path) for path in Path("/run/virtbed").glob("*/*") if path.parent.name != "gvisor"]


def test_a_killed_sweep_is_cleaned_up_by_the_next(write_plan: Any) -> None:
    plan, folder = write_plan("orphaned", platforms={"cn": ["pinned"]})
    first = start("virtbed", "sweep", plan)
    until(lambda: bool(traces()["containers"]))
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    assert traces()["containers"]
    assert kept(), "no folders found, so the test shows nothing"
    second = run("virtbed", "sweep", plan)
    assert kept() == []
    assert "released what an interrupted sweep had left" in second.stdout
    assert len(results(folder)) == 1
    assert traces() == NOTHING


def test_sigterm_releases_the_instance_and_the_sweep_can_continue(write_plan: Any) -> None:
    plan, folder = write_plan("interrupted", platforms={"cn": ["pinned"]})
    first = start("virtbed", "sweep", plan)
    until(lambda: bool(traces()["containers"]))
    first.send_signal(signal.SIGTERM)
    output, _ = first.communicate(timeout=120)
    assert first.returncode == 130, output
    assert "the next call continues" in output
    assert traces() == NOTHING
    assert results(folder) == {}
    run("virtbed", "sweep", plan)
    assert len(results(folder)) == 1
