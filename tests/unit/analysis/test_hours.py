"""How long more replicates take, by the starts of a sweep's own trials."""

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
        said = start.strftime("%Y-%m-%dT%H:%M:%SZ")
        folder.edit(f"trials/{name}/result.json", lambda r, t=said: r["trial"].update(started_at=t))


def test_a_pause_does_not_count(folder: Folder) -> None:
    starting(folder, [0, 60, 60, 7200, 60, 60])
    assert needed_s(read_sweep(folder.path).trials, 10) == pytest.approx(600)


def test_starts_that_say_nothing_give_no_time(folder: Folder) -> None:
    starting(folder, [0, 0, 0])
    assert needed_s(read_sweep(folder.path).trials, 10) is None


def test_it_is_said_in_a_unit_that_suits_it() -> None:
    assert in_words(None, 1).startswith("1 more replicate; how long they take is not known")
    assert "which take about 1 min on each host" in in_words(20, 2)
    assert "3 more replicates, which take about 60 min" in in_words(3600, 3)
    assert "about 2 hours" in in_words(7200, 3)
