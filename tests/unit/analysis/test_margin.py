"""The answer of an interval at a margin, and how often it is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from virtbed_analysis import report
from virtbed_analysis.document import document
from virtbed_analysis.frames import read_sweep
from virtbed_analysis.intervals import mean_interval
from virtbed_analysis.margin import answer, change, note, with_answers
from virtbed_contract.sweep import MARGIN

NONE, NAN, INF = None, float("nan"), float("inf")


@pytest.mark.parametrize(
    ("low", "high", "expected", "added"),
    [
        (0.99, 1.02, "equivalent", None),
        (1.005, 1.02, "equivalent", "a difference is seen, smaller than 3%"),
        (0.975, 0.99, "equivalent", "a difference is seen, smaller than 3%"),
        (1.01, 1.04, "differs", "whether by 3% or more is undecided"),
        (0.95, 0.99, "differs", "whether by 3% or more is undecided"),
        (1.05, 1.40, "differs", None),
        (0.50, 0.90, "differs", None),
        (0.98, 1.05, "cannot tell", "anything from 2% less to 5% more is possible"),
        (0.971, 1.0301, "cannot tell", "anything from 2.9% less to 3% more is possible"),
        (1.0, 1.05, "cannot tell", "anything from no more to 5% more is possible"),
        (0.9, 3.0, "cannot tell", "anything from 10% less to 3 times as much is possible"),
        (0.0, INF, "cannot tell", None),
        (NONE, NONE, "cannot tell", None),
        (NAN, NAN, "cannot tell", None),
        (1.0, 1.0, "cannot tell", "the replicates are alike to the last digit, which shows no"),
        (1.35, 1.35, "cannot tell", "the replicates are alike to the last digit, which shows no"),
    ],
)
def test_an_interval_gives_one_of_three_answers_at_a_margin_of_3_percent(
    low: float | None, high: float | None, expected: str, added: str | None
) -> None:
    assert answer(low, high, 0.03) == expected
    if added:
        assert str(note(low, high, 0.03)).startswith(added)
    elif expected != "cannot tell":
        assert note(low, high, 0.03) is None


def test_the_margin_is_symmetric_on_the_logarithmic_scale() -> None:
    """A cell that is equivalent to bare metal is so, too, if bare metal is compared with it."""
    ends = np.exp(np.linspace(-0.1, 0.1, 81))
    for low in ends:
        for high in ends[ends > low]:
            assert answer(low, high, 0.03) == answer(1 / high, 1 / low, 0.03)


def test_an_interval_half_as_wide_as_the_margin_always_has_an_answer() -> None:
    half = np.log1p(0.03) / 2 - 1e-9
    middles = np.linspace(-0.08, 0.08, 321)
    answers = {answer(float(np.exp(m - half)), float(np.exp(m + half)), 0.03) for m in middles}
    assert answers == {"differs", "equivalent"}


@pytest.mark.parametrize(
    ("truth", "wrong", "at_most"),
    [(1.0, "differs", 0.055), (1.03, "equivalent", 0.03), (1 / 1.03, "equivalent", 0.03),
     (1.06, "equivalent", 0.001)],
)  # fmt: skip
@pytest.mark.parametrize("replicates", [3, 5, 10, 30])
def test_answers_are_seldom_wrong(
    truth: float, wrong: str, at_most: float, replicates: int
) -> None:
    """2000 sweeps with a spread of 0.2 to 3%; 0.5 points are left to chance."""
    random = np.random.default_rng(replicates)
    spread = np.exp(random.uniform(np.log(0.002), np.log(0.03), (2000, 1)))
    logs = np.log(truth) + spread * random.normal(size=(2000, replicates))
    low, high = mean_interval(
        logs.mean(axis=1), logs.std(axis=1, ddof=1), np.full(2000, replicates)
    )
    answers = [
        answer(float(a), float(b), 0.03) for a, b in zip(np.exp(low), np.exp(high), strict=True)
    ]
    assert answers.count(wrong) / 2000 <= at_most  # type: ignore[arg-type]


def test_rows_without_a_ratio_have_no_answer() -> None:
    rows = with_answers([{"ratio": None, "ratio_low": None, "ratio_high": None}], 0.03)
    assert (rows[0]["answer"], rows[0]["answer_note"]) == (None, None)


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(1.05, "5% more"), (0.5, "50% less"), (1.0, "no more"), (2.0, "2 times as much")],
)
def test_a_ratio_is_worded_as_a_change(ratio: float, text: str) -> None:
    assert change(ratio) == text


def lay(folder: Any, margin: float | None) -> dict[str, Any]:
    """cn pinned costs 2%, known within 0.5%; cn vanilla 35%; vm pinned nothing, badly known."""
    wobble = [0.998, 1.003, 1.0, 1.002, 0.997]
    for replicate, own in enumerate(wobble, start=1):
        far = 1 + 40 * (own - 1)
        for platform, mode, cost in (
            ("bm", "pinned", 1.0),
            ("cn", "pinned", 1.02 * own),
            ("cn", "vanilla", 1.35 * own**2),
            ("vm", "pinned", far),
        ):
            folder.trial(platform, mode, replicate, {"a.png": [20 * cost] * 3})
    if margin is not None:
        folder.design["margin"] = margin
        folder.write("design.json", folder.design)
    return document(read_sweep(folder.path))


@pytest.mark.parametrize(
    ("margin", "pinned"), [(None, "equivalent"), (0.03, "equivalent"), (0.01, "differs")]
)
def test_each_cell_of_a_report_has_its_answer_at_the_plans_margin(
    folder: Any, margin: float | None, pinned: str
) -> None:
    content = lay(folder, margin)
    assert content["margin"] == (margin or MARGIN)
    answers = {(row["platform"], row["mode"]): row["answer"] for row in content["cells"]}
    assert answers == {
        ("bm", "pinned"): None,
        ("cn", "pinned"): pinned,
        ("cn", "vanilla"): "differs",
        ("vm", "pinned"): "cannot tell",
    }
    page = report(folder.path).html.read_text()
    assert f"Answer at {100 * (margin or MARGIN):.0f}%" in page
    assert all(f"<td>{word}" in page for word in set(answers.values()) - {None})


def test_the_other_ratios_of_a_report_have_answers_too(folder: Any) -> None:
    content = lay(folder, None)
    assert [row["answer"] for row in content["vanilla_to_pinned"]] == ["differs"]
    memory = next(t for t in content["other_measures"] if t["name"] == "peak_memory")
    assert {row["answer"] for row in memory["rows"]} == {None, "cannot tell"}
    assert "no precision" in memory["rows"][-1]["answer_note"]
