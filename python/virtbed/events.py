"""What a playbook tells while it runs, as typed events; each carries its host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from virtbed_contract.events import BlockStart, TrialOutcome


@dataclass(frozen=True)
class TaskOk:
    """A task that did what it should on one host; `action` is its module's short name."""

    host: str
    action: str
    result: Mapping[str, Any]


@dataclass(frozen=True)
class TaskFailed:
    """A task that failed on one host, or could not reach it; a rescue may follow."""

    host: str
    task: str
    message: str


@dataclass(frozen=True)
class BlockStarted:
    """A block has started: its instance is about to be provisioned."""

    host: str
    start: BlockStart


@dataclass(frozen=True)
class TrialEnded:
    """A trial has ended, well or not."""

    host: str
    outcome: TrialOutcome


@dataclass(frozen=True)
class Ended:
    """The playbook has ended: the last event.

    `message` says why it did not end well; `lost` names the hosts that could not be reached.
    """

    status: Literal["successful", "failed", "canceled", "hung"]
    message: str = ""
    lost: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every task did what it should."""
        return self.status == "successful"


Event = TaskOk | TaskFailed | BlockStarted | TrialEnded | Ended


def failure_message(task: str, result: Mapping[str, Any]) -> str:
    """Return the one message of a failed task; a looped task has one for each item that failed."""
    items = [r for r in result.get("results", []) if isinstance(r, dict) and r.get("failed")]
    texts = [str(r.get("msg") or "").strip() for r in (items or (result,))]
    said = "; ".join(dict.fromkeys(filter(None, texts)))
    # Over SSH a raw command has a terminal, on which its errors come as its output.
    printed = result.get("stderr") or (result.get("stdout") if result.get("rc") else "")
    words = str(printed or "").strip()[-1000:]
    return (said if not words or words in said else f"{said}: {words}") or f"task failed: {task}"
