"""Playbooks as events, with a real ansible-playbook on localhost; messages of failed tasks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from virtbed import ansible, scratch
from virtbed.ansible import AnsibleError, Deadline, bench_variables, play
from virtbed.events import BlockStarted, Ended, TaskFailed, TaskOk, TrialEnded, failure_message
from virtbed.logs import Logs
from virtbed_contract.codec import DocumentError
from virtbed_contract.kernel import processes

LOCAL = "localhost,"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a checkout with the test's own playbooks and mark of processes."""
    for folder in ("playbooks", "action_plugins"):
        (tmp_path / folder).mkdir()
    (tmp_path / "platforms.yml").touch()
    (tmp_path / "ansible.cfg").write_text(
        "[defaults]\naction_plugins = action_plugins\ninterpreter_python = /usr/bin/python3\n"
    )
    monkeypatch.setattr(ansible, "REPOSITORY", tmp_path)
    monkeypatch.setattr(ansible, "require", lambda: tmp_path)
    monkeypatch.setattr(scratch, "RUN", tmp_path / "run")
    return tmp_path


def write(checkout: Path, *tasks: Mapping[str, Any]) -> None:
    header = {"hosts": "localhost", "connection": "local", "gather_facts": False}
    playbook = [{**header, "tasks": list(tasks)}]
    (checkout / "playbooks" / "demo.yml").write_text(json.dumps(playbook))


def debug(message: str) -> dict[str, Any]:
    return {"name": f"Say {message}", "ansible.builtin.debug": {"msg": message}}


def plugin(checkout: Path, name: str, returned: Mapping[str, Any]) -> None:
    (checkout / "action_plugins" / f"{name}.py").write_text(
        "from ansible.plugins.action import ActionBase\n"
        "class ActionModule(ActionBase):\n"
        f"    def run(self, tmp=None, task_vars=None):\n        return {dict(returned)!r}\n"
    )


def test_events_carry_their_host_come_in_order_and_the_log_is_kept(
    checkout: Path, tmp_path: Path
) -> None:
    write(checkout, debug("{{ own }} {{ turn }}"))
    turns = [{"turn": "one"}, {"turn": "two"}]
    logs = tmp_path / "logs"
    *events, ended = play(
        "demo", {"own": "mine"}, [LOCAL], deadline=Deadline(60), logs=Logs(logs), turns=turns
    )
    assert ended == Ended("successful")
    oks = [event for event in events if isinstance(event, TaskOk)]
    assert [(e.host, e.action, e.result["msg"]) for e in oks] == [
        ("localhost", "debug", "mine one"), ("localhost", "debug", "mine two"),
    ]  # fmt: skip
    (log,) = logs.iterdir()
    assert log.name == "0001-demo.log"
    assert "mine two" in log.read_text()


def test_the_callers_thread_gets_the_events_and_its_errors_are_not_swallowed(
    checkout: Path,
) -> None:
    write(checkout, debug("one"), {"name": "Wait", "ansible.builtin.command": "sleep 60"})
    events = play("demo", {}, [LOCAL], deadline=Deadline(60), logs=Logs())
    started = time.monotonic()

    def record() -> None:
        for event in events:
            assert threading.current_thread() is threading.main_thread()
            assert isinstance(event, TaskOk)
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        record()
    events.close()  # type: ignore[attr-defined]
    assert time.monotonic() - started < 30  # which ended the playbook
    assert ansible.end_strays() == []


def test_temporary_files_are_in_the_folder_that_the_next_command_cleans(
    checkout: Path, tmp_path: Path
) -> None:
    """The files of modules on this machine, and Ansible's own."""
    reported = "{{ lookup('config', 'DEFAULT_LOCAL_TMP') }}"
    write(checkout, {"name": "Say", "ansible.builtin.shell": f"echo $TMPDIR; echo {reported}"})
    events = play("demo", {}, [LOCAL], deadline=Deadline(60), logs=Logs(tmp_path / "logs"))
    (printed,) = (event.result["stdout_lines"] for event in events if isinstance(event, TaskOk))
    assert len(printed) == 2
    assert all(line.startswith(f"{tmp_path}/run/plays/{os.getpid()}-") for line in printed)
    assert list((tmp_path / "run" / "plays").iterdir()) == []


