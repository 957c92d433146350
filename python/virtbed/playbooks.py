"""Knows alone how a playbook is called: sole user of ansible-runner."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ansible_runner

from virtbed.image import REPOSITORY

# Ansible's workers have sessions of their own, and outlive the ansible-playbook that is killed.
_MARK = "VIRTBED_PLAY"


@dataclass
class Outcome:
    """How a playbook ended. `results` are the module results by module name, in order."""

    status: str
    message: str = ""
    log: str = ""
    results: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every task did what it should."""
        return self.status == "successful"


def play(
    playbook: str,
    variables: dict[str, Any],
    inventories: Sequence[Path],
    cancelled: Callable[[], bool] = lambda: False,
    heard: Callable[[str, dict[str, Any]], None] | None = None,
    turns: Sequence[dict[str, Any]] = ({},),
) -> Outcome:
    """Run playbooks/<playbook>.yml and wait for its end.

    With `turns` it runs once for each, with its variables beside the others, until one fails: one
    process, whose start takes as long as many tasks.

    `heard` is called with the module and the result of each task that went well, as soon as it has;
    those results are not kept.

    A private directory of its own for each call: a reused one keeps the last call's variables.
    """
    outcome = Outcome("failed")

    def hear(event: dict[str, Any]) -> None:
        data = event.get("event_data", {})
        result = data.get("res")
        if not isinstance(result, dict):
            return
        action = str(data.get("task_action", "")).rpartition(".")[2]
        if event["event"] == "runner_on_ok":
            if heard:
                heard(action, result)
            else:
                outcome.results.setdefault(action, []).append(result)
        elif event["event"] in {"runner_on_failed", "runner_on_unreachable"}:
            outcome.message = failure_message(data.get("task", ""), result)

    tools = Path(sys.executable).parent
    path = str(REPOSITORY / "playbooks" / f"{playbook}.yml")
    with tempfile.TemporaryDirectory(prefix="virtbed-runner-") as private:
        in_turn = Path(private, "turns.yml")
        in_turn.write_text(json.dumps([{"import_playbook": path, "vars": turn} for turn in turns]))
        runner = ansible_runner.run(
            private_data_dir=private,
            project_dir=str(REPOSITORY),
            playbook=str(in_turn),
            inventory=[str(path.resolve()) for path in inventories],
            extravars=variables,
            envvars={
                "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
                "PATH": f"{tools}:{os.environ['PATH']}",
                "ANSIBLE_NOCOLOR": "1",
                _MARK: "1",
            },
            quiet=True,
            event_handler=hear,
            cancel_callback=cancelled,
        )
        outcome.status = str(runner.status)
        stdout = Path(private, "artifacts", runner.config.ident, "stdout")
        outcome.log = stdout.read_text(errors="replace") if stdout.exists() else ""
    if not outcome.ok and not outcome.message:
        outcome.message = outcome.log.strip()[-2000:] or f"playbook {playbook}: {outcome.status}"
    return outcome


def end_strays() -> list[int]:
    """Kill what is left of playbooks that were cut off, so that it does nothing later.

    To be called by the one sweep of this machine, between its playbooks. Returns the processes that
    did not die within 10 s.
    """
    deadline = time.monotonic() + 10
    while (strays := having(marked)) and time.monotonic() < deadline:
        for pid in strays:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    return strays


def marked(variable: bytes) -> bool:
    """Return whether a variable is the mark of a playbook's processes."""
    return variable == f"{_MARK}=1".encode()


def having(holds: Callable[[bytes], bool], proc: Path = Path("/proc")) -> list[int]:
    """Return the processes that have such a variable in their environment, this one excepted."""
    found = []
    for entry in proc.iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):  # it ended, or belongs to somebody else
                if any(map(holds, (entry / "environ").read_bytes().split(b"\0"))):
                    found.append(int(entry.name))
    return found


def failure_message(task: str, result: Mapping[str, Any]) -> str:
    """Return the one message of a failed task; a looped task has one for each item that failed."""
    items = [r for r in result.get("results", []) if isinstance(r, dict) and r.get("failed")]
    texts = [str(r.get("msg") or "").strip() for r in (items or (result,))]
    said = "; ".join(dict.fromkeys(filter(None, texts)))
    stderr = str(result.get("stderr") or "").strip()[-1000:]
    return (said if not stderr or stderr in said else f"{said}: {stderr}") or f"task failed: {task}"
