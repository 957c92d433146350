"""Neighbours' processes: they survive the task that starts them, and can be awaited and found."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from virtbed_contract.kernel.processes import with_environment

from .conftest import module

started = module("trial_neighbours", "neighbour_started")
reading = module("trial_neighbours", "neighbours_reading")
UNIT = "VIRTBED_UNIT_STARTED="
CPUS = str(min(os.sched_getaffinity(0)))
SPEAKS = """echo '{"requests": 1}'; echo words >&2; exec sleep 60"""


def marked(name: str) -> list[int]:
    return with_environment(lambda variable: variable == f"{UNIT}{name}".encode())


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Start a shell command as a neighbour, with the test's own mark in its environment."""
    monkeypatch.setattr(started, "MARK", UNIT)
    monkeypatch.setenv("VIRTBED_PLAY", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    names: list[str] = []

    def run(name: str, command: str) -> int:
        names.append(name)
        pid: int = started.start(name, ["sh", "-c", command], CPUS, tmp_path / name)
        return pid

    yield run
    for pid in (pid for name in names for pid in marked(name)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def environment(pid: int) -> set[bytes]:
    return set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))


def test_a_neighbour_has_its_mark_its_own_session_and_its_cpus(start: Any, tmp_path: Path) -> None:
    keeper = start("one", SPEAKS)
    reading.wait(["one"], tmp_path, 10, look_s=0.02)
    assert keeper in marked("one")
    assert len(marked("one")) >= 2  # the shell that waits, and the command
    for pid in marked("one"):
        assert os.getsid(pid) == keeper != os.getsid(0)
        assert os.sched_getaffinity(pid) == {int(CPUS)}
        # The controller finds leftover processes of a playbook by these variables.
        names = {variable.partition(b"=")[0] for variable in environment(pid)}
        assert not names & {b"VIRTBED_PLAY", b"TMPDIR"}
    assert (tmp_path / "one/log").read_text() == "words\n"
    assert not (tmp_path / "one/end").exists()


def test_a_neighbour_that_ends_is_an_error_with_its_status(start: Any, tmp_path: Path) -> None:
    start("two", "echo oh >&2; exit 3")
    with pytest.raises(reading.NeighbourError) as ended:
        reading.wait(["two"], tmp_path, 10, look_s=0.02)
    assert str(ended.value) == (
        "neighbours_reading: the neighbour two ended before it answered a request, with exit "
        "status 3: oh"
    )
    start("two", SPEAKS)  # files of the earlier start are not read
    reading.wait(["two"], tmp_path, 10, look_s=0.02)


def test_a_neighbour_that_answers_no_request_in_time_is_an_error(
    start: Any, tmp_path: Path
) -> None:
    start("three", "exec sleep 60")
    started_at = time.monotonic()
    with pytest.raises(reading.NeighbourError, match="three answered no request within 0 s; raise"):
        reading.wait(["three"], tmp_path, 0.2, look_s=0.02)
    assert time.monotonic() - started_at < 5


def test_every_neighbour_is_awaited(start: Any, tmp_path: Path) -> None:
    start("four", SPEAKS)
    start("five", f"sleep 0.3; {SPEAKS}")
    reading.wait(["four", "five"], tmp_path, 10, look_s=0.02)
    assert (tmp_path / "five/out").read_text() == '{"requests": 1}\n'


def test_killing_the_marked_processes_ends_a_neighbour(start: Any, tmp_path: Path) -> None:
    """The release of the role trial_run does this, even if the playbook was killed."""
    start("six", SPEAKS)
    reading.wait(["six"], tmp_path, 10, look_s=0.02)
    for pid in marked("six"):
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while marked("six"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
