"""Action plugin: report the outcome of a trial to the controller, as this task's result."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Return ``outcome``, the fields of a `virtbed_contract.events.TrialOutcome`.

    It runs on the controller, for whichever host, and writes no file. Arguments:

        id, started_at: Those of the trial.
        before: The readings before it; ``{}`` if the trial did not start.
        current: The latest readings: those after it or, if the trial did not start, those before.
        process: The result of the role trial_run; ``{}`` if the trial did not get that far.
        failure: Name and result of the task that failed; left out for a good trial.
    """

    _requires_connection = False
    _VALID_ARGS = frozenset({"id", "started_at", "before", "current", "process", "failure"})

    def run(self, tmp: str | None = None, task_vars: Any = None) -> dict[str, Any]:
        """Make the outcome from the task's arguments."""
        super().run(tmp, task_vars)
        args = self._task.args
        process, failure = args["process"], args.get("failure")
        outcome = {
            "id": args["id"],
            "started_at": args["started_at"],
            "result": process.get("result"),
            "process_wall_ns": process.get("wall_ns"),
            "evidence": {
                "before": args["before"] or args["current"],
                "inside": process.get("inside"),
                "after": args["current"] if args["before"] else None,
            },
            "failure": _failure(failure) if failure else None,
        }
        return {"changed": False, "outcome": outcome}


def _failure(failure: dict[str, Any]) -> dict[str, str]:
    """Return the failed task's name and message."""
    # Imported here, since the import takes longer than this task for a good trial.
    from virtbed.events import failure_message

    return {
        "task": failure["task"],
        "message": failure_message(failure["task"], failure["result"]),
    }
