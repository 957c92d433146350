"""Run playbooks and yield their events as typed objects; the only module that calls Ansible.

A playbook runs in a separate thread. The event handler of ansible-runner only puts events into a
queue, because ansible-runner swallows I/O errors that are raised in it; the caller's thread takes
them out. The module also reads inventories, and kills processes that killed playbooks left.
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
from virtbed_contract.kernel.processes import mount_namespace, with_environment
from virtbed_contract.privileges import PLAY

# Environment variable by which processes of a playbook are recognized. Ansible's workers have
# their own sessions, and survive when ansible-playbook is killed.
_MARK = PLAY
# Seconds between ansible-runner's checks whether to end the playbook.
_LOOK_S = 1
_STARTED = tuple(field.name for field in fields(BlockStart))
_STRAYS_S = 10
INVENTORY_S = 120.0
"""Seconds that reading an inventory may take: an inventory program may query a service."""
# Actions that start a block or end a trial. Earlier failures have been reported by then.
_TELLING = {"block_started", "trial_outcome"}
_NO_TEMPLATE = "__ansible_unsafe"


class AnsibleError(RuntimeError):
    """Ansible cannot be run, or its output cannot be read."""


class Deadline:
    """The time limit of a playbook: it counts as hung `limit_s` seconds after the last `renew`."""

    def __init__(self, limit_s: float) -> None:
        self.renew(limit_s)

    def renew(self, limit_s: float) -> None:
        """Allow `limit_s` seconds from now on."""
        self.limit_s = limit_s
        self._at = time.monotonic() + limit_s

    @property
    def passed(self) -> bool:
        """Whether the time limit has passed."""
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
    """Run playbooks/<playbook>.yml, or its parts, and yield its events as they happen.

    The last event is `Ended`. Closing the iterator early ends the playbook.

    Args:
        playbook: The playbook's name.
        variables: Extra variables for the whole call.
        inventories: Paths, or lists of host names with a comma.
        deadline: When the playbook counts as hung, and is ended; it may be renewed meanwhile.
        logs: Where Ansible's own log is kept.
        limit: A pattern of hosts, as for --limit.
        parts: Names of playbooks that run one after another instead of `playbook`.
        turns: Variables of each turn. The playbook runs once per turn, in one process, until one
            turn fails: starting a process takes as long as many tasks. These variables can name
            the roles that the playbook imports.
        cancelled: Checked every second; True ends the playbook.
        host: The host that the playbook is for, if a sweep has several; `end_strays` recognizes
            its processes by this name.

    Raises:
        OSError: the files that Ansible needs, or its log, cannot be written.
        DocumentError: the result of one of our tasks does not satisfy its document.
    """
    # Each call has its own private directory: a reused one keeps the last call's variables.
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
            with suppress(OSError):  # the first error is raised
                logs.keep(playbook, call.log)
            raise
        runs.join()
        logs.keep(playbook, call.log)
        if call.error and not call.stopped:
            raise call.error
        yield call.ended()


@dataclass
class _Call:
    """One call of ansible-runner, which runs in a thread.

    Attributes:
        playbook: The playbook's name.
        private: Its private directory.
        deadline: When it counts as hung.
        cancelled: Whether it is to be ended.
        host: The host that it is for, if a sweep has several.
        events: Raw events of ansible-runner; None is the last.
        abandoned: Whether the caller no longer wants events.
        stopped: Why it was ended early; empty if it was not.
        status: ansible-runner's status.
        error: The exception that ended the thread.
        task: The task that started last.
        failure: The message of the last failure that was not reported with a trial.
        lost: Hosts that could not be reached.
    """

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
        """The file of Ansible's output."""
        return self.private / "artifacts" / self.playbook / "stdout"

    def run(
        self,
        variables: Mapping[str, Any],
        inventories: Sequence[str],
        limit: str | None,
        parts: Sequence[str],
        turns: Sequence[Mapping[str, Any]],
    ) -> None:
        """Run the playbook to its end. Exceptions are stored in `error`, never raised."""
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
                # A killed module leaves its unpacked files, and a killed Ansible its own: they are
                # in the private directory, and removed with it.
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
        """Enqueue an event of ansible-runner; return False: it must not write it to a file."""
        data = event.get("event_data", {})
        if event["event"] == "runner_on_start":
            self.task = f"{data.get('task', '')!r} on {data.get('host', '')}"
        elif event["event"] in {"runner_on_failed", "runner_on_unreachable"}:
            self.failure = failure_message(data.get("task", ""), data.get("res") or {})
            if event["event"] == "runner_on_unreachable":
                self.lost.append(str(data.get("host", "")))
        elif event["event"] == "runner_on_ok" and _action(data) in _TELLING:
            self.failure = ""  # reported with that trial; not the reason if the playbook ends later
        self.events.put(event)
        return False

    def _stop(self) -> bool:
        """Return whether ansible-runner is to end the playbook, and remember why."""
        if self.abandoned or self.cancelled():
            self.stopped = "canceled"
        elif self.deadline.passed:
            self.stopped = "hung"
        return bool(self.stopped)

    def ended(self) -> Ended:
        """Return the last event: how the playbook ended, and why."""
        if self.stopped == "hung":
            return Ended(
                "hung",
                f"the playbook {self.playbook} hung in the task {self.task or 'none'}: "
                f"it did not end within {self.deadline.limit_s:.0f} s, and was ended",
            )
        if self.stopped:
            return Ended("canceled", f"the playbook {self.playbook} was ended")
        if self.status == "successful":
            return Ended("successful")
        if self.failure:
            return Ended("failed", self.failure, tuple(self.lost))
        if self.task:  # the end of Ansible's output may be an earlier trial's failure
            without = f"ended in the task {self.task} without a message: {self.status}"
            return Ended("failed", f"the playbook {self.playbook} {without}")
        output = tail(self.log, 2000).decode(errors="replace").strip()
        return Ended("failed", output or f"playbook {self.playbook}: {self.status}")


