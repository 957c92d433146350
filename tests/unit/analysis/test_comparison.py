"""Two sweeps with a known difference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from virtbed_analysis import words
from virtbed_analysis.comparison import changed, compare
from virtbed_analysis.page import render_comparison

from .conftest import Folder
from .test_report import Page

RANDOM = np.random.default_rng(8)


def lay(path: Path, times: dict[tuple[str, str], float], **changes: Any) -> Path:
    folder = Folder(path)
    for replicate in range(1, 9):
        for (platform, mode), ms in times.items():
            noisy = ms * float(np.exp(0.01 * RANDOM.standard_normal()))
            folder.trial(platform, mode, replicate, {"a": [noisy], "b": [3 * noisy]}, **changes)
    return path


BEFORE = {("bm", "pinned"): 10.0, ("cn", "vanilla"): 13.0, ("vm", "pinned"): 12.0}


def test_a_slower_host_changes_times_and_not_costs(tmp_path: Path) -> None:
    slower = {cell: 1.5 * ms for cell, ms in BEFORE.items()}
    told = compare(lay(tmp_path / "a", BEFORE), lay(tmp_path / "b", slower))
    for row in told["cells"]:
        assert row["time"]["value"] == pytest.approx(1.5, rel=0.03)
        assert changed(row["time"]) == "more"
    costs = {(row["platform"], row["mode"]): row["cost"] for row in told["cells"]}
    assert costs["bm", "pinned"] is None
    assert changed(costs["cn", "vanilla"]) == changed(costs["vm", "pinned"]) == "no clear change"
    assert told["summary"] == (
        "Of 3 cells 3 take clearly more in the second, 0 clearly less, 0 neither. "
        "Of 2 cells 0 cost, against bare metal, clearly more in the second, 0 clearly less, "
        "2 neither."
    )


def test_a_platform_that_was_mended_costs_less(tmp_path: Path) -> None:
    mended = BEFORE | {("cn", "vanilla"): 10.5}
    told = compare(lay(tmp_path / "a", BEFORE), lay(tmp_path / "b", mended))
    found = {row["platform"]: changed(row["cost"]) for row in told["cells"] if row["cost"]}
    assert found == {"cn": "less", "vm": "no clear change"}


def test_what_differs_and_what_only_one_has_is_named(tmp_path: Path) -> None:
    one = lay(tmp_path / "a", BEFORE)
    other = lay(tmp_path / "b", {("bm", "pinned"): 10.0}, image="sha256:" + "e" * 64)
    told = compare(one, other)
    (image,) = (row for row in told["differs"] if row["item"] == "Image digest")
    assert image["first"] != image["second"]
    assert [row["platform"] for row in told["only_first"]] == ["vm", "cn"]
    assert told["only_second"] == []
    json.dumps(told, allow_nan=False)


def test_the_same_sweep_differs_in_nothing(tmp_path: Path) -> None:
    one = lay(tmp_path / "a", BEFORE)
    told = compare(one, one)
    assert told["differs"] == []
    assert {changed(row["time"]) for row in told["cells"]} == {"no clear change"}


def test_the_page_is_whole_and_has_the_same_numbers(tmp_path: Path) -> None:
    told = compare(lay(tmp_path / "a", BEFORE), lay(tmp_path / "b", BEFORE))
    page = Page(render_comparison(told))
    assert page.open == [] and all(link.startswith("#") for link in page.links)
    numbers: list[str] = []
    for row in told["cells"]:
        numbers.append(str(row["cores"]))
        for effect in (row["time"], row["cost"]):
            ends = [words.ratio(effect[end]) for end in ("value", "low", "high")] if effect else []
            numbers += (
                ["{} ({} to {})".format(*ends), changed(effect)] if ends else [words.NONE] * 2
            )
    assert page.tables["cells"] == numbers
