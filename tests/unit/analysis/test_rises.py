"""A rise is reported only if nothing contradicts it."""

from __future__ import annotations

from typing import Any

import pytest

from virtbed_analysis.rises import ABOVE, CANNOT_TELL, NOT_ABOVE, judged, vanished

from .conftest import DEFAULTS, LISTED

LIMIT = 0.03


def effect(value: float, low: float | None, high: float | None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high}


def lost(first: int = 0, second: int = 0, of: int = 5, late: bool = True) -> dict[str, Any]:
    sides = {"first": first, "second": second}
    return {s: {"lost": n, "of": of, "late": n if late else 0} for s, n in sides.items()}


def row(**changes: Any) -> dict[str, Any]:
    """Return a cell of a comparison whose cost stayed what it was."""
    return {
        "baseline": False, "time": effect(1.0, None, None), "cost": effect(1.0, 0.99, 1.01),
        "other_answers": [], "lost": lost(), "lost_metal": lost(),
    } | changes  # fmt: skip


def verdict(*rows: dict[str, Any], gone: tuple[dict[str, Any], ...] = ()) -> Any:
    found = judged(rows, gone, LIMIT)
    return found["verdict"], [one["why"] for one in found["unclear"]]


def test_a_cost_that_stayed_did_not_rise() -> None:
    assert verdict(row()) == (NOT_ABOVE, [])


def test_a_cost_whose_whole_interval_is_beyond_the_limit_rose() -> None:
    found = judged([row(cost=effect(1.1, 1.05, 1.15)), row()], [], LIMIT)
    assert (found["verdict"], found["judged"]) == (ABOVE, 2)
    assert [(one["what"], one["effect"]["value"]) for one in found["above"]] == [("cost", 1.1)]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"cost": effect(1.02, 0.98, 1.06)}, ""),
        ({"cost": effect(1.0, None, None)}, "no interval"),
        ({"cost": None}, "no common replicate or input"),
        (
            {"other_answers": ["second"]},
            "answers differ from bare metal's in the second: other work",
        ),
        ({"lost": lost(second=2)}, "0 of 5 trials and 2 of 5 trials lost"),
        ({"lost_metal": lost(first=1)}, "1 of 5 trials and 0 of 5 trials of bare metal lost"),
        ({"time": effect(1.2, None, None)}, "no interval"),
    ],
)
def test_a_rise_that_may_be_hidden_is_undecided(changes: dict[str, Any], why: str) -> None:
    assert verdict(row(**changes)) == (CANNOT_TELL, [why])


@pytest.mark.parametrize("side", ["lost", "lost_metal"])
def test_a_rise_over_a_side_without_its_slow_trials_is_unclear(side: str) -> None:
    """The first side's own, or the second's bare metal's: late trials were ended at a limit."""
    missing = lost(first=2) if side == "lost" else lost(second=2)
    risen = row(cost=effect(1.1, 1.05, 1.15), **{side: missing})
    assert verdict(risen)[0] == CANNOT_TELL
    # Those that were lost for another reason may have been quick ones.
    early = lost(first=2, late=False) if side == "lost" else lost(second=2, late=False)
    assert verdict(row(cost=effect(1.1, 1.05, 1.15), **{side: early}))[0] == ABOVE


def test_a_cell_without_a_result_is_undecided() -> None:
    assert verdict(row(), gone=(row(),)) == (CANNOT_TELL, ["none in the second"])
    assert verdict()[0] == CANNOT_TELL


def test_cells_of_one_side_are_named_up_to_three() -> None:
    cell = DEFAULTS | {
        "platform": "cn", "mode": "pinned", "cores": 1, "application": "faces", "scale": "tiny",
        "scenario": "single_stream",
    }  # fmt: skip
    text = vanished(([cell] * 4, []), LISTED)
    assert text.startswith(" 4 cells of the first without a result in the second: container, ")
    assert text.endswith("; and 1 more.")
    assert vanished(([], []), LISTED) == ""
