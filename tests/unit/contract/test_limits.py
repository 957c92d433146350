"""Tests of the free space that disks need, and of the message for a disk with less."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from virtbed_contract.limits import ROOMS, SCRIPT, DiskFree, free_mib, look, parse


@pytest.mark.parametrize("kind", ROOMS)
def test_a_disk_lacks_room_only_below_its_threshold(kind: str) -> None:
    needed = ROOMS[kind].needed_mib
    assert DiskFree(kind, "/x", needed).lack == ""
    lack = DiskFree(kind, "/x", needed - 1).lack
    assert f"{needed - 1} MiB free for /x" in lack and f"{needed} MiB needed; " in lack
    assert lack.endswith(ROOMS[kind].remedy)


def test_a_missing_folder_has_the_free_space_of_its_nearest_parent(tmp_path: Path) -> None:
    assert free_mib(tmp_path / "a" / "b") == pytest.approx(free_mib(tmp_path), abs=64)
    found = look("results", tmp_path)
    assert (found.kind, found.path) == ("results", str(tmp_path))


def test_the_script_prints_the_free_space_that_this_process_sees(tmp_path: Path) -> None:
    rooms = [("tmp", str(tmp_path)), ("store", str(tmp_path / "gone")), ("state", "/")]
    done = subprocess.run(
        ["sh", "-c", SCRIPT, "sh", *(path for _, path in rooms)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    here, root = parse(["a banner", *done.stdout.splitlines()], rooms)  # gone is left out
    assert [(one.kind, one.path) for one in (here, root)] == [rooms[0], rooms[2]]
    stat = os.statvfs(tmp_path)
    assert here.free_mib == pytest.approx(stat.f_bavail * stat.f_frsize // 2**20, abs=64)
