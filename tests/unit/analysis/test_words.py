"""Numbers and cells in words, as every page and table says them."""

from __future__ import annotations

from typing import Any

import pytest

from virtbed_analysis import words

from .conftest import DEFAULTS, LISTED

ROW = DEFAULTS | {
    "platform": "cn", "mode": "vanilla", "cores": 1, "application": "faces", "scale": "tiny",
    "scenario": "single_stream", "weights": "trained",
}  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [(8.412, "8.41"), (99.99, "99.99"), (151.26, "151.3"), (5501.6, "5,502"), (None, words.NONE)],
)
def test_times_have_the_digits_that_a_reader_can_use(value: float | None, text: str) -> None:
    assert words.ms(value) == text


def test_ratios_shares_and_percentages() -> None:
    assert (words.ratio(1.3512), words.ratio(None)) == ("1.351", words.NONE)
    assert (words.share(0.0625), words.share(None)) == ("0.0625", words.NONE)
    said = [words.percentage(value) for value in (0.0035, 0.03, 0.1234, 12.5, None)]
    assert said == ["0.35%", "3%", "12%", "1,250%", words.NONE]
    assert words.percent() == "95%"


def test_a_change_has_its_sign() -> None:
    assert [words.signed(share) for share in (0.619, -0.0023, 0.9951, 16.6)] == [
        "+62%", "-0.23%", "+100%", "+1,700%",
    ]  # fmt: skip
    row = {"points": -0.02, "low": None, "high": None}
    assert words.points(row) == "-2.0"
    assert words.points({**row, "low": -0.03, "high": 0.01}, "%") == "-2.0% (-3.0 to +1.0)"


def test_one_is_singular() -> None:
    assert [words.count(number, "core") for number in (0, 1, 2)] == ["0 cores", "1 core", "2 cores"]


def test_a_cell_is_named_in_words_and_by_its_code() -> None:
    said = "container, CPU quota (cn vanilla) at 1 core, faces, tiny"
    assert words.placed(ROW, LISTED) == said
    # Of a platform that nobody describes, the code alone.
    assert words.platform({**ROW, "platform": "own"}, LISTED) == "own vanilla"
    twin = {**ROW, "mode": "pinned", "variant": "twin"}
    assert words.code(twin) == "cn pinned twin"
    assert words.plainly(twin, LISTED) == "container, pinned, twin"
    assert words.plainly({**ROW, "label": "as it was"}, LISTED) == "as it was"


def test_a_subject_names_factors_without_their_default() -> None:
    assert words.subject(ROW) == "faces, tiny"
    other = ROW | {"scenario": "offline", "thread_policy": "matched", "weights": "seeded"}
    assert words.subject(other) == "faces, tiny, offline, matched threads, seeded weights"
    rows = [ROW, {**ROW, "cores": 2}, other]
    assert [(name, len(group)) for name, group in words.by_subject(rows)] == [
        (words.subject(ROW), 2), (words.subject(other), 1),
    ]  # fmt: skip


def test_the_time_of_a_ratio_depends_on_the_scenario() -> None:
    assert words.of_what(ROW, 1.25) == ""
    assert words.of_what({**ROW, "scenario": "server"}, 1.25) == "of latency"
    offline = words.of_what({**ROW, "scenario": "offline"}, 1.25)
    assert offline == "of time per sample: 20.0% less throughput"
    assert words.throughput(0.8) == "25.0% more throughput"
    assert words.times_of(["single_stream"]) == ""
    assert words.times_of(["server", "single_stream", "multi_stream"]) == (
        "e2e time (single_stream); latency, queue included (server and multi_stream)"
    )


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([], ""), ([3], "3"), ([2, 1], "1-2"), ([1, 2, 3, 5, 8, 9], "1-3, 5, 8-9")],
)
def test_numbers_are_folded(numbers: list[int], text: str) -> None:
    assert words.numbers_in_brief(numbers) == text


def test_a_panel_is_described_by_its_least_and_its_most() -> None:
    rows: list[dict[str, Any]] = [
        {**ROW, "ratio": 1.4}, {**ROW, "mode": "pinned", "cores": 2, "ratio": 1.0},
        {**ROW, "ratio": None},
    ]  # fmt: skip
    assert words.extremes(rows, "ratio", words.ratio) == (
        "3 cells, from 1.000 (cn pinned at 2 cores) to 1.400 (cn vanilla at 1 core)."
    )
    assert words.extremes(rows[:1], "ratio", words.ratio) == "cn vanilla at 1 core, 1.400."
    assert words.extremes(rows[2:], "ratio", words.ratio) == "1 cell, none known."


def test_progress_names_what_is_not_zero() -> None:
    counts: dict[str, int | None] = {
        "analysed": 5, "planned": 8, "emulated": 0, "suspect": 2, "failed": 1, "waiting": 0,
        "unneeded": 0, "rejected": 1,
    }  # fmt: skip
    said = "5 of 8 planned trials analysed, 2 suspect, 1 failed, 1 file rejected."
    assert words.progress(counts) == said
    assert words.progress({**counts, "planned": None, "rejected": 2}).startswith("5 trials")


def test_a_rise_is_reported_with_the_reason_why_it_is_undecided() -> None:
    named = ROW | {"what": "cost", "effect": None, "why": "no interval"}
    fail: dict[str, Any] = {
        "limit": 0.03, "verdict": "cannot tell", "judged": 1, "above": [], "unclear": [named],
    }  # fmt: skip
    assert words.rise(fail) == (
        "Nothing is clearly more than 3% above the first; it may be: cost of cn vanilla at 1 core, "
        "faces, tiny: no interval."
    )
    risen = {**named, "effect": {"value": 1.25}, "why": ""}
    above = words.rise({**fail, "verdict": "above", "above": [risen] * 7})
    assert above.startswith("Clearly more than 3% above the first: cost of cn vanilla at 1 core")
    assert above.endswith("faces, tiny: 1.250; and 2 more.")
    nothing = {**fail, "judged": 0, "unclear": []}
    assert "whether any rose by more than 3% is unknown" in words.rise(nothing)
