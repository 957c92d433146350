from __future__ import annotations

from typing import Any

import pytest

from virtbed.events import failure_message

FAILED = {"msg": "non-zero return code", "rc": 1}


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ({"stderr": "", "stdout": "Cannot connect\r\n"}, "non-zero return code: Cannot connect"),
        ({"stderr": "no such file", "stdout": "half"}, "non-zero return code: no such file"),
        ({"stderr": "", "stdout": ""}, "non-zero return code"),
        # A condition on what was printed has its own words.
        ({"rc": 0, "stdout": "all of a listing"}, "non-zero return code"),
    ],
)
def test_the_failure_message_has_the_output_of_a_command_on_a_terminal(
    printed: dict[str, Any], expected: str
) -> None:
    assert failure_message("t", FAILED | printed) == expected
