"""The client of QEMU's monitor, with a fake QEMU at the other end of a socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from virtbed.lab import LabError
from virtbed.lab.qmp import Monitor

Answers = Sequence[dict[str, Any]]
GREETING = {"QMP": {"version": {}}}
EVENT = {"event": "RESUME"}


@contextmanager
def qemu(path: Path, answer: Callable[[dict[str, Any]], Answers]) -> Iterator[list[str]]:
    """Act as a QEMU that answers each command; store the commands, and end without an answer."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    asked: list[str] = []

    def serve() -> None:
        connection, _ = server.accept()
        with connection, connection.makefile("rw", encoding="utf-8") as file:
            file.write(json.dumps(GREETING) + "\n")
            file.flush()
            for line in file:
                command = json.loads(line)
                asked.append(command["execute"])
                answers = answer(command) if command["execute"] != "qmp_capabilities" else [OK]
                if not answers:
                    return
                file.writelines(json.dumps(one) + "\n" for one in answers)
                file.flush()

    thread = Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        server.close()
        thread.join(5)


OK: dict[str, Any] = {"return": {}}


def test_events_before_an_answer_are_ignored(tmp_path: Path) -> None:
    def answer(_: dict[str, Any]) -> Answers:
        return [EVENT, EVENT, {"return": {"status": "running"}}]

    with qemu(tmp_path / "qmp", answer) as asked, Monitor(tmp_path / "qmp") as monitor:
        assert monitor.ask("query-status") == {"status": "running"}
        assert asked == ["qmp_capabilities", "query-status"]


def test_a_command_that_qemu_refuses_is_named(tmp_path: Path) -> None:
    def answer(_: dict[str, Any]) -> Answers:
        return [{"error": {"class": "GenericError", "desc": "no such thing"}}]

    refused = pytest.raises(LabError, match="QEMU refuses savevm: no such thing")
    with qemu(tmp_path / "qmp", answer), Monitor(tmp_path / "qmp") as monitor, refused:
        monitor.ask("savevm", name="x")


def test_a_successful_command_of_the_human_monitor_has_no_output(tmp_path: Path) -> None:
    def answer(command: dict[str, Any]) -> Answers:
        line = command["arguments"]["command-line"]
        return [{"return": "" if line == "savevm good" else "Error: disk full\r\n"}]

    with qemu(tmp_path / "qmp", answer), Monitor(tmp_path / "qmp") as monitor:
        monitor.human("savevm good")
        with pytest.raises(LabError, match="QEMU refuses savevm bad: Error: disk full"):
            monitor.human("savevm bad")


def test_the_end_of_qemu_before_an_answer_is_an_error(tmp_path: Path) -> None:
    ended = pytest.raises(ConnectionError, match="ended before it answered query-status")
    with qemu(tmp_path / "qmp", lambda _: []), Monitor(tmp_path / "qmp") as monitor, ended:
        monitor.ask("query-status")


def test_without_a_qemu_the_message_names_the_socket(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"QEMU's monitor .*/qmp does not answer"):
        Monitor(tmp_path / "qmp")
