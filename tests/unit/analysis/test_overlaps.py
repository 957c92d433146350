"""Trials of one host whose times overlap are left out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from virtbed_analysis.frames import read_sweep

from .conftest import Folder

START = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def row(folder: Folder) -> Folder:
    """Ten trials of one host, a minute apart; each process took 6.6 s and its 2 s of requests."""
    for replicate in range(1, 6):
        for place, platform in enumerate(("bm", "cn")):
            name = folder.trial(platform, "pinned", replicate, {"a": [20.0 + replicate + place]})
            start(folder, name, 60 * (2 * replicate + place))
    return folder


def start(folder: Folder, name: str, seconds: float) -> None:
    at = f"{START + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"
    folder.edit(f"trials/{name}/result.json", lambda r: r["trial"].update(started_at=at))


def named(platform: str, replicate: int) -> str:
    return f"{platform}-pinned-c01-image_classification-r{replicate:02d}"


@pytest.mark.parametrize("after_s", [1, 4])
def test_a_trial_that_starts_while_another_runs_is_left_out(row: Folder, after_s: int) -> None:
    start(row, named("cn", 3), 60 * 6 + after_s)  # the metal of its replicate started at 360 s
    sweep = read_sweep(row.path)
    (rejected,) = sweep.rejected
    assert rejected.file == f"trials/{named('cn', 3)}/result.json"
    assert f"before {named('bm', 3)} of the same host can have ended" in rejected.reason
    assert sweep.trials.height == 9


def test_consecutive_trials_do_not_overlap(row: Folder) -> None:
    """Whole seconds, and a process that took a little less than its clock says."""
    start(row, named("cn", 3), 60 * 6 + 7)
    assert read_sweep(row.path).rejected == []


def test_equal_starts_are_not_counted_as_overlaps(row: Folder) -> None:
    for platform in ("bm", "cn"):
        for replicate in range(1, 6):
            start(row, named(platform, replicate), 60)
    assert read_sweep(row.path).rejected == []
