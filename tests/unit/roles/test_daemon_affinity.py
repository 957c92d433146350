"""Keeping a daemon to some CPUs and letting it go, on a real process of this test's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .test_placement_modules import module

affinity = module("host_daemons", "daemon_affinity")
NAME = "virtbed-daemon"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[int]:
    program = tmp_path / NAME
    shutil.copy(shutil.which("sleep") or "", program)
    process = subprocess.Popen([program, "60"])
    yield process.pid
    process.kill()
    process.wait()


def test_it_is_kept_and_let_go(daemon: int, tmp_path: Path) -> None:
    snapshot, before = tmp_path / "daemons.json", os.sched_getaffinity(daemon)
    kept = {min(before)}
    assert affinity.confine([NAME], kept, snapshot) is True
    assert os.sched_getaffinity(daemon) == kept
    assert affinity.confine([NAME], kept, snapshot) is False
    assert affinity.let_go([NAME], snapshot) is True
    assert os.sched_getaffinity(daemon) == before
    assert not snapshot.exists()
    assert affinity.let_go([NAME], snapshot) is False


def test_a_second_time_after_a_crash_keeps_what_was_first(daemon: int, tmp_path: Path) -> None:
    snapshot, before = tmp_path / "daemons.json", sorted(os.sched_getaffinity(daemon))
    affinity.confine([NAME], {before[0]}, snapshot)
    affinity.confine([NAME], {before[-1]}, snapshot)
    assert list(json.loads(snapshot.read_text()).values()) == [before]


def test_another_process_with_its_number_is_left_alone(daemon: int, tmp_path: Path) -> None:
    snapshot, before = tmp_path / "daemons.json", os.sched_getaffinity(daemon)
    snapshot.write_text(json.dumps({f"{daemon}/1": [min(before)]}))
    affinity.let_go([NAME], snapshot)
    assert os.sched_getaffinity(daemon) == before