def _typed(raw: Mapping[str, Any]) -> Iterator[Event]:
    """Yield the typed event of one of ansible-runner's raw events, if there is one."""
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
            yield BlockStarted(host, decode(BlockStart, start, action), str(result.get("boot", "")))
        elif action == "trial_outcome":
            yield TrialEnded(host, decode(TrialOutcome, result.get("outcome"), action))
        else:
            yield TaskOk(host, action, result)


def _action(data: Mapping[str, Any]) -> str:
    """Return the short name of a task's module."""
    return str(data.get("task_action", "")).rpartition(".")[2]


def _environment() -> dict[str, str]:
    return {
        "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ANSIBLE_NOCOLOR": "1",
        # Not in ansible.cfg: ansible-runner sets this variable, which would override it.
        "ANSIBLE_CALLBACK_PLUGINS": str(REPOSITORY / "playbooks" / "callback_plugins"),
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1",
        # ansible-runner turns it off if the environment does not set it, whatever ansible.cfg has.
        "ANSIBLE_HOST_KEY_CHECKING": os.environ.get("ANSIBLE_HOST_KEY_CHECKING", "True"),
    }


def bench_variables(
    inventories: Sequence[str], limit: str | None = None
) -> dict[str, Mapping[str, Any]]:
    """Return the variables of each host in the group `bench`, from ansible-inventory.

    Args:
        inventories: Paths, or lists of host names with a comma.
        limit: A pattern of hosts, as for --limit; other hosts are left out.

    Returns:
        Variables by host name, in the order of the inventory.

    Raises:
        AnsibleError: the inventory cannot be read.
    """
    printed = _printed(inventories, limit)
    try:
        listed = json_file.parse(printed, "the output of ansible-inventory")
    except DocumentError as error:
        raise AnsibleError(f"{', '.join(inventories)}: not readable: {error}") from error
    try:
        return {host: _host_variables(listed, host) for host in _members(listed, "bench")}
    except (KeyError, TypeError, AttributeError) as error:
        raise AnsibleError(
            f"{', '.join(inventories)}: {error!r} in the output of ansible-inventory, groups of "
            "hosts and their variables needed"
        ) from error


def _printed(inventories: Sequence[str], limit: str | None) -> str:
    """Return the output of `ansible-inventory --list`.

    Raises:
        AnsibleError: it fails, or does not end within INVENTORY_S seconds.
    """
    tool = str(Path(sys.executable).with_name("ansible-inventory"))
    words = [word for one in _resolved(inventories) for word in ("--inventory", one)]
    words += [f"--limit={limit}"] if limit else []
    process = subprocess.Popen(
        [tool, *words, "--list"], cwd=require(), env=os.environ | _environment(), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    try:
        printed, errors = process.communicate(timeout=INVENTORY_S)
    except BaseException as error:
        with suppress(ProcessLookupError):  # its children, too: they keep the pipes open
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        raise AnsibleError(
            f"{', '.join(inventories)}: no answer from ansible-inventory within "
            f"{INVENTORY_S:.0f} s; does the inventory query a service that is down?"
        ) from error
    if process.returncode != 0:
        raise AnsibleError(f"{', '.join(inventories)}: not readable: {errors.strip()}")
    return printed


def _resolved(inventories: Sequence[str]) -> list[str]:
    """Return inventories with absolute paths, since Ansible runs in the checkout."""
    return [one if "," in one else str(Path(one).resolve()) for one in inventories]


def _members(listed: Mapping[str, Any], name: str) -> list[str]:
    """Return the hosts of a group and of its child groups, each once."""
    hosts: dict[str, None] = {}
    pending, seen = [name], set()
    while pending:
        group = pending.pop()
        if group in seen:
            continue
        seen.add(group)
        members = listed.get(group, {})
        hosts |= dict.fromkeys(_texts(members.get("hosts", [])))
        pending += reversed(_texts(members.get("children", [])))
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
    """Return a variable without Ansible's wrapper for values that must not be templated.

    Values that come from an inventory plugin have it.
    """
    if isinstance(value, dict) and value.keys() == {_NO_TEMPLATE}:
        return value[_NO_TEMPLATE]
    return value


def end_strays(host: str = "") -> list[int]:
    """Kill leftover processes of interrupted playbooks, which could change the host later.

    The caller must be the only sweep on this machine, and have no playbook running.

    Args:
        host: The host whose playbooks are meant, if a sweep has several; empty for all.

    Returns:
        The ids of the processes that did not end within 10 s.
    """
    deadline = time.monotonic() + _STRAYS_S
    while (strays := _strays(host)) and time.monotonic() < deadline:
        for pid in strays:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    return strays


def _strays(host: str) -> list[int]:
    # This user's processes only, and none in another mount namespace: those belong to another lock,
    # whose holder may carry out a sweep of another host.
    found = with_environment(lambda variable: marked(variable, host), user=os.geteuid())
    return [pid for pid in found if mount_namespace(pid) == mount_namespace()]


def marked(variable: bytes, host: str = "") -> bool:
    """Return whether an environment variable marks a process of a playbook.

    Args:
        variable: NAME=VALUE, as /proc/PID/environ has it.
        host: The host that the playbook must be for; empty for any.
    """
    own = f"{_MARK}={_mark(host)}".encode()
    return variable == own or (not host and variable.startswith(own + b":"))


def _mark(host: str) -> str:
    return f"1:{host}" if host else "1"
