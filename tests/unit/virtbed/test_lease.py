"""One controller per results folder: a lock on this machine, a lease between machines."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from virtbed.lease import SLACK_S, Holder, LeaseError, locked, until


def test_this_process_is_running_and_earlier_ones_are_known_to_have_ended() -> None:
    me = Holder.here()
    assert (me.pid, me.host) == (os.getpid(), os.uname().nodename)
    assert me.boot and me.started
    assert not me.gone()
    assert replace(me, boot="of an earlier boot").gone()
    # The number of a process that ended belongs to another one now.
    assert replace(me, started="1").gone()


def test_a_process_of_another_machine_is_not_known_to_have_ended() -> None:
    assert not replace(Holder.here(), host="elsewhere", started="1").gone()


def test_an_ended_process_is_known_to_have_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
    holder = replace(Holder.here(), pid=child.pid, started=started)
    assert not holder.gone()
    child.communicate()
    assert holder.gone()
    assert str(holder) == f"process {child.pid} on {os.uname().nodename}"


def test_a_process_whose_name_has_spaces_and_parentheses_is_recognized(tmp_path: Path) -> None:
    folder = tmp_path / str(os.getpid())
    folder.mkdir()
    fields = " ".join(str(number) for number in range(3, 30))
    (folder / "stat").write_text(f"{os.getpid()} (a ) 9 (b) {fields}\n")
    assert Holder.here(tmp_path).started == "22"


def test_a_lease_lasts_longer_than_its_step() -> None:
    assert until(10) == pytest.approx(time.time() + 10 + SLACK_S, abs=5)


def test_a_folder_has_one_controller_at_a_time(tmp_path: Path) -> None:
    refused = pytest.raises(LeaseError, match="being carried out by another process")
    with locked(tmp_path), refused, locked(tmp_path):
        raise AssertionError
    with locked(tmp_path):  # which let go
        assert (tmp_path / ".lock").stat().st_mode & 0o777 == 0o600


def test_a_lock_file_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"), locked(tmp_path):
        raise AssertionError
    assert not (tmp_path / "elsewhere").exists()
