"""Trials of one host that are said to have run at once, which a sweep's never do.

A host runs one trial after another: its sweep holds a lock. A trial that starts before an earlier
one can have ended ran at the same time, in another sweep, or is a file with another's label.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime

from virtbed_analysis.reading import Json

log = logging.getLogger(__name__)

_SLACK_S = 2.0
"""Starts are whole seconds, and a clock that is set slews."""
_PART = 1.02  # a guest's seconds, by which its trial is timed, may be so much longer
_MOST = 0.25
"""Where more of a host's trials overlap, its starts are no times: a clock stood."""


def overlapping(
    results: Mapping[str, Json], lasted_ns: Mapping[str, int]
) -> Iterator[tuple[str, str]]:
    """Give each trial that starts while an earlier one of its host ran, and why that cannot be.

    Args:
        results: Results by the trial's id.
        lasted_ns: How long each process ran at least.
    """
    hosts: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for trial, result in results.items():
        labels = result["trial"]
        hosts[labels["host"]].append((_seconds(labels["started_at"]), trial))
    for host, starts in hosts.items():
        overlaps = list(_of_host(sorted(starts), lasted_ns))
        if len(overlaps) > _MOST * len(starts):
            log.warning(
                "%d of %d trials of host %s start while another runs: its starts are no times, and "
                "tell neither order nor drift; set the clock of the controller",
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
                "host runs one trial at a time, so another sweep ran meanwhile, or one of the two "
                "has a start that is not its own",
            )
            continue
        before, began, ends = trial, start, max(ends, start + lasted_ns[trial] / 1e9 / _PART)


def _seconds(started_at: str) -> float:
    return datetime.fromisoformat(started_at.replace("Z", "+00:00")).timestamp()
