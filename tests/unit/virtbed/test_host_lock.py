"""The claim on a bench host, with real shells and a folder in place of the host's /run."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from virtbed import host_lock
from virtbed.host_lock import Claim, HostLockError, Seen
from virtbed_contract.limits import parse

Execute = host_lock.Execute
MINE = Claim(
    "ctl01", "boot-1", "/run/virtbed", 12, "77", "virtbed sweep quick", "2026-01-01T00:00Z"
)
OTHER = replace(MINE, host="ctl02", boot="boot-2", pid=4)


def execute(command: str) -> Mapping[str, Any]:
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    return {"rc": done.returncode, "stdout": done.stdout, "stderr": done.stderr}


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "run")


def note(place: str) -> str:
    return (Path(place) / host_lock.NAME).read_text()


def test_two_controllers_exclude_each_other_and_the_message_names_the_holder(place: str) -> None:
    host_lock.take(execute, str(MINE), 100, place)
    with pytest.raises(HostLockError) as refused:
        host_lock.take(execute, str(OTHER), 100, place)
    lines = str(refused.value)
    assert f"{os.uname().nodename} is in use by process 12 on ctl01" in lines
    assert "(virtbed sweep quick) since 2026-01-01T00:00Z" in lines
    assert f"remove {place}/sweep on " in lines
    for claim in ("", str(OTHER)):
        with pytest.raises(HostLockError, match="process 12 on ctl01"):
            host_lock.check_free(execute, claim, place)
    host_lock.check_free(execute, str(MINE), place)
    host_lock.free(execute, str(OTHER), place)  # which is not its own
    assert note(place).startswith(str(MINE))
    host_lock.free(execute, str(MINE), place)
    host_lock.take(execute, str(OTHER), 100, place)
    assert note(place).startswith(str(OTHER))


def test_the_next_call_of_the_same_controller_takes_over_the_claim(place: str) -> None:
    host_lock.take(execute, str(MINE), 100, place)
    again = replace(MINE, pid=99, started="88")  # it holds the controller's own lock
    host_lock.take(execute, str(again), 100, place)
    assert note(place).startswith(str(again))


def expires(place: str) -> int:
    return int(note(place).splitlines()[1].split()[0])


def test_a_block_renews_the_claim_and_reads_boot_id_and_disks(place: str) -> None:
    host_lock.take(execute, str(MINE), 10, place)
    before = expires(place)
    rooms = [("state", "/"), ("tmp", "/nosuch"), ("store", "/tmp")]
    lines = host_lock.begin(execute, str(MINE), 1000, [path for _, path in rooms], place)
    assert lines[0] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    found = parse(lines, rooms)
    assert [(disk.kind, disk.path) for disk in found] == [("state", "/"), ("store", "/tmp")]
    assert all(disk.free_mib > 0 for disk in found)
    assert expires(place) - before >= 990
    (Path(place) / host_lock.NAME).unlink()  # removed by hand, and nobody took it
    host_lock.begin(execute, str(MINE), 1000, (), place)
    assert note(place).startswith(str(MINE))
    (Path(place) / host_lock.NAME).unlink()
    host_lock.take(execute, str(OTHER), 10, place)
    with pytest.raises(HostLockError, match="taken by process 4 on ctl02"):
        host_lock.begin(execute, str(MINE), 1000, (), place)
    assert len(host_lock.begin(execute, "", 0, ["/"], place)) == 2  # no claim is renewed
    assert note(place).startswith(str(OTHER))


@pytest.mark.parametrize(
    ("spoil", "held"),
    [
        (lambda text: text, True),
        (lambda text: text.replace(text.split()[-1], "another-boot"), False),
        (lambda text: text.replace(text.splitlines()[1].split()[0], "1"), False),  # long ago
    ],
)
def test_a_note_ends_with_its_time_and_with_the_hosts_boot(
    place: str, spoil: Any, held: bool
) -> None:
    host_lock.take(execute, str(MINE), 100, place)
    path = Path(place) / host_lock.NAME
    path.write_text(spoil(note(place)))
    assert (Seen.read(execute, place).claim(place) is not None) == held
    if not held:
        host_lock.take(execute, str(OTHER), 100, place)
        assert note(place).startswith(str(OTHER))


def test_a_controller_on_the_host_itself_is_known_to_have_ended(place: str) -> None:
    me = host_lock.here("virtbed sweep demo", Path("/run/virtbed"), "2026-01-01T00:00:00Z")
    host_lock.take(execute, str(me), 1000, place)
    with pytest.raises(HostLockError, match="virtbed sweep demo"):
        host_lock.take(execute, str(OTHER), 100, place)
    host_lock.free(execute, str(me), place)
    host_lock.take(execute, str(replace(me, started="1")), 1000, place)  # its number, reused
    host_lock.take(execute, str(OTHER), 100, place)
    assert note(place).startswith(str(OTHER))


@pytest.mark.parametrize("text", ["x", "[]\n99999999999 ", "{}\n99999999999", "\0\n", '{"pid":'])
def test_a_note_that_cannot_be_read_is_reported_without_a_traceback(place: str, text: str) -> None:
    Path(place).mkdir()
    (Path(place) / host_lock.NAME).write_text(text)
    with pytest.raises(HostLockError, match="remove that file there"):
        host_lock.take(execute, str(MINE), 100, place)


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(HostLockError, match=r"cannot be read or written.*root is needed"):
        host_lock.take(execute, str(MINE), 100, str(tmp_path / "run"))


def test_of_two_simultaneous_controllers_one_gets_the_host(place: str) -> None:
    claims = [replace(MINE, host=f"ctl{number}", boot=f"b{number}") for number in range(6)]
    script = (
        "import sys, tests.unit.virtbed.test_host_lock as t\n"
        "try: t.host_lock.take(t.execute, sys.argv[1], 100, sys.argv[2])\n"
        "except t.HostLockError: sys.exit(1)"
    )
    import sys

    running = [subprocess.Popen([sys.executable, "-c", script, str(c), place]) for c in claims]
    assert sorted(process.wait() for process in running) == [0, 1, 1, 1, 1, 1]


def test_other_users_cannot_open_the_guard_and_a_guard_that_stays_locked_is_reported(
    place: str,
) -> None:
    """A user who can open a file can lock it for ever."""
    host_lock.take(execute, str(MINE), 100, place)
    modes = {path.name: path.stat().st_mode & 0o777 for path in Path(place).iterdir()}
    assert modes == {"guard": 0o600, "sweep": 0o644}

    def soon(command: str) -> Mapping[str, Any]:
        impatient = command.replace(f"flock -w {host_lock.GUARD_S}", "flock -w 0")
        done = subprocess.run(
            ["sh", "-c", impatient], capture_output=True, text=True, check=False, timeout=10
        )
        return {"rc": done.returncode, "stdout": done.stdout, "stderr": done.stderr}

    with (Path(place) / "guard").open() as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        for act in (host_lock.begin, host_lock.take):
            with pytest.raises(HostLockError, match="guard is locked by another process"):
                act(soon, str(MINE), 100, folder=place)


def test_a_claim_with_backslashes_is_written_unchanged(place: str) -> None:
    odd = replace(OTHER, folder="/run/a\\x", what='virtbed sweep "x\\n"')
    host_lock.take(execute, str(odd), 100, place)
    with pytest.raises(HostLockError, match="taken by process 4 on ctl02"):
        host_lock.begin(execute, str(MINE), 100, (), place)


def test_the_guard_is_unlocked_before_disks_are_examined(place: str, tmp_path: Path) -> None:
    """A file system whose server is down would keep it locked for ever."""
    (tmp_path / "stat").write_text("#!/bin/sh\n[ -e /proc/self/fd/9 ] && echo held || echo free\n")
    (tmp_path / "stat").chmod(0o755)
    way = f"PATH={tmp_path}:$PATH "
    read = host_lock.begin(lambda c: execute(way + c), str(MINE), 100, ["/"], place)
    assert read[1] == "free free"
