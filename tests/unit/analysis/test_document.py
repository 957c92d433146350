"""The content of a report: whole for whatever there is, and of the files alone."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import pytest

from virtbed_analysis.document import document, judged_by
from virtbed_analysis.frames import read_sweep
from virtbed_contract import identifiers

from .conftest import Folder, failure

KEPT = ("cells", "findings", "drift", "suspicion", "resolution", "provenance", "headline", "unlike")


def content(folder: Folder) -> dict[str, Any]:
    made = document(read_sweep(folder.path))
    # Plain values: what is no number is null, never NaN.
    return dict(json.loads(json.dumps(made, allow_nan=False)))


def test_a_sweep_without_a_result_has_every_part(folder: Folder, quick: Folder) -> None:
    empty = Folder(folder.path.with_name("empty"))
    empty.plan("bm", "pinned", 1)
    nothing, whole = content(empty), content(quick)
    assert nothing.keys() == whole.keys() >= {*KEPT}
    assert nothing["schema"] == identifiers.REPORT
    assert (nothing["counts"]["planned"], nothing["counts"]["waiting"]) == (1, 1)
    assert nothing["cells"] == [] and whole["cells"]


def test_it_depends_on_the_files_alone(quick: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content(quick)
    for path in quick.path.rglob("*.json"):
        os.utime(path, (1, 1))
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setenv("TZ", "Pacific/Apia")
    assert content(quick) == before


def test_every_planned_trial_is_counted_once(quick: Folder) -> None:
    """As analysed, failed, waiting, unneeded, or with a result that is left out."""
    failed = quick.plan("vmcn", "pinned", 1)
    quick.write(f"trials/{failed['id']}/failure.json", failure(failed["id"], "no instance"))
    quick.plan("vmcn", "pinned", 2)
    counts = content(quick)["counts"]
    parts = ("analysed", "failed", "waiting", "unneeded")
    assert sum(counts[part] for part in parts) == counts["planned"] == 19
    assert (counts["failed"], counts["waiting"]) == (1, 1)


def test_the_summary_is_that_of_the_first_screen(quick: Folder) -> None:
    made = content(quick)
    assert made["summary"] == made["headline"]["lead"] != ""


def test_the_measure_of_each_scenario_is_in_the_content() -> None:
    rows = [{"scenario": "offline"}, {"scenario": "single_stream"}, {"scenario": "offline"}]
    said = judged_by(rows)
    assert {name: measure["name"] for name, measure in said.items()} == {
        "single_stream": "e2e", "offline": "throughput",
    }  # fmt: skip
