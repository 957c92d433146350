"""Tables for the report: recorded facts with their values by platform, and suspicion limits."""

from __future__ import annotations

from typing import Any

import polars as pl

from virtbed_analysis.suspicion import THRESHOLDS
from virtbed_analysis.trust import Json
from virtbed_analysis.unlike import shown
from virtbed_contract.likeness import RECORDED, Recorded

_ALIKE = {
    "everywhere": "equal on all platforms",
    "kernel": "equal on one kernel; a guest may differ",
    "platform": "may differ; shown with the ratio",
}
_NOT_REPORTED = "not reported"
_LONGEST = 60  # characters of a value


def recorded(trials: pl.DataFrame) -> list[Json]:
    """Return one row per recorded fact: `fact`, `alike`, `why`, `matters` and `found`.

    `found` is the common value of all real trials, the range of numbers, "differs" or "not
    reported", with the platforms that did not report the fact.
    """
    real = [row for row in trials.to_dicts() if not row["emulated"]]
    return [
        {
            "fact": one.words,
            "alike": _ALIKE[one.alike],
            "matters": one.matters,
            "why": one.why,
            "found": _found(one, real),
        }
        for one in RECORDED
    ]


def moments() -> list[Json]:
    """Return one row per suspicion threshold: `fact`, `limit` and `matters`."""
    return [
        {
            "fact": threshold.name,
            "limit": f"at most {threshold.number(threshold.limit)} {threshold.unit}",
            "matters": threshold.reason,
        }
        for threshold in THRESHOLDS
    ]


def _found(one: Recorded, rows: list[Json]) -> str:
    by_platform = {
        platform: set[Any]() for platform in dict.fromkeys(row["platform"] for row in rows)
    }
    for row in rows:
        if row[one.name] is not None:
            by_platform[row["platform"]].add(row[one.name])
    silent = [platform for platform, values in by_platform.items() if not values]
    values = set().union(*by_platform.values())
    if not values:
        return _NOT_REPORTED
    rest = f"; {_NOT_REPORTED} by {', '.join(silent)}" if silent else ""
    if one.number:
        least, most = min(values), max(values)
        return (shown(most) if least == most else f"{shown(least)} to {shown(most)}") + rest
    if len(values) > 1:
        return f"differs{rest}"
    text = shown(values.pop())
    return (text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...") + rest
