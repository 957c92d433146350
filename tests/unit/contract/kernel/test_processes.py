"""Tests of the reader of processes in /proc."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from virtbed_contract.kernel import processes

from .conftest import lay


def test_status(tmp_path: Path) -> None:
    status = "Name:\tqemu\nThreads:\t7\nMems_allowed_list:\t0-1\nSeccomp: 0"
    lay(tmp_path, {"7/status": status, "7/task/8/status": "Mems_allowed_list:\t1"})
    assert processes.status(7, tmp_path)["Threads"] == "7"
    assert processes.memory_nodes(7, tmp_path) == "0-1"
    assert processes.memory_nodes("7/task/8", tmp_path) == "1"
    assert processes.status(9, tmp_path) == {}
    assert processes.memory_nodes(9, tmp_path) is None


@pytest.mark.parametrize(
    ("text", "policy"),
    [("7f00 bind:1 anon=3\n7f01 bind:1\n", "bind:1"), ("7f00 default\n", "default"), ("", None)],
)
def test_the_memory_policy(tmp_path: Path, text: str, policy: str | None) -> None:
    lay(tmp_path, {"self/numa_maps": text})
    assert processes.memory_policy(proc=tmp_path) == policy
    assert processes.memory_policy(7, tmp_path) is None  # a kernel without NUMA


def test_stat_of_a_process_whose_name_has_parentheses(tmp_path: Path) -> None:
    rest = ["S", *["0"] * 18, "4242", *["0"] * 16, "3", "0"]
    lay(
        tmp_path,
        {"7/stat": f"7 (a (b) c) {' '.join(rest)}", "8/stat": f"8 (x) {' '.join(rest[:20])}"},
    )
    assert processes.stat(7, tmp_path) == processes.Stat("a (b) c", 4242, 3)
    assert processes.stat(8, tmp_path) == processes.Stat("x", 4242, None)
    assert processes.stat(9, tmp_path) is None


def test_this_process() -> None:
    me = processes.stat(os.getpid())
    assert me is not None and me.started > 0 and me.processor is not None
    assert os.getpid() in processes.threads()
    assert os.getpid() in processes.pids()
    assert processes.threads(2**22 + 1) == set()


def test_a_thread_that_was_moved_and_moved_back_has_migrations(tmp_path: Path) -> None:
    text = "CPU 0/KVM (8, #threads: 4)\n----\nse.nr_migrations : 12\nx : 1"
    lay(tmp_path, {"7/task/8/sched": text})
    assert processes.migrations(7, 8, tmp_path) == 12
    assert processes.migrations(7, 9, tmp_path) is None


def test_processes_are_found_by_their_environment() -> None:
    marked = subprocess.Popen(["sleep", "600"], env=os.environ | {"VIRTBED_UNIT": "kernel"})
    other = subprocess.Popen(["sleep", "600"], env=os.environ | {"VIRTBED_UNIT": "kernels"})
    try:
        found = processes.with_environment(lambda variable: variable == b"VIRTBED_UNIT=kernel")
        assert found == [marked.pid]
    finally:
        for process in (marked, other):
            process.kill()
            process.wait()


def test_unreadable_and_ended_processes_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(tmp_path, {"1/environ": "A=1", "2/environ": "A=1", "3/stat": "", "self/environ": "A=1"})
    real = Path.read_bytes

    def shielded(path: Path) -> bytes:
        if path.parent.name == "1":
            raise PermissionError
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", shielded)
    assert processes.with_environment(lambda variable: True, tmp_path) == [2]
