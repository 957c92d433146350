"""Playbooks as streams of typed events; the sole user of ansible-runner and Ansible's tools.

A playbook runs in a thread of its own. The callback of ansible-runner only enqueues, for it
swallows the I/O errors of whatever else it would do; the caller's thread gets the events.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal

import ansible_runner

from virtbed import scratch
from virtbed.checkout import REPOSITORY, require
from virtbed.events import (
    BlockStarted,
    Ended,
    Event,
    TaskFailed,
    TaskOk,
    TrialEnded,
    failure_message,
)  # fmt: skip
from virtbed.logs import Logs, tail
from virtbed_contract import json_file
from virtbed_contract.codec import DocumentError, decode
from virtbed_contract.events import BlockStart, TrialOutcome
from virtbed_contract.kernel.processes import with_environment
from virtbed_contract.privileges import PLAY

# Ansible's workers have sessions of their own, and outlive the ansible-playbook that is killed.
_MARK = PLAY
# How often ansible-runner looks whether it is to end the playbook, in seconds.
_LOOK_S = 1
_STARTED = tuple(field.name for field in fields(BlockStart))
_STRAYS_S = 10
INVENTORY_S = 120.0
"""How long an inventory may take to be read: one that is a program may ask a service."""
# Actions that begin a block and end a trial, and so whatever went before.
_TELLING = {"block_started", "trial_outcome"}
_NO_TEMPLATE = "__ansible_unsafe"


class AnsibleError(RuntimeError):
    """Ansible cannot be run, or answers with what is no answer."""


class Deadline:
    """When a playbook counts as hung: `limit_s` seconds after the last `renew`."""

    def __init__(self, limit_s: float) -> None:
        self.renew(limit_s)

    def renew(self, limit_s: float) -> None:
        """Allow so many seconds from now."""
        self.limit_s = limit_s
        self._at = time.monotonic() + limit_s

    @property
    def passed(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() > self._at


def play(
    playbook: str,
    variables: Mapping[str, Any],
    inventories: Sequence[str],
    *,
    deadline: Deadline,
    logs: Logs,
    limit: str | None = None,
    parts: Sequence[str] = (),
    turns: Sequence[Mapping[str, Any]] = ({},),
    cancelled: Callable[[], bool] = lambda: False,
    host: str = "",
) -> Iterator[Event]:
    """Run playbooks/<playbook>.yml, or its parts, and give its events as they happen, `Ended` last.

    Whoever stops iterating early closes the iterator, which ends the playbook.

    Args:
        playbook: Its name.
        variables: Extra variables of the whole call.
        inventories: Paths, or lists of hosts with a comma.
        deadline: When it counts as hung, and is ended; may be renewed meanwhile.
        logs: Where Ansible's own log is kept.
        limit: A pattern of hosts, as --limit takes it.
        parts: Names of playbooks that are run one after another instead of the one of that name.
        turns: The playbook runs once per turn, with its variables added to the others, until one
            fails: one process, whose start takes as long as many tasks. Roles that it imports may
            be named by these variables.
        cancelled: Looked at every second; True ends the playbook.
        host: The one of several hosts that it is for, by which `end_strays` knows its processes.

    Raises:
        OSError: the files that Ansible needs, or its log, cannot be written.
        DocumentError: a task of ours tells something that is not as its document says.
    """
    # A private directory of its own for each call: a reused one keeps the last call's variables.
    with scratch.own_folder() as private:
        call = _Call(playbook, private, deadline, cancelled, host)
        runs = threading.Thread(
            target=call.run,
            args=(variables, inventories, limit, parts or (playbook,), turns),
            daemon=True,
        )
        runs.start()
        try:
            while (raw := call.events.get()) is not None:
                yield from _typed(raw)
        except BaseException:
            call.abandoned = True
            runs.join()
            with suppress(OSError):  # what is wrong already is reported
                logs.keep(playbook, call.log)
            raise
        runs.join()
        logs.keep(playbook, call.log)
        if call.error and not call.stopped:
            raise call.error
        yield call.ended()


@dataclass
class _Call:
    """One call of ansible-runner, in a thread; its raw events end with None."""

    playbook: str
    private: Path
    deadline: Deadline
    cancelled: Callable[[], bool]
    host: str = ""
    events: SimpleQueue[dict[str, Any] | None] = field(default_factory=SimpleQueue)
    abandoned: bool = False
    stopped: Literal["", "canceled", "hung"] = ""
    status: str = "failed"
    error: BaseException | None = None
    task: str = ""
    failure: str = ""
    lost: list[str] = field(default_factory=list)

    @property
    def log(self) -> Path:
        """What Ansible printed."""
        return self.private / "artifacts" / self.playbook / "stdout"

    def run(
        self,
        variables: Mapping[str, Any],
        inventories: Sequence[str],
        limit: str | None,
        parts: Sequence[str],
        turns: Sequence[Mapping[str, Any]],
    ) -> None:
        """Run the playbook to its end; never raise."""
        try:
            folder = require() / "playbooks"
            in_turn = self.private / "turns.yml"
            plays = [
                {"import_playbook": str(folder / f"{part}.yml"), "vars": dict(turn)}
                for turn in turns
                for part in parts
            ]
            in_turn.write_text(json.dumps(plays))
            temporary = self.private / "tmp"
            temporary.mkdir()
            runner = ansible_runner.run(
                private_data_dir=str(self.private),
                ident=self.playbook,
                project_dir=str(REPOSITORY),
                playbook=str(in_turn),
                inventory=_resolved(inventories),
                limit=limit,
                extravars=dict(variables),
                # A module that is killed leaves what it unpacked, Ansible its own files.
                envvars=_environment()
                | {"TMPDIR": str(temporary), "ANSIBLE_LOCAL_TEMP": str(temporary)}
                | {_MARK: _mark(self.host)},
                settings={"pexpect_timeout": _LOOK_S},
                quiet=True,
                event_handler=self._enqueue,
                cancel_callback=self._stop,
            )
            self.status = str(runner.status)
        except BaseException as error:
            self.error = error
        finally:
            self.events.put(None)

    def _enqueue(self, event: dict[str, Any]) -> bool:
        """Enqueue an event of ansible-runner's; return False: it need not keep it in a file."""
        data = event.get("event_data", {})
        if event["event"] == "runner_on_start":
            self.task = f"{data.get('task', '')!r} on {data.get('host', '')}"
        elif event["event"] in {"runner_on_failed", "runner_on_unreachable"}:
            self.failure = failure_message(data.get("task", ""), data.get("res") or {})
            if event["event"] == "runner_on_unreachable":
                self.lost.append(str(data.get("host", "")))
        elif event["event"] == "runner_on_ok" and _action(data) in _TELLING:
            self.failure = ""  # reported by now, as that trial's; not the reason of a later end
        self.events.put(event)
        return False

    def _stop(self) -> bool:
        if self.abandoned or self.cancelled():
            self.stopped = "canceled"
        elif self.deadline.passed:
            self.stopped = "hung"
        return bool(self.stopped)

    def ended(self) -> Ended:
        """Return how it ended."""
        if self.stopped == "hung":
            return Ended(
                "hung",
                f"the playbook {self.playbook} hung in the task {self.task or 'none'}: "
                f"no end within {self.deadline.limit_s:.0f} s, and was ended",
            )
        if self.stopped:
            return Ended("canceled", f"the playbook {self.playbook} was ended")
        if self.status == "successful":
            return Ended("successful")
        if self.failure:
            return Ended("failed", self.failure, tuple(self.lost))
        if self.task:  # what Ansible printed may end with an earlier trial's failure
            without = f"ended in the task {self.task} without a word: {self.status}"
            return Ended("failed", f"the playbook {self.playbook} {without}")
        said = tail(self.log, 2000).decode(errors="replace").strip()
        return Ended("failed", said or f"playbook {self.playbook}: {self.status}")


