"""The duration of more replicates, from the starts of a sweep's trials."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from virtbed_analysis.frames import read_sweep
from virtbed_analysis.hours import in_words, needed_s

from .conftest import Folder


def starting(folder: Folder, gaps_s: list[int]) -> None:
    """Make one trial of bare metal per replicate, so many seconds after one another."""
    start = datetime(2026, 1, 2, 3, tzinfo=UTC)
    for replicate, gap_s in enumerate(gaps_s, start=1):
        start += timedelta(seconds=gap_s)
        name = folder.trial("bm", "pinned", replicate, {"a.png": [10.0]})
        started = start.strftime("%Y-%m-%dT%H:%M:%SZ")
        folder.edit(
            f"trials/{name}/result.json", lambda r, t=started: r["trial"].update(started_at=t)
        )


def test_a_pause_does_not_count(folder: Folder) -> None:
    starting(folder, [0, 60, 60, 7200, 60, 60])
    assert needed_s(read_sweep(folder.path).trials, 10) == pytest.approx(600)


def test_unusable_starts_give_no_duration(folder: Folder) -> None:
    starting(folder, [0, 0, 0])
    assert needed_s(read_sweep(folder.path).trials, 10) is None


def test_a_duration_is_worded_in_minutes_or_hours() -> None:
    assert in_words(None, 1).startswith("1 more replicate; how long they take is not known")
    assert "which take about 1 min on each host" in in_words(20, 2)
    assert "3 more replicates, which take about 60 min" in in_words(3600, 3)
    assert "about 2 hours" in in_words(7200, 3)
