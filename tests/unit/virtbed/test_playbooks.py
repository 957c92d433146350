from __future__ import annotations

from virtbed.playbooks import failure_message


def test_the_message_of_a_plain_task_carries_its_stderr() -> None:
    assert failure_message("t", {"msg": "non-zero return code", "stderr": "no such file"}) == (
        "non-zero return code: no such file"
    )


def test_a_looped_task_says_what_failed_once_each() -> None:
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
