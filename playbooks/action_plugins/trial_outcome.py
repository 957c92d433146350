"""The outcome of a trial, for the controller: as this task's result, and on no disk."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Return ``outcome``, as `virtbed_contract.events.TrialOutcome` has it.

    Runs on the controller, whatever the host. Arguments:

        id, started_at: Of the trial.
        before: The readings before it, ``{}`` if it did not come to the trial itself.
        current: The latest readings: those after it, or those before it that held it back.
        process: What the role trial_run returned; ``{}`` if it did not come to that.
        failure: Name and result of the task that failed; none for a good trial.
    """

    _requires_connection = False
    _VALID_ARGS = frozenset({"id", "started_at", "before", "current", "process", "failure"})

    def run(self, tmp: str | None = None, task_vars: Any = None) -> dict[str, Any]:
        """Sort the task's arguments."""
        super().run(tmp, task_vars)
        given = self._task.args
        process, failure = given["process"], given.get("failure")
        outcome = {
            "id": given["id"],
            "started_at": given["started_at"],
            "result": process.get("result"),
            "process_wall_ns": process.get("wall_ns"),
            "evidence": {
                "before": given["before"] or given["current"],
                "inside": process.get("inside"),
                "after": given["current"] if given["before"] else None,
            },
            "failure": _failure(failure) if failure else None,
        }
        return {"changed": False, "outcome": outcome}


def _failure(failure: dict[str, Any]) -> dict[str, str]:
    # Only here, as it takes longer to import than a good trial takes to tell.
    from virtbed.events import failure_message

    return {
        "task": failure["task"],
        "message": failure_message(failure["task"], failure["result"]),
    }
