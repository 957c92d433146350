"""Warnings about a ratio's interval: in the document, on the page, and reproducible."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from virtbed_analysis import robust
from virtbed_analysis.document import document
from virtbed_analysis.effects import together
from virtbed_analysis.frames import read_sweep
from virtbed_analysis.page import render

from .conftest import Folder
from .test_report import Page


def lay(folder: Folder, factors: list[float]) -> dict[str, Any]:
    """Lay bare metal and a container that takes `factors` of its time, one per replicate."""
    for replicate, factor in enumerate(factors, start=1):
        folder.trial("bm", "pinned", replicate, {"a.png": [20.0]})
        folder.trial("cn", "pinned", replicate, {"a.png": [20.0 * factor]})
    return document(read_sweep(folder.path))


def container(content: dict[str, Any]) -> dict[str, Any]:
    (cell,) = [cell for cell in content["cells"] if cell["platform"] == "cn"]
    return cell


SOUND = [1.02, 0.99, 1.01, 1.0, 0.98, 1.0, 1.015, 0.985, 0.995, 1.005]
SLOW = [*SOUND[:6], 3.0, *SOUND[7:]]
WANDERS = [1.0, 1.01, 1.03, 1.06, 1.08, 1.1, 1.11, 1.1, 1.08, 1.05, 1.02, 1.0]


def test_a_sound_ratio_has_no_warning_and_its_limits(folder: Folder) -> None:
    content = lay(folder, SOUND)
    cell = container(content)
    assert cell["warnings"] == [] and cell["doubt"] is None
    assert cell["unseen"] == pytest.approx(1 - 0.05**0.1)
    assert cell["second_low"] < cell["ratio"] < cell["second_high"]
    assert content["doubts"]["rows"] == []
    (limit,) = [row for row in content["doubts"]["limits"] if row["replicates"] == 10]
    assert limit["unseen"] == cell["unseen"]
    text = render(content)
    assert "No ratio shows signs of skewed" in text and "up to 26%" in Page(text).tables["limits"]


def test_one_slow_instance_of_ten_is_named_next_to_its_ratio(folder: Folder) -> None:
    content = lay(folder, SLOW)
    cell = container(content)
    kinds = [warning["kind"] for warning in cell["warnings"]]
    assert {"far-out", "skewed"} <= set(kinds)
    assert cell["warnings"][0]["text"] == (
        "Replicate 7 has a ratio of 3, the median of the others is 1. Between 0.3% and 45% of "
        "instances may be like it: look at its trials, and raise replicates to estimate how many "
        "are."
    )
    assert cell["ratio"] == pytest.approx(3**0.1, rel=0.01)  # nothing is removed
    text = render(content)
    page = Page(text)
    ratio = next(shown for shown in page.tables["cells"] if shown.startswith("1.11"))
    assert ratio.endswith(f") {cell['doubt']}")
    assert f"#doubt-{cell['doubt']}" in page.links and f'id="doubt-{cell["doubt"]}"' in text
    assert any("Replicate 7 has" in shown for shown in page.tables["doubts"])
    mark = f" {cell['doubt']}"
    shown = [text for text in page.tables["costs-1"] if text.startswith("1.11")]
    assert shown and all(text.endswith(f"){mark}") for text in shown)
    assert page.tables["next-instance"][1].endswith(mark)
    (warned,) = [w["text"] for w in content["headline"]["warnings"] if "signs that" in w["text"]]
    assert warned.endswith("may be too narrow: container, pinned (cn pinned) at 1 core.")
    assert not re.search(r"[A-Z]\w+\.\.", text)


def test_an_autocorrelated_ratio_is_shown_with_the_interval_it_should_have(folder: Folder) -> None:
    cell = container(lay(folder, WANDERS))
    (warning,) = [w for w in cell["warnings"] if w["kind"] == "wandering"]
    assert re.search(r"lag-1 correlation 0\.\d\d, p = 0\.00\d.*about \d\.\d times", warning["text"])
    shuffled = [WANDERS[i] for i in np.random.default_rng(4).permutation(12)]
    other = robust.signs(np.log(np.array([shuffled])))
    assert other.wandering_p[0] > 0.05


def test_replicates_are_in_the_order_of_their_numbers(folder: Folder) -> None:
    """Replicate 10 comes after 9, not after 1."""
    content = lay(folder, WANDERS)
    apart = np.log(WANDERS) - np.log(WANDERS).mean()
    expected = (apart[1:] * apart[:-1]).sum() / (apart**2).sum()
    assert container(content)["correlation"] == pytest.approx(expected, rel=1e-4)


def test_every_table_of_ratios_is_checked(folder: Folder) -> None:
    for replicate, factor in enumerate(SLOW, start=1):
        folder.trial("cn", "pinned", replicate, {"a.png": [20.0]})
        folder.trial("cn", "vanilla", replicate, {"a.png": [20.0 * factor]})
    content = document(read_sweep(folder.path))
    assert [row["of"] for row in content["doubts"]["rows"]] == ["vanilla over pinned"]
    texts = Page(render(content)).tables["modes"]
    assert any(text.endswith(") 1") for text in texts)


@pytest.mark.parametrize("factors", [[1.1], [1.1, 1.2], [1.1] * 6, [1.1, 1.1, 1.2]])
def test_few_or_equal_replicates_give_numbers_and_no_warning(
    folder: Folder, factors: list[float]
) -> None:
    content = lay(folder, factors)
    assert container(content)["warnings"] == []
    json.dumps(content, allow_nan=False)
    render(content)


def test_the_second_interval_does_not_depend_on_other_cells() -> None:
    random = np.random.default_rng(1)
    logs = random.normal(size=(4, 7))
    alone = robust.studentized(logs[2:3])
    together = robust.studentized(logs)
    assert alone[0][0] == together[0][2] and alone[1][0] == together[1][2]


def test_29_replicates_meet_a_slow_instance_of_one_in_ten() -> None:
    assert robust.unseen(29) <= 0.1 < robust.unseen(28)
    assert robust.unseen(5) == pytest.approx(0.45, abs=0.005)


def test_a_candidate_without_an_interval_does_not_widen_those_of_the_rest() -> None:
    known, single = np.array([0.1, 0.12, 0.11]), np.array([0.5])
    alone = together([("known", [known])])
    both = together([("known", [known]), ("single", [single]), ("none", [None])])
    assert both[0] == alone[0]
    assert both[1] is not None and both[1].low is None
    assert both[2] is None


def test_an_outlier_at_an_end_is_not_autocorrelation() -> None:
    """It differs from one neighbour instead of two; those that follow each other are not alike."""
    logs = np.log([[1.013, 0.994, 1.007, 1.002, 0.998, 1.004, 1.001, 0.999, 1.02, 100.0]])
    seen = robust.signs(logs)
    assert seen.wandering_p[0] < 0.05 and seen.correlation[0] < 0
    assert robust.flagged(seen, 10)["far-out"][0]
    assert not robust.flagged(seen, 10)["wandering"][0]
    wanders = robust.signs(np.log([WANDERS]))
    assert robust.flagged(wanders, len(WANDERS))["wandering"][0]
