"""Leftover folders of killed commands: the next command removes them, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from virtbed import bench, scratch


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "run"
    monkeypatch.setattr(scratch, "RUN", folder)
    monkeypatch.setattr(bench, "RUN", folder)
    return folder


def running(run: Path, code: str) -> subprocess.Popen[str]:
    """Start a process that makes its own folder, runs some code and reports that it is ready."""
    script = (
        "import subprocess, sys, time; from pathlib import Path; from virtbed import scratch;"
        f"scratch.RUN = Path({str(run)!r})\n"
        f"with scratch.own_folder() as folder:\n {code}\n print(folder, flush=True); time.sleep(99)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline()
    return process


def left(run: Path) -> int:
    return len(list((run / "plays").iterdir()))


def test_a_killed_process_leaves_a_folder_that_the_next_removes(run: Path) -> None:
    killed, alive = (running(run, "(folder / 'file').touch()") for _ in range(2))
    killed.kill()
    killed.communicate()
    assert left(run) == 2
    with scratch.own_folder() as mine:
        assert left(run) == 2  # mine, and the other's that lives
        assert mine.stat().st_mode & 0o777 == mine.parent.stat().st_mode & 0o777 == 0o700
    assert left(run) == 1
    alive.kill()
    alive.communicate()
    scratch.remove_abandoned()
    assert left(run) == 0


def test_a_folder_stays_while_a_leftover_process_uses_it(run: Path) -> None:
    """Without the folder it would put its next files into /tmp, where they are never removed."""
    stray = "print(subprocess.Popen(['sleep', '99'], env={'TMPDIR': f'{folder}/tmp'}).pid)"
    script = f"import subprocess; {stray}"
    process = running(run, script)
    process.kill()
    pids = [int(pid.name) for pid in Path("/proc").iterdir() if pid.name.isdigit()]
    mark = f"TMPDIR={run}/".encode()
    (pid,) = [pid for pid in pids if mark in _environ(pid)]
    process.wait()
    scratch.remove_abandoned()
    assert left(run) == 1
    os.kill(pid, signal.SIGKILL)
    while _environ(pid):
        pass
    scratch.remove_abandoned()
    assert left(run) == 0


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def test_a_process_with_a_reused_number_is_not_the_owner(run: Path) -> None:
    (run / "plays" / f"{os.getpid()}-1-x").mkdir(parents=True)
    scratch.remove_abandoned()
    assert left(run) == 0


def test_keys_of_a_killed_sweep_are_removed_by_the_next(run: Path) -> None:
    (run / "keys" / "another").mkdir(parents=True)
    (run / "keys" / "another" / "id_ed25519").touch()
    with bench.alone(), bench.keys("mine") as folder:
        assert [path.name for path in (run / "keys").iterdir()] == ["mine"]
        assert folder.stat().st_mode & 0o777 == folder.parent.stat().st_mode & 0o777 == 0o700
    assert not (run / "keys").exists()


def test_keys_of_guests_on_several_hosts_are_separate(run: Path) -> None:
    with bench.alone(), bench.keys("mine", host="a/..") as one, bench.keys("mine", host="b") as two:
        (two / "id_ed25519").touch()
        with bench.keys("mine", host="a/.."):  # its next playbook
            assert (two / "id_ed25519").exists()
        assert one.parent == two.parent == run / "keys" / "mine"
    assert list((run / "keys" / "mine").iterdir()) == []


def test_a_folder_that_others_write_is_refused(run: Path) -> None:
    run.mkdir()
    run.chmod(0o777)
    with pytest.raises(PermissionError, match="no other user can write needed"):
        scratch.own_folder().__enter__()
