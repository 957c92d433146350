"""What was recorded of both sides of ratios, as a table: where platforms are alike, and why.

Also the kernels of a ratio's sides: a difference between them is part of every such ratio.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from virtbed_analysis.cells import CELL, key_of
from virtbed_analysis.differences import pairs_of
from virtbed_analysis.suspicion import THRESHOLDS
from virtbed_analysis.trust import Json
from virtbed_analysis.unlike import Row, shown
from virtbed_contract.likeness import RECORDED, Recorded

_ALIKE = {
    "everywhere": "equal on all platforms",
    "kernel": "equal on one kernel; a guest may differ",
    "platform": "may differ; said beside",
}
_NOT_TOLD = "not told"
_LONGEST = 60  # characters of a value


def recorded(trials: pl.DataFrame) -> list[Json]:
    """Return a row per recorded fact: `fact`, `alike`, `why`, `matters`, and `found` by platform.

    `found` says "alike" with the value, "differs" or "not told", of the real trials; what is not
    told is equal to nothing.
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
    """Return a row per threshold on what happens during a trial: `fact`, `limit` and `matters`."""
    return [
        {
            "fact": threshold.name,
            "limit": f"at most {threshold.number(threshold.limit)} {threshold.unit}",
            "matters": threshold.reason,
        }
        for threshold in THRESHOLDS
    ]


def _found(one: Recorded, rows: list[Json]) -> str:
    told = {platform: set[Any]() for platform in dict.fromkeys(row["platform"] for row in rows)}
    for row in rows:
        if row[one.name] is not None:
            told[row["platform"]].add(row[one.name])
    silent = [platform for platform, values in told.items() if not values]
    values = set().union(*told.values())
    if not values:
        return _NOT_TOLD
    rest = f"; {_NOT_TOLD} by {', '.join(silent)}" if silent else ""
    if one.number:
        least, most = min(values), max(values)
        return (shown(most) if least == most else f"{shown(least)} to {shown(most)}") + rest
    if len(values) > 1:
        return f"differs{rest}"
    text = shown(values.pop())
    return (text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...") + rest


def kernels_apart(trials: pl.DataFrame) -> Mapping[tuple[Any, ...], str]:
    """Return, for each cell whose kernel is not that of its bare metal, both kernels in words."""
    found: dict[tuple[Any, ...], set[tuple[str, str]]] = {}
    real: list[Row] = [row for row in trials.to_dicts() if not row["emulated"]]
    for row, bare in pairs_of(real):
        ours, theirs = _kernel(row), _kernel(bare)
        if ours != theirs:
            found.setdefault(key_of(row, CELL), set()).add((ours, theirs))
    return {
        cell: "kernel "
        + "; ".join(f"{ours} against bare metal's {theirs}" for ours, theirs in sorted(pairs))
        + ": their difference is in the ratio"
        for cell, pairs in found.items()
    }


def _kernel(row: Mapping[str, Any]) -> str:
    return str(row["kernel"]) + (f" ({row['build']})" if row["build"] else "")
