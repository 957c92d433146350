"""Replicates divided by a pause: every pair is of trials that ran near each other."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from virtbed_analysis import archive, archive_problems
from virtbed_analysis.document import document
from virtbed_analysis.frames import read_sweep

from .conftest import Folder

START = datetime(2026, 1, 2, tzinfo=UTC)


def at(hours: float) -> str:
    return f"{START + timedelta(hours=hours):%Y-%m-%dT%H:%M:%SZ}"


def start(folder: Folder, name: str, hours: float) -> None:
    folder.edit(f"trials/{name}/result.json", lambda r: r["trial"].update(started_at=at(hours)))


def measure_again(folder: Folder, name: str, hours: float, times: float) -> None:
    """Put a trial's result aside and lay a second attempt, which took so many times as long."""
    for file in ("result.json", "evidence.json"):
        text = (folder.path / f"trials/{name}/{file}").read_text()
        folder.write(f"earlier/1/{name}/{file}", text)

    def second(result: Any) -> None:
        result["trial"].update(started_at=at(hours), attempt=2)
        for sample in result["samples"]:
            for phase in ("pre_ns", "infer_ns", "post_ns"):
                sample[phase] = round(sample[phase] * times)
            sample["e2e_ns"] = sum(sample[p] for p in ("pre_ns", "infer_ns", "post_ns"))

    folder.edit(f"trials/{name}/result.json", second)


@pytest.fixture
def paused(folder: Folder) -> Folder:
    """Three replicates: in the third the guest ran a day later, on a host twice as slow."""
    for replicate in (1, 2, 3):
        for place, (platform, cost) in enumerate([("bm", 1.0), ("cn", 1.1), ("vm", 1.2)]):
            late = replicate == 3 and platform == "vm"
            ms = 20 * cost * (1 + replicate / 1000) * (2 if late else 1)
            name = folder.trial(platform, "pinned", replicate, {"a": [ms]})
            start(folder, name, 30.0 if late else replicate + place / 6)
    measure_again(folder, "bm-pinned-c01-image_classification-r03", 30.2, 2.0)
    return folder


def test_each_part_of_a_replicate_is_paired_with_its_own_baseline(paused: Folder) -> None:
    sweep = read_sweep(paused.path)
    assert not sweep.rejected
    cells = {cell["platform"]: cell for cell in document(sweep)["cells"]}
    assert cells["vm"]["ratio"] == pytest.approx(1.2)
    assert cells["cn"]["ratio"] == pytest.approx(1.1)
    assert (cells["vm"]["ratio_replicates"], cells["cn"]["ratio_replicates"]) == (3, 3)
    assert not any("left out" in (cells[name]["note"] or "") for name in ("cn", "vm"))
    assert "pause" not in (cells["vm"]["note"] or "")
    replicates = dict(sweep.trials.select("trial", "replicate").iter_rows())
    assert replicates["vm-pinned-c01-image_classification-r03"] == 6
    assert replicates["bm-pinned-c01-image_classification-r03"] == 6
    assert replicates["bm-pinned-c01-image_classification-r03@1"] == 3
    assert replicates["cn-pinned-c01-image_classification-r03"] == 3
    assert not [row["warning"] for row in document(sweep)["drift"]["cells"] if row["paused"]]


def test_a_result_in_both_folders_counts_once(folder: Folder) -> None:
    for platform in ("bm", "cn"):
        name = folder.trial(platform, "pinned", 1, {"a": [20.0]})
        for file in ("result.json", "evidence.json"):
            text = (folder.path / f"trials/{name}/{file}").read_text()
            folder.write(f"earlier/1/{name}/{file}", text)
    assert read_sweep(folder.path).trials.height == 2


def test_an_earlier_result_that_is_unfit_is_named_and_left_out(paused: Folder) -> None:
    name = "bm-pinned-c01-image_classification-r03"
    paused.write(f"earlier/1/{name}/result.json", "{")
    (rejected,) = read_sweep(paused.path).rejected
    assert rejected.file == f"earlier/1/{name}/result.json"


def test_an_archive_has_the_earlier_results_too(paused: Folder) -> None:
    file = paused.path.parent / "quick.zip"
    archive(paused.path, file, {})
    assert not list(archive_problems(file))
    content = json.dumps(document(read_sweep(paused.path))["counts"])
    assert '"analysed": 10' in content


BASELINE = "bm-pinned-c01-image_classification-r03"


def test_an_earlier_result_counts_once_with_several_copies(paused: Folder) -> None:
    for file in ("result.json", "evidence.json"):
        text = (paused.path / f"earlier/1/{BASELINE}/{file}").read_text()
        paused.write(f"earlier/01/{BASELINE}/{file}", text.replace("9.0", "9.1"))
        paused.write(f"earlier/7/{BASELINE}/{file}", text)
    sweep = read_sweep(paused.path)
    assert sweep.trials.height == 10
    assert {row.file: row.reason for row in sweep.rejected} == {
        f"earlier/{name}/{BASELINE}/result.json": "belongs to attempt 1, not to "
        f"attempt {name}, after which its folder is named"
        for name in ("01", "7")
    }


def test_an_earlier_result_of_no_baseline_is_left_out(paused: Folder) -> None:
    name = "vm-pinned-c01-image_classification-r02"
    measure_again(paused, name, 40.0, 1.5)
    (rejected,) = read_sweep(paused.path).rejected
    assert rejected.file == f"earlier/1/{name}/result.json"
    assert "no baseline" in rejected.reason


def test_an_earlier_result_is_of_an_earlier_attempt(paused: Folder) -> None:
    def first(result: Any) -> None:
        result["trial"]["attempt"] = 1

    paused.edit(f"trials/{BASELINE}/result.json", first)
    (rejected,) = read_sweep(paused.path).rejected
    assert "is not earlier than" in rejected.reason


def test_earlier_results_behind_links_are_named_and_left_out(paused: Folder) -> None:
    away = paused.path.parent / "away"
    (paused.path / "earlier").rename(away)
    (paused.path / "earlier").symlink_to(away)
    (rejected,) = read_sweep(paused.path).rejected
    assert "symbolic link" in rejected.reason
    (paused.path / "earlier").unlink()
    (paused.path / f"earlier/1/{BASELINE}").mkdir(parents=True)
    (paused.path / f"earlier/1/{BASELINE}/result.json").symlink_to(away / "nothing")
    (rejected,) = read_sweep(paused.path).rejected
    assert "symbolic link" in rejected.reason
