"""Detection of trials of one host that overlap in time.

A host runs one trial at a time, since a sweep holds a lock on it. If a trial starts before an
earlier one can have ended, another sweep ran meanwhile, or one of the two has a wrong label.
`trust` leaves such trials out.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime

from virtbed_analysis.reading import Json

log = logging.getLogger(__name__)

_SLACK_S = 2.0
"""Tolerated overlap in seconds: starts are whole seconds, and a clock may slew."""
_PART = 1.02  # tolerated drift of a guest's clock, by which its trial is timed
_MOST = 0.25
"""If a larger share of a host's trials overlaps, its clock stood still, and none is left out."""


def overlapping(
    results: Mapping[str, Json], lasted_ns: Mapping[str, int]
) -> Iterator[tuple[str, str]]:
    """Yield each trial that starts while an earlier one of its host ran, with a reason.

    Args:
        results: Results, by the trial's id.
        lasted_ns: A lower bound of each process's duration, in ns (`contradictions.lasted_ns`).
    """
    hosts: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for trial, result in results.items():
        labels = result["trial"]
        hosts[labels["host"]].append((_seconds(labels["started_at"]), trial))
    for host, starts in hosts.items():
        overlaps = list(_of_host(sorted(starts), lasted_ns))
        if len(overlaps) > _MOST * len(starts):
            log.warning(
                "%d of %d trials of host %s start while another runs: its starts are not reliable, "
                "so neither order nor drift is known; set the clock of the controller",
                len(overlaps), len(starts), host,
            )  # fmt: skip
        else:
            yield from overlaps


def _of_host(
    starts: list[tuple[float, str]], lasted_ns: Mapping[str, int]
) -> Iterator[tuple[str, str]]:
    before, ends, began = "", float("-inf"), float("-inf")
    for start, trial in starts:
        if began < start < ends - _SLACK_S:  # equal starts are unknown ones: see `drift`
            yield (
                trial,
                f"started {ends - start:.0f} s before {before} of the same host can have ended: a "
                "host runs one trial at a time, so another sweep ran meanwhile, or the start of "
                "one of the two was changed",
            )
            continue
        before, began, ends = trial, start, max(ends, start + lasted_ns[trial] / 1e9 / _PART)


def _seconds(started_at: str) -> float:
    return datetime.fromisoformat(started_at.replace("Z", "+00:00")).timestamp()
