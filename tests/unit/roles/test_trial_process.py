"""The module trial_process, with small programs as the trial's process."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import module

trial = module("trial_run", "trial_process")


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def document(**changes: Any) -> dict[str, Any]:
    moved = {"ran_on": [1], "migrations": None, "transparent_hugepage": "madvise", "looks": 3}
    return {
        "environment": {"python": "3.11.2"},
        "confounders": moved,
        "settings": {"thread_policy": "default"},
        "samples": [1, 2, 3],
    } | changes


def test_a_process_gets_the_time_of_its_start() -> None:
    printed, words, wall_ns = trial.run(
        python("import sys; print(sys.argv[1:]); print('word', file=sys.stderr)"), 10
    )
    assert printed.startswith("['--spawned-at-ns', '")
    assert words == "word\n"
    assert 0 < wall_ns < 10e9


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("os.kill(os.getpid(), 9)", "exit status -9, SIGKILL; killed by another program, or"),
        ("os._exit(137)", r"exit status 137, SIGKILL; .* \(memory_mib in the plan\): "),
        ("os._exit(143)", "exit status 143, SIGTERM: "),
        ("os._exit(126)", "exit status 126, the status of an engine whose daemon ended"),
        ("os._exit(255)", "exit status 255, the status of SSH if its connection is lost"),
        ("os._exit(3)", "exit status 3: "),
    ],
)
def test_an_error_explains_the_exit_status(code: str, message: str) -> None:
    with pytest.raises(trial.TrialError, match=message):
        trial.run(python(f"import os; {code}"), 10)


def test_only_the_parts_for_attestation_are_returned() -> None:
    assert trial.attested(json.dumps(document())) == {
        "inside": {"python": "3.11.2"},
        "ran_on": [1],
        "migrations": None,
        "transparent_hugepage": "madvise",
        "thread_policy": "default",
    }


@pytest.mark.parametrize(
    ("printed", "message"),
    [
        ("", r"no JSON document printed .*'' of a library"),
        ("{", r"no JSON document printed .*'\{' of a library"),
        ("[]", "not the harness's document"),
        (json.dumps({"environment": {}}), "'confounders' needed"),
    ],
)
def test_output_that_is_no_document_is_quoted(printed: str, message: str) -> None:
    with pytest.raises(trial.TrialError, match=message):
        trial.attested(printed, "of a library")


def test_an_error_quotes_the_end_of_the_log() -> None:
    with pytest.raises(trial.TrialError, match=r"exit status 3: wrong answer: cat\n"):
        trial.run(["sh", "-c", "echo wrong answer: cat >&2; exit 3"], 10)


def test_a_process_that_does_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time; child = subprocess.Popen(['sleep', '60']);"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid)); time.sleep(60)"
    )
    with pytest.raises(trial.TrialError, match="still running after 1 s; raise timeout_s"):
        trial.run(python(code), 1)
    child = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and _runs(child):
        time.sleep(0.02)
    assert not _runs(child)


@pytest.mark.parametrize(("step_s", "words"), [(3600, "forward by 3600.00 s"), (-1, "back by 1.0")])
def test_a_process_is_killed_if_the_clock_is_set(
    monkeypatch: pytest.MonkeyPatch, step_s: int, words: str
) -> None:
    """LoadGen waits for a time of that clock: set back by an hour, it would wait an hour."""
    steps = iter([0, step_s * 10**9])
    ahead_ns = trial._ahead_ns
    monkeypatch.setattr(trial, "_ahead_ns", lambda: ahead_ns() + next(steps))
    monkeypatch.setattr(trial, "_LOOK_S", 1.0)
    began = time.monotonic()
    with pytest.raises(trial.TrialError, match=f"the clock was set {words}.* End of its log: word"):
        trial.run(
            python("import sys, time; print('word', file=sys.stderr, flush=True); time.sleep(60)"),
            50,
        )
    assert time.monotonic() - began < 40


def test_a_clock_that_was_not_set_stays_ahead_by_the_same() -> None:
    ahead_ns = trial._ahead_ns()
    time.sleep(0.5)
    assert abs(trial._ahead_ns() - ahead_ns) < trial._MOST_STEP_S * 1e9


def test_a_process_dies_with_its_parent(tmp_path: Path) -> None:
    """Even if the parent is killed: no process of a trial may run during the next one."""
    note = tmp_path / "pid"
    code = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    parent = os.fork()
    if parent == 0:
        trial.run(python(code), 60)
        os._exit(1)
    while not (note.exists() and note.read_text()):
        time.sleep(0.01)
    os.kill(parent, 9)
    os.waitpid(parent, 0)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and _runs(int(note.read_text())):
        time.sleep(0.02)
    assert not _runs(int(note.read_text()))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_result_belongs_to_the_owner_of_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.touch(mode=0o600)
    trial.give_to_owner(file)  # it has that owner already, so no privilege is needed
    os.chown(tmp_path, 1000, 1000)
    trial.give_to_owner(file)
    assert (file.stat().st_uid, file.stat().st_gid) == (1000, 1000)
    assert file.stat().st_mode & 0o777 == 0o600
