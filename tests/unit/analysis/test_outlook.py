"""What a reader is given with an answer: what counts, what would change it, what was not seen."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from virtbed_analysis import outlook
from virtbed_analysis.answers import Case, Verdict
from virtbed_analysis.engine import Effect
from virtbed_analysis.findings import FINDINGS, Finding


def finding(rule: str, side: str) -> Finding:
    return replace(FINDINGS[0], rule=rule, side=side, needs="two cells")  # type: ignore[arg-type]


def case(
    side: str, value: float, low: float | None, high: float | None, n: int = 5, about: str = "it"
) -> Case:
    return Case(Effect(about, value, low, high, n), side)  # type: ignore[arg-type]


def verdict(rule: str, side: str, answer: str, *cases: Case, limit: float = 1.03) -> Verdict:
    return Verdict(finding(rule, side), limit, answer, list(cases), [])  # type: ignore[arg-type]


FOR = case("for", 1.2, 1.1, 1.3)
AGAINST = case("against", 0.9, 0.85, 0.95)
OPEN = case("neither", 1.1, 1.0, 1.21)


@pytest.mark.parametrize(
    ("rule", "side", "said"),
    [
        ("somewhere", "above", "Effects above 1.030 count."),
        ("somewhere", "apart", "Effects above 1.030 or below 0.971 count."),
        ("falls", "above", "A step above 1.030 counts as a fall, one below 0.971 as a rise."),
    ],
)
def test_effects_on_the_claims_side_of_the_limit_count(rule: str, side: str, said: str) -> None:
    assert outlook.margin(verdict(rule, side, "inconclusive", OPEN)) == said


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (verdict("somewhere", "above", "not tested"), "A test needs two cells."),
        (
            verdict("somewhere", "above", "supported", FOR, FOR),
            "if it were not above 1.030, nor any of the 1 others that support it",
        ),
        (verdict("everywhere", "above", "supported", FOR), "if one case were not above 1.030"),
        (verdict("somewhere", "above", "refuted", AGAINST), "One case above 1.030 would support"),
        (verdict("everywhere", "above", "refuted", AGAINST), "It would be open again if it, which"),
    ],
)
def test_what_would_change_an_answer_depends_on_its_rule(asked: Verdict, said: str) -> None:
    assert said in outlook.would_change(asked)


def test_an_open_answer_says_how_many_replicates_would_decide() -> None:
    """Half an interval falls with the root of their number, and must not reach the limit."""
    away, half = math.log(1.1 / 1.03), math.log(1.21) / 2
    needed = math.ceil(5 * (half / away) ** 2)
    said = outlook.would_change(verdict("somewhere", "above", "inconclusive", OPEN))
    assert said.startswith(f"About {needed} replicates instead of 5")


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (case("neither", 1.03, 0.9, 1.2), "more than 999 replicates would be needed"),
        (case("neither", 1.1, None, None, n=1), "needs more than 1 replicate for an interval"),
        (replace(OPEN, no_spread=True), "needs replicates that differ, as measured times do"),
    ],
)
def test_a_finding_that_no_number_of_replicates_decides_is_reported_as_such(
    one: Case, said: str
) -> None:
    assert said in outlook.would_change(verdict("somewhere", "above", "inconclusive", one))


def test_undetectable_effects_are_within_half_an_interval_of_the_limit() -> None:
    blind = case("neither", 1.5, None, None, n=1)
    said = outlook.not_seen(verdict("somewhere", "above", "inconclusive", OPEN, blind))
    assert "within 10.0% of the limit" in said and "1 effect has no interval" in said
    assert "no measured cell" in outlook.not_seen(verdict("falls", "above", "not tested"))
    assert outlook.half_width(blind.effect) is None
