"""Trials without times are counted for their cell, by the way they were lost."""

from __future__ import annotations

from typing import Any

import pytest

from virtbed_analysis.cells import CELL, key_of
from virtbed_analysis.losses import Lost, is_late, losses

from .conftest import DEFAULTS

ROW: dict[str, Any] = DEFAULTS | {
    "platform": "cn", "mode": "pinned", "cores": 1, "application": "faces", "scale": "tiny",
    "scenario": "single_stream", "replicates": 4,
}  # fmt: skip
OTHER = ROW | {"platform": "bm"}
TRIAL = "cn-pinned-c01-faces-r05"


@pytest.mark.parametrize(
    ("message", "late"),
    [
        ("trial_run: still running after 600 s, ended", True),
        ("the trial timed out", True),
        ("a playbook hung", True),
        ("wrong answer: a.png: answered 'mug'", False),
        ("a hungarian text", False),
        ("", False),
    ],
)
def test_a_trial_that_hit_a_time_limit_is_recognised_by_its_message(
    message: str, late: bool
) -> None:
    assert is_late(message) is late


def test_each_way_of_losing_a_trial_counts_for_its_own_cell() -> None:
    content = {
        "failed": [
            {"trial": TRIAL, "message": "still running after 600 s"},
            {"trial": TRIAL.replace("r05", "r06"), "message": "wrong answer"},
        ],
        "rejected": [
            {"file": f"trials/{TRIAL.replace('r05', 'r07')}/result.json"},
            {"file": "earlier/1/x/result.json"},
            {"file": "design.json"},
        ],
        "loadgen": {"trials": [{**ROW, "usable": False}, {**ROW, "usable": True}]},
    }
    found = losses(content, [ROW, OTHER])
    assert found[key_of(ROW)] == Lost(measured=4, failed=2, late=1, rejected=1, invalid=1)
    assert found[key_of(OTHER)] == Lost(measured=4)
    assert found[key_of(ROW)].in_words() == (
        "2 of 7 trials failed, 1 of 7 trials left a result that cannot be trusted, "
        "LoadGen calls 1 of 7 trials INVALID"
    )
    assert found[key_of(OTHER)].in_words() == ""


def test_an_id_of_two_scales_counts_for_both_unless_its_cell_is_known() -> None:
    trained = ROW | {"scale": "trained"}
    row: dict[str, Any] = {"trial": TRIAL, "message": ""}
    found = losses({"failed": [row]}, [ROW, trained])
    assert [found[key_of(one)].failed for one in (ROW, trained)] == [1, 1]
    known = row | {"cell": {name: trained[name] for name in CELL}}
    found = losses({"failed": [known]}, [ROW, trained])
    assert [found[key_of(one)].failed for one in (ROW, trained)] == [0, 1]
