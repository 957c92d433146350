"""Confining daemons to some CPUs and restoring them, with a real process of the test."""

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
    """Return the distinct CPU affinities of the threads."""
    distinct: list[set[int]] = []
    for thread in threads(pid):
        affinity = os.sched_getaffinity(thread)
        distinct += [] if affinity in distinct else [affinity]
    return distinct


@contextmanager
def running() -> Iterator[int]:
    """Run a process of several threads with the daemon's name."""
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


def test_a_daemon_is_confined_and_restored(daemon: int, tmp_path: Path) -> None:
    snapshot, before = tmp_path / "daemons.json", os.sched_getaffinity(daemon)
    kept = {min(before)}
    assert affinity.confine([NAME], kept, snapshot) is True
    assert cpus(daemon) == [kept]
    assert affinity.confine([NAME], kept, snapshot) is False
    assert affinity.restore([NAME], snapshot) is True
    assert cpus(daemon) == [before]
    assert not snapshot.exists()
    assert affinity.restore([NAME], snapshot) is False


def test_after_a_crash_the_first_affinity_stays_saved(daemon: int, tmp_path: Path) -> None:
    snapshot, before = tmp_path / "daemons.json", sorted(os.sched_getaffinity(daemon))
    affinity.confine([NAME], {before[0]}, snapshot)
    affinity.confine([NAME], {before[-1]}, snapshot)
    assert list(json.loads(snapshot.read_text())["values"].values()) == [before]


def test_a_child_of_a_confined_daemon_is_restored_with_it(daemon: int, tmp_path: Path) -> None:
    snapshot, before = tmp_path / "daemons.json", os.sched_getaffinity(daemon)
    kept, own = {min(before)}, {max(before)}
    affinity.confine([NAME], kept, snapshot)
    with running() as restarted, running() as its_own:
        os.sched_setaffinity(its_own, own)
        for thread in threads(restarted):
            os.sched_setaffinity(thread, kept)
        affinity.restore([NAME], snapshot)
        assert cpus(restarted) == cpus(daemon) == [before]
        assert os.sched_getaffinity(its_own) == own  # it did not inherit it from a daemon


def test_a_daemon_that_was_on_these_cpus_before_the_sweep_stays_on_them(
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


def test_a_child_of_a_confined_daemon_is_restored_after_a_second_move(
    daemon: int, tmp_path: Path
) -> None:
    """A block of another size has other housekeeping CPUs."""
    snapshot, before = tmp_path / "daemons.json", os.sched_getaffinity(daemon)
    affinity.confine([NAME], {min(before)}, snapshot)
    with running() as restarted:
        for thread in threads(restarted):
            os.sched_setaffinity(thread, {min(before)})
        affinity.confine([NAME], {max(before)}, snapshot)
        assert cpus(restarted) == [{max(before)}]
        affinity.restore([NAME], snapshot)
        assert cpus(restarted) == cpus(daemon) == [before]


def test_another_process_with_the_same_pid_is_not_moved(daemon: int, tmp_path: Path) -> None:
    snapshot, before = tmp_path / "daemons.json", os.sched_getaffinity(daemon)
    keep(snapshot, {f"{daemon}/1": [min(before)]})
    affinity.restore([NAME], snapshot)
    assert cpus(daemon) == [before]


def test_a_daemon_whose_other_threads_were_not_moved_is_confined(
    daemon: int, tmp_path: Path
) -> None:
    kept = {min(os.sched_getaffinity(daemon))}
    os.sched_setaffinity(daemon, kept)
    assert affinity.confine([NAME], kept, tmp_path / "daemons.json") is True
    assert cpus(daemon) == [kept]


def test_each_block_checks_the_affinity_and_confines_a_moved_daemon_again(
    daemon: int, tmp_path: Path
) -> None:
    """The second check finds nothing to do; before the third the daemon has moved."""
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
    keeping = done.stdout.split("host_daemons : Confine the daemons to the housekeeping CPUs")[1:]
    assert ["changed: [" in part.split("TASK")[0] for part in keeping] == [True, False, True]
    assert cpus(daemon) == [{kept}]
