"""Keeping a daemon to some CPUs and letting it go, on a real process of this test's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from virtbed_contract.kernel.cpus import format_cpu_list
from virtbed_contract.kernel.snapshots import keep

from .conftest import REPOSITORY, module

affinity = module("host_daemons", "daemon_affinity")
NAME = "virtbed-daemon"


def threads(pid: int) -> list[int]:
    return [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]


def cpus(pid: int) -> list[set[int]]:
    """Where each thread may run, without repetition."""
    found: list[set[int]] = []
    for thread in threads(pid):
        affinity = os.sched_getaffinity(thread)
        found += [] if affinity in found else [affinity]
    return found


@contextmanager
def running() -> Iterator[int]:
    """A process of several threads, as every daemon is; its name is its program's."""
    script = (
        f"import threading, time; open('/proc/self/comm', 'w').write({NAME!r});"
        "[threading.Thread(target=time.sleep, args=(60,), daemon=True).start() for _ in range(5)];"
        "time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    while len(threads(process.pid)) < 6:
        assert process.poll() is None
        time.sleep(0.01)
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def daemon() -> Iterator[int]:
    with running() as pid:
        yield pid


def test_it_is_kept_and_let_go(daemon: int, tmp_path: Path) -> None:
    snapshot, before = tmp_path / "daemons.json", os.sched_getaffinity(daemon)
    kept = {min(before)}
    assert affinity.confine([NAME], kept, snapshot) is True
    assert cpus(daemon) == [kept]
    assert affinity.confine([NAME], kept, snapshot) is False
    assert affinity.restore([NAME], snapshot) is True
    assert cpus(daemon) == [before]
    assert not snapshot.exists()
    assert affinity.restore([NAME], snapshot) is False


def test_a_second_time_after_a_crash_keeps_what_was_first(daemon: int, tmp_path: Path) -> None:
    snapshot, before = tmp_path / "daemons.json", sorted(os.sched_getaffinity(daemon))
    affinity.confine([NAME], {before[0]}, snapshot)
    affinity.confine([NAME], {before[-1]}, snapshot)
    assert list(json.loads(snapshot.read_text())["values"].values()) == [before]


def test_one_that_a_confined_one_started_is_let_go_with_it(daemon: int, tmp_path: Path) -> None:
    snapshot, before = tmp_path / "daemons.json", os.sched_getaffinity(daemon)
    kept, own = {min(before)}, {max(before)}
    affinity.confine([NAME], kept, snapshot)
    with running() as restarted, running() as its_own:
        os.sched_setaffinity(its_own, own)
        for thread in threads(restarted):
            os.sched_setaffinity(thread, kept)
        affinity.restore([NAME], snapshot)
        assert cpus(restarted) == cpus(daemon) == [before]
        assert os.sched_getaffinity(its_own) == own  # by whoever started it


def test_one_that_was_kept_to_these_cpus_before_the_sweep_stays_there(
    daemon: int, tmp_path: Path
) -> None:
    snapshot, before = tmp_path / "daemons.json", os.sched_getaffinity(daemon)
    kept = {min(before)}
    with running() as its_own:
        for thread in threads(its_own):
            os.sched_setaffinity(thread, kept)
        affinity.confine([NAME], kept, snapshot)
        affinity.restore([NAME], snapshot)
        assert (cpus(its_own), cpus(daemon)) == ([kept], [before])


def test_one_that_a_confined_one_started_is_let_go_also_if_it_was_moved_again(
    daemon: int, tmp_path: Path
) -> None:
    """As by the block of another size, whose housekeeping has other CPUs."""
    snapshot, before = tmp_path / "daemons.json", os.sched_getaffinity(daemon)
    affinity.confine([NAME], {min(before)}, snapshot)
    with running() as restarted:
        for thread in threads(restarted):
            os.sched_setaffinity(thread, {min(before)})
        affinity.confine([NAME], {max(before)}, snapshot)
        assert cpus(restarted) == [{max(before)}]
        affinity.restore([NAME], snapshot)
        assert cpus(restarted) == cpus(daemon) == [before]


def test_another_process_with_its_number_is_left_alone(daemon: int, tmp_path: Path) -> None:
    snapshot, before = tmp_path / "daemons.json", os.sched_getaffinity(daemon)
    keep(snapshot, {f"{daemon}/1": [min(before)]})
    affinity.restore([NAME], snapshot)
    assert cpus(daemon) == [before]


def test_one_whose_main_thread_alone_was_moved_when_we_were_killed(
    daemon: int, tmp_path: Path
) -> None:
    kept = {min(os.sched_getaffinity(daemon))}
    os.sched_setaffinity(daemon, kept)
    assert affinity.confine([NAME], kept, tmp_path / "daemons.json") is True
    assert cpus(daemon) == [kept]


def test_each_block_looks_and_a_daemon_that_moved_is_kept_again(
    daemon: int, tmp_path: Path
) -> None:
    """As one that was restarted in the middle of a sweep: the second look finds nothing to do."""
    kept, free = min(os.sched_getaffinity(daemon)), sorted(os.sched_getaffinity(daemon))
    state = {"virtbed_state_dir": str(tmp_path), "virtbed_instance": {"housekeeping": str(kept)}}
    role = {"ansible.builtin.include_role": {"name": "host_daemons"}}
    known = {"ansible.builtin.set_fact": {"host_daemons_names": [NAME], "cacheable": True}}
    move = f"taskset --all-tasks --cpu-list --pid {format_cpu_list(free)} {daemon}"
    tasks = [known, role, role, {"ansible.builtin.command": {"cmd": move}}, role]
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": state}
    (tmp_path / "play.yml").write_text(json.dumps([{**play, "tasks": tasks}]))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), tmp_path / "play.yml"],
        cwd=REPOSITORY, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    keeping = done.stdout.split("host_daemons : Keep the daemons to the housekeeping CPUs")[1:]
    assert ["changed: [" in part.split("TASK")[0] for part in keeping] == [True, False, True]
    assert cpus(daemon) == [{kept}]