def test_a_playbook_that_hangs_is_ended_and_names_its_task(checkout: Path, tmp_path: Path) -> None:
    """A stopped process, as a daemon may be, does not answer and does not end."""
    pid = tmp_path / "pid"
    shell = {"cmd": f"echo $$ > {pid}; kill -STOP $$"}
    write(checkout, debug("one"), {"name": "Ask a daemon", "ansible.builtin.shell": shell})
    logs = tmp_path / "logs"
    started = time.monotonic()
    *events, ended = play("demo", {}, [LOCAL], deadline=Deadline(12), logs=Logs(logs))
    assert isinstance(ended, Ended)
    assert 12 <= time.monotonic() - started < 60
    assert ended.status == "hung"
    assert "playbook demo hung in the task 'Ask a daemon' on localhost" in ended.message
    assert "it did not end within 12 s" in ended.message
    assert len(list(logs.iterdir())) == 1
    assert any(isinstance(event, TaskOk) for event in events)
    assert ansible.end_strays() == []
    left = processes.status(pid.read_text().strip())
    assert left.get("State", "Z").startswith("Z")  # which waits for its parent alone


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone sees others' processes")
def test_host_keys_are_checked(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ansible-runner turns the check off, so another server in a host's place would be measured."""
    setting = "'host_key_checking', plugin_type='connection', plugin_name='ssh'"
    write(checkout, debug(f"{{{{ lookup('ansible.builtin.config', {setting}) }}}}"))

    def printed() -> str:
        *events, _ = play("demo", {}, [LOCAL], deadline=Deadline(60), logs=Logs(checkout / "logs"))
        (event,) = (event for event in events if isinstance(event, TaskOk))
        return str(event.result["msg"])

    monkeypatch.delenv("ANSIBLE_HOST_KEY_CHECKING", raising=False)
    assert printed() == "True"
    monkeypatch.setenv("ANSIBLE_HOST_KEY_CHECKING", "False")  # whoever wants that may say so
    assert printed() == "False"


def test_another_users_processes_are_no_strays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """That user has another lock, and could block every sweep by marking processes like this."""
    monkeypatch.setattr(scratch, "RUN", tmp_path)
    abandoned = tmp_path / "plays" / "4194305-1-x"
    abandoned.mkdir(parents=True)
    his = os.environ | {ansible._MARK: "1", "TMPDIR": f"{abandoned}/tmp"}
    other = subprocess.Popen(["sleep", "600"], env=his, user=65532, group=65532, extra_groups=[])
    try:
        assert ansible.end_strays() == [] and other.poll() is None
        scratch.remove_abandoned()
        assert not abandoned.exists()
    finally:
        other.kill()
        other.wait()


def test_an_inventory_that_gives_no_answer_has_a_limit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An inventory program may query a service that is down; its children are killed, too."""
    inventory = tmp_path / "asks"
    inventory.write_text("#!/bin/sh\nsleep 60\n")
    inventory.chmod(0o755)
    monkeypatch.setattr(ansible, "INVENTORY_S", 3.0)
    began = time.monotonic()
    with pytest.raises(AnsibleError, match=r"asks: no answer from ansible-inventory within 3 s"):
        bench_variables([str(inventory)])
    assert time.monotonic() - began < 30


def test_a_deadline_passes_unless_it_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(ansible.time, "monotonic", lambda: now[0])
    deadline = Deadline(10)
    now[0] = 109
    assert not deadline.passed
    deadline.renew(20)
    now[0] = 128
    assert not deadline.passed and deadline.limit_s == 20
    now[0] = 130
    assert deadline.passed


def test_a_signal_is_handled_while_a_playbook_runs(checkout: Path) -> None:
    write(checkout, {"ansible.builtin.command": "sleep 60"})
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
    try:
        timer = threading.Timer(3, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        started = time.monotonic()
        events = play(
            "demo", {}, [LOCAL], deadline=Deadline(60), logs=Logs(), cancelled=lambda: bool(heard)
        )
        *_, ended = events
        assert ended == Ended("canceled", "the playbook demo was ended")
        assert time.monotonic() - started < 30
    finally:
        signal.signal(signal.SIGUSR1, before)
        ansible.end_strays()


def test_a_failed_task_is_an_event_and_the_reason_of_the_end(checkout: Path) -> None:
    fail = {"name": "Give up", "ansible.builtin.fail": {"msg": "no port"}}
    write(checkout, fail, debug("never"))
    events = list(play("demo", {}, [LOCAL], deadline=Deadline(60), logs=Logs()))
    assert events == [TaskFailed("localhost", "Give up", "no port"), Ended("failed", "no port")]


_OUTCOME = {
    "id": "t", "started_at": "2026-01-01T00:00:00Z", "result": None, "process_wall_ns": None,
    "evidence": {}, "failure": {"task": "Run", "message": "why"},
}  # fmt: skip


@pytest.mark.parametrize("teller", ["block_started", "trial_outcome"])
def test_a_playbook_that_dies_does_not_repeat_a_reported_failure(
    checkout: Path, teller: str
) -> None:
    started = {"instance": "bm-pinned-c01-r01", "bench": "b", "cpus": "0", "here": False}
    plugin(checkout, teller, started if teller == "block_started" else {"outcome": _OUTCOME})
    (checkout / "action_plugins" / "die.py").write_text(
        "import os, signal\nfrom ansible.plugins.action import ActionBase\n"
        "class ActionModule(ActionBase):\n"
        "    def run(self, tmp=None, task_vars=None):\n"
        "        os.kill(os.getppid(), signal.SIGKILL)\n        return {}\n"
    )
    fail = {"name": "Run", "ansible.builtin.fail": {"msg": "the first trial's"}}
    write(
        checkout, {"block": [fail], "rescue": [{"name": "Tell", teller: {}}]},
        {"name": "Die", "die": {}},
    )  # fmt: skip
    *_, ended = play("demo", {}, [LOCAL], deadline=Deadline(60), logs=Logs())
    assert isinstance(ended, Ended) and ended.status == "failed"
    assert "the first trial's" not in ended.message
    assert "'Die' on localhost" in ended.message


def test_a_host_that_does_not_exist_fails(checkout: Path) -> None:
    write(checkout, debug("x"))
    (checkout / "playbooks" / "demo.yml").write_text(
        json.dumps([{"hosts": "all", "tasks": [{"ansible.builtin.ping": {}}]}])
    )
    *_, ended = play(
        "demo", {"ansible_ssh_common_args": "-o ConnectTimeout=1"}, ["nosuch.invalid,"],
        deadline=Deadline(60), logs=Logs(),
    )  # fmt: skip
    assert isinstance(ended, Ended) and ended.status == "failed"
    assert "nosuch.invalid" in ended.message


def test_the_message_for_an_invalid_playbook_is_ansibles(checkout: Path) -> None:
    (checkout / "playbooks" / "demo.yml").write_text("a: [")
    (ended,) = play("demo", {}, [LOCAL], deadline=Deadline(60), logs=Logs())
    assert isinstance(ended, Ended)
    assert ended.status == "failed" and "YAML" in ended.message


def test_results_of_our_plugins_are_typed_events(checkout: Path) -> None:
    started = {"instance": "bm-pinned-c01-r01", "bench": "b", "cpus": "0", "here": False}
    plugin(checkout, "block_started", started | {"boot": "b00"})
    plugin(checkout, "trial_outcome", {"outcome": _OUTCOME})
    write(checkout, {"name": "A", "block_started": {}}, {"name": "B", "trial_outcome": {}})
    first, second, _ = play("demo", {}, [LOCAL], deadline=Deadline(60), logs=Logs())
    assert isinstance(first, BlockStarted) and first.host == "localhost"
    assert first.start.instance == "bm-pinned-c01-r01" and first.start.cpus == "0"
    assert first.boot == "b00"
    assert isinstance(second, TrialEnded)
    assert second.outcome.failure and second.outcome.failure.message == "why"


def test_a_plugins_result_that_violates_its_document_is_an_error(checkout: Path) -> None:
    plugin(checkout, "trial_outcome", {"outcome": {"id": "t"}})
    write(checkout, {"name": "B", "trial_outcome": {}})
    with pytest.raises(DocumentError, match=r"trial_outcome.started_at: missing"):
        list(play("demo", {}, [LOCAL], deadline=Deadline(60), logs=Logs()))


def test_the_variables_of_bench_hosts_are_those_of_the_inventory(tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    hosts = {"a": {"virtbed_state_dir": "/a"}, "b": {}}
    groups = {"bench": {"children": {"rack": {"hosts": hosts}}}, "other": {"hosts": {"c": {}}}}
    inventory.write_text(json.dumps(groups))
    assert bench_variables([str(inventory)]) == {"a": {"virtbed_state_dir": "/a"}, "b": {}}
    inventory.write_text("bench: [")
    with pytest.raises(AnsibleError, match="not readable"):
        bench_variables([str(inventory)])


def test_the_message_of_a_failed_task_has_its_stderr() -> None:
    assert failure_message("t", {"msg": "non-zero return code", "stderr": "no such file"}) == (
        "non-zero return code: no such file"
    )


def test_the_message_of_a_failed_loop_has_each_failure_once() -> None:
    result = {
        "msg": "One or more items failed",
        "results": [
            {"failed": True, "msg": "vCPU 0"},
            {"failed": False, "msg": "fine"},
            {"failed": True, "msg": "vCPU 1"},
            {"failed": True, "msg": "vCPU 1"},
        ],
    }
    assert failure_message("t", result) == "vCPU 0; vCPU 1"


def test_a_silent_failure_names_its_task() -> None:
    assert failure_message("Start the domain", {}) == "task failed: Start the domain"
