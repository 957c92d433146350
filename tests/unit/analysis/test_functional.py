"""The application that computes nothing shows that a platform works, but measures nothing."""

from __future__ import annotations

import json

import pytest

from virtbed_analysis.document import document
from virtbed_analysis.errors import AnalysisError
from virtbed_analysis.frames import load, read_sweep
from virtbed_analysis.page import render

from .conftest import Folder


def add_null(folder: Folder, platform: str, replicate: int = 1, emulated: bool = False) -> str:
    """Add a trial of the application null, as the harness writes it."""
    trial = folder.trial(
        platform, "pinned", replicate, {"one": [5.0 + replicate, 5.1]}, application="null",
        scale="tiny", emulated=emulated,
    )  # fmt: skip
    path = folder.path / "trials" / trial / "result.json"
    result = json.loads(path.read_text())
    result["application"] |= {"weights": "none", "model": "none", "frameworks": {}}
    path.write_text(json.dumps(result))
    return trial


def test_a_functional_sweep_reports_that_it_measured_nothing(folder: Folder) -> None:
    for replicate in (1, 2, 3):
        add_null(folder, "bm", replicate)
        add_null(folder, "cn", replicate)
    sweep = read_sweep(folder.path)
    assert not sweep.rejected and sweep.functional.height == 6
    content = document(sweep)
    assert content["headline"]["lead"] == (
        "Nothing has been measured. 6 trials of an application that computes nothing ran on bm, "
        "cn, each attested: that is evidence that the platform works, and no measurement of what "
        "it costs."
    )
    assert content["counts"]["functional"] == 6 and content["counts"]["analysed"] == 0
    assert content["cells"] == [] and content["waiting"] == [] and content["failed"] == []
    assert content["headline"]["lead"] in render(content)
    with pytest.raises(AnalysisError, match="6 of an application that computes nothing"):
        load(folder.path)


def test_an_emulated_functional_trial_is_named_emulated(folder: Folder) -> None:
    add_null(folder, "vm", emulated=True)
    assert "ran on vm (emulated), each attested" in document(read_sweep(folder.path))["summary"]


def test_functional_trials_are_excluded_from_a_measurement_and_listed(quick: Folder) -> None:
    before = document(read_sweep(quick.path))
    add_null(quick, "cn")
    after = document(read_sweep(quick.path))
    assert after["cells"] == before["cells"]
    assert after["headline"]["lead"] == before["headline"]["lead"]
    (screen,) = [row for row in after["headline"]["warnings"] if "computes nothing" in row["text"]]
    assert screen["text"].startswith("1 trial of an application that computes nothing ran on cn")