def _typed(raw: Mapping[str, Any]) -> Iterator[Event]:
    """Give the event that one of ansible-runner's stands for, if any."""
    data = raw.get("event_data", {})
    result = data.get("res")
    if not isinstance(result, dict):
        return
    host = str(data.get("host", ""))
    if raw["event"] in {"runner_on_failed", "runner_on_unreachable"}:
        task = str(data.get("task", ""))
        yield TaskFailed(host, task, failure_message(task, result))
    elif raw["event"] == "runner_on_ok":
        action = _action(data)
        if action == "block_started":
            start = {name: result.get(name) for name in _STARTED if name in result}
            yield BlockStarted(host, decode(BlockStart, start, action))
        elif action == "trial_outcome":
            yield TrialEnded(host, decode(TrialOutcome, result.get("outcome"), action))
        else:
            yield TaskOk(host, action, result)


def _action(data: Mapping[str, Any]) -> str:
    return str(data.get("task_action", "")).rpartition(".")[2]


def _environment() -> dict[str, str]:
    return {
        "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ANSIBLE_NOCOLOR": "1",
        # Not in ansible.cfg, whose setting ansible-runner's own variable would hide.
        "ANSIBLE_CALLBACK_PLUGINS": str(REPOSITORY / "playbooks" / "callback_plugins"),
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1",
        # ansible-runner turns it off where the environment says nothing, whatever ansible.cfg says.
        "ANSIBLE_HOST_KEY_CHECKING": os.environ.get("ANSIBLE_HOST_KEY_CHECKING", "True"),
    }


