"""Tests that privileges are really dropped, by the reading of the kernel."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from virtbed_contract.kernel import readings
from virtbed_contract.privileges import PROCESS, USER, excess, unreported
from virtbed_contract.tree import enter


def read_in(*prefix: str) -> dict[str, object]:
    command = [*prefix, "sh", "-c", readings.SCRIPT, "sh", "", "self"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return readings.privileges(readings.unpack(done.stdout))


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up what only root has")
@pytest.mark.parametrize("entered", [False, True])
def test_root_drops_all_privileges(entered: bool) -> None:
    """As in a guest, and as on metal, where Bubblewrap runs the program in the tree."""
    found = read_in(*(enter("/") if entered else ()), *PROCESS)
    assert list(excess(found)) == unreported(found) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="is about what root has")
def test_excess_privileges_of_root_are_reported() -> None:
    found = " ".join(excess(read_in()))
    assert f"users 0 found, {USER} alone needed" in found
    assert "capabilities " in found and "none needed" in found


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_every_user_can_write_to_temporary_folders_of_a_tree(tmp_path: Path) -> None:
    """As in a container; joblib and multiprocessing need /dev/shm."""
    write = "import multiprocessing, tempfile; tempfile.mkdtemp(); multiprocessing.Lock()"
    command = [*enter("/"), *PROCESS, "/usr/bin/python3", "-c", write]
    subprocess.run(command, check=True, cwd="/")
    denied = [*enter("/"), *PROCESS, "touch", "/etc/x", "/var/tmp/x"]
    done = subprocess.run(denied, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode != 0 and done.stderr.count("cannot touch") == 2


def test_a_measured_process_ends_with_its_parent() -> None:
    """The kernel clears the signal at a change of user, and the trial would outlive its module."""
    assert "--pdeathsig=KILL" in PROCESS
