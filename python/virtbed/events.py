"""The events of a running playbook, as typed objects; `virtbed.ansible.play` yields them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from virtbed_contract.events import BlockStart, TrialOutcome


@dataclass(frozen=True)
class TaskOk:
    """A task that succeeded on one host; `action` is the short name of its module."""

    host: str
    action: str
    result: Mapping[str, Any]


@dataclass(frozen=True)
class TaskFailed:
    """A task that failed on one host, or could not reach it; the playbook may rescue it."""

    host: str
    task: str
    message: str


@dataclass(frozen=True)
class BlockStarted:
    """A block has started: its instance is about to be provisioned.

    Attributes:
        host: The bench host's name in the inventory.
        start: The document of the start.
        boot: The id of the bench host's boot; empty if it is not known.
    """

    host: str
    start: BlockStart
    boot: str = ""


@dataclass(frozen=True)
class TrialEnded:
    """A trial has ended, well or not."""

    host: str
    outcome: TrialOutcome


@dataclass(frozen=True)
class Ended:
    """The playbook has ended; always the last event.

    Attributes:
        status: How it ended.
        message: Why it did not succeed; empty if it did.
        lost: Names of the hosts that could not be reached.
    """

    status: Literal["successful", "failed", "canceled", "hung"]
    message: str = ""
    lost: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every task succeeded."""
        return self.status == "successful"


Event = TaskOk | TaskFailed | BlockStarted | TrialEnded | Ended


def failure_message(task: str, result: Mapping[str, Any]) -> str:
    """Return the message of a failed task: its `msg`, and the end of the output on stderr.

    A task with a loop has one message per failed item; they are joined.

    Args:
        task: The task's name, for tasks without a message.
        result: The task's result.
    """
    items = [r for r in result.get("results", []) if isinstance(r, dict) and r.get("failed")]
    texts = [str(r.get("msg") or "").strip() for r in (items or (result,))]
    message = "; ".join(dict.fromkeys(filter(None, texts)))
    # Over SSH a raw command has a terminal, where its errors appear in its output.
    printed = result.get("stderr") or (result.get("stdout") if result.get("rc") else "")
    output = str(printed or "").strip()[-1000:]
    whole = message if not output or output in message else f"{message}: {output}"
    return whole or f"task failed: {task}"