def bench_variables(
    inventories: Sequence[str], limit: str | None = None
) -> dict[str, Mapping[str, Any]]:
    """Return the variables of each host in the group `bench`, as ansible-inventory prints them.

    Args:
        inventories: Paths, or lists of hosts with a comma.
        limit: A pattern of hosts, as --limit takes it; others are left out.

    Raises:
        AnsibleError: the inventory cannot be read.
    """
    printed = _printed(inventories, limit)
    try:
        listed = json_file.parse(printed, "what ansible-inventory prints")
    except DocumentError as error:
        raise AnsibleError(f"{', '.join(inventories)}: not readable: {error}") from error
    try:
        return {host: _host_variables(listed, host) for host in _members(listed, "bench")}
    except (KeyError, TypeError, AttributeError) as error:
        raise AnsibleError(
            f"{', '.join(inventories)}: {error!r} in what ansible-inventory prints, groups of "
            "hosts and their variables needed"
        ) from error


def _printed(inventories: Sequence[str], limit: str | None) -> str:
    """Return what ansible-inventory prints of all hosts.

    Raises:
        AnsibleError: it fails, or does not end in time.
    """
    tool = str(Path(sys.executable).with_name("ansible-inventory"))
    words = [word for one in _resolved(inventories) for word in ("--inventory", one)]
    words += [f"--limit={limit}"] if limit else []
    asked = subprocess.Popen(
        [tool, *words, "--list"], cwd=require(), env=os.environ | _environment(), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    try:
        printed, said = asked.communicate(timeout=INVENTORY_S)
    except BaseException as error:
        with suppress(ProcessLookupError):  # with what it started, which keeps the pipes open
            os.killpg(asked.pid, signal.SIGKILL)
        asked.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        raise AnsibleError(
            f"{', '.join(inventories)}: no answer of ansible-inventory within {INVENTORY_S:.0f} s; "
            "does it ask a service that is down?"
        ) from error
    if asked.returncode != 0:
        raise AnsibleError(f"{', '.join(inventories)}: not readable: {said.strip()}")
    return printed


def _resolved(inventories: Sequence[str]) -> list[str]:
    """Return inventories as Ansible finds them, which runs in the checkout."""
    return [one if "," in one else str(Path(one).resolve()) for one in inventories]


def _members(listed: Mapping[str, Any], name: str) -> list[str]:
    """Return the hosts of a group and of those within it, each once."""
    hosts: dict[str, None] = {}
    pending, seen = [name], set()
    while pending:
        group = pending.pop()
        if group in seen:
            continue
        seen.add(group)
        found = listed.get(group, {})
        hosts |= dict.fromkeys(_texts(found.get("hosts", [])))
        pending += reversed(_texts(found.get("children", [])))
    return list(hosts)


def _texts(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"{str(value)[:80]}: a list of names needed")
    return value


def _host_variables(listed: Mapping[str, Any], host: str) -> Mapping[str, Any]:
    variables = listed["_meta"]["hostvars"].get(host, {})
    if not isinstance(variables, dict):
        raise TypeError(f"the variables of {host}: {str(variables)[:80]} found, a mapping needed")
    return {name: _unmarked(value) for name, value in variables.items()}


def _unmarked(value: object) -> object:
    """Return a variable without the mark of those that an inventory plugin sets: not a template."""
    if isinstance(value, dict) and value.keys() == {_NO_TEMPLATE}:
        return value[_NO_TEMPLATE]
    return value


def end_strays(host: str = "") -> list[int]:
    """Kill what is left of playbooks that were cut off, so that it does nothing later.

    To be called by the one sweep of this machine, between its playbooks.

    Args:
        host: The one of several hosts whose playbooks are meant; those of every host if not given.

    Returns:
        The processes that did not die within 10 s.
    """
    deadline = time.monotonic() + _STRAYS_S
    while (strays := _strays(host)) and time.monotonic() < deadline:
        for pid in strays:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    return strays


def _strays(host: str) -> list[int]:
    # Another user of this machine has a lock of his own, and may carry out a sweep of another host.
    return with_environment(lambda found: marked(found, host), user=os.geteuid())


def marked(variable: bytes, host: str = "") -> bool:
    """Return whether a variable is the mark of a playbook's processes: a host's, or any's."""
    own = f"{_MARK}={_mark(host)}".encode()
    return variable == own or (not host and variable.startswith(own + b":"))


def _mark(host: str) -> str:
    return f"1:{host}" if host else "1"
