"""How much room disks need, and what is said of one that has less."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from virtbed_contract.limits import ROOMS, SCRIPT, DiskFree, free_mib, look, parse


@pytest.mark.parametrize("kind", ROOMS)
def test_a_disk_lacks_room_below_its_threshold_alone(kind: str) -> None:
    needed = ROOMS[kind].needed_mib
    assert DiskFree(kind, "/x", needed).lack == ""
    lack = DiskFree(kind, "/x", needed - 1).lack
    assert f"{needed - 1} MiB free for /x" in lack and f"{needed} MiB needed; " in lack
    assert lack.endswith(ROOMS[kind].remedy)


def test_a_folder_that_is_yet_to_be_made_has_the_room_of_where_it_will_be(tmp_path: Path) -> None:
    assert free_mib(tmp_path / "a" / "b") == pytest.approx(free_mib(tmp_path), abs=64)
    found = look("results", tmp_path)
    assert (found.kind, found.path) == ("results", str(tmp_path))


def test_what_the_script_prints_is_what_this_process_sees(tmp_path: Path) -> None:
    rooms = [("tmp", str(tmp_path)), ("store", str(tmp_path / "gone")), ("state", "/")]
    done = subprocess.run(
        ["sh", "-c", SCRIPT, "sh", *(path for _, path in rooms)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    here, root = parse(["a banner", *done.stdout.splitlines()], rooms)  # gone is left out
    assert [(one.kind, one.path) for one in (here, root)] == [rooms[0], rooms[2]]
    stat = os.statvfs(tmp_path)
    assert here.free_mib == pytest.approx(stat.f_bavail * stat.f_frsize // 2**20, abs=64)
