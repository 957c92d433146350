"""Two sweeps compared: two hosts, two kernels, before and after.

Their replicates have nothing in common, so intervals are Welch's, simultaneous for all cells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from virtbed_analysis.cells import Cell
from virtbed_analysis.document import provenance
from virtbed_analysis.effects import Effect, Floats, Units, of_sweep, together
from virtbed_analysis.frames import Sweep, read_sweep
from virtbed_analysis.intervals import CONFIDENCE
from virtbed_analysis.reduction import log_mean
from virtbed_analysis.trust import Json
from virtbed_contract import identifiers
from virtbed_contract.codec import encode

# Not compared: they name the sweep, or say when it ran.
_OWN = {"Plan digest", "Trials started", "Real trials", "Analysis"}


def compare(one: Path, other: Path) -> Json:
    """Return the comparison of two results folders.

    For each cell of both, `time` is the second's e2e over the first's, and `cost` the second's
    ratio to bare metal over the first's: a slower host changes the one, not the other. Each has
    `value`, `low`, `high` and `n`, the replicates of the side that has fewer; `cost` is None for
    bare metal, and without it.

    Raises:
        AnalysisError: a folder does not exist, or pools unlike results.
    """
    first, second = read_sweep(one), read_sweep(other)
    platforms = first.platforms | second.platforms
    units = of_sweep(first.samples, platforms), of_sweep(second.samples, platforms)
    common = [cell for cell in units[0].cells() if cell in units[1].logs]
    times = _each(common, lambda cell: _times(cell, *units))
    costs = _each(common, lambda cell: _costs(cell, *units))
    rows = [
        {
            **cell.row(),
            "time": asdict(times[cell]) if cell in times else None,
            "cost": asdict(costs[cell]) if cell in costs else None,
        }
        for cell in common
    ]
    return {
        "schema": identifiers.COMPARISON,
        "first": str(one),
        "second": str(other),
        "confidence": CONFIDENCE,
        "platforms": [encode(entry) for entry in platforms.entries.values()],
        "summary": _summary(rows),
        "differs": _differs(first, second),
        "cells": rows,
        "only_first": [c.row() for c in units[0].cells() if c not in units[1].logs],
        "only_second": [c.row() for c in units[1].cells() if c not in units[0].logs],
        "suspect": {
            "first": _suspect(first),
            "second": _suspect(second),
        },
    }


def changed(effect: Json | None) -> str:
    """Return "more", "less", "no clear change", or "unknown" without an interval."""
    if effect is None or effect["low"] is None:
        return "unknown"
    if effect["low"] > 1:
        return "more"
    return "less" if effect["high"] < 1 else "no clear change"


def _each(cells: list[Cell], groups: Callable[[Cell], list[Floats | None]]) -> dict[Cell, Effect]:
    found = together((cell.application, groups(cell)) for cell in cells)
    return {cell: effect for cell, effect in zip(cells, found, strict=True) if effect}


def _times(cell: Cell, first: Units, second: Units) -> list[Floats | None]:
    inputs = np.intersect1d(_inputs(first, cell), _inputs(second, cell))
    above, below = (_means(units, cell, inputs) for units in (second, first))
    return [above, None if below is None else -below]


def _costs(cell: Cell, first: Units, second: Units) -> list[Floats | None]:
    if cell == second.baseline(cell):
        return [None]
    above, below = second.cost(cell), first.cost(cell)
    return [above, None if below is None else -below]


def _inputs(units: Units, cell: Cell) -> Any:
    return np.unique(np.concatenate([inputs for inputs, _ in units.logs[cell].values()]))


def _means(units: Units, cell: Cell, wanted: Any) -> Floats | None:
    """Return each replicate's mean over the wanted inputs; None unless every replicate has them."""
    kept = [values[np.isin(own, wanted)] for own, values in units.logs[cell].values()]
    whole = len(wanted) and all(len(values) == len(wanted) for values in kept)
    return np.array([log_mean(values) for values in kept]) if whole else None


def _suspect(sweep: Sweep) -> int:
    real = sweep.trials.filter(~pl.col("emulated"))
    return real.filter(pl.col("suspicions").list.len() > 0).height


def _differs(first: Sweep, second: Sweep) -> list[Json]:
    """Return what is known of both and not the same: what a change of times may come from."""
    sides = [{row["item"]: row["values"] for row in provenance(s)} for s in (first, second)]
    return [
        {"item": item, "first": sides[0].get(item, []), "second": sides[1].get(item, [])}
        for item in dict.fromkeys([*sides[0], *sides[1]])
        if item not in _OWN and sides[0].get(item) != sides[1].get(item)
    ]


def _summary(rows: list[Json]) -> str:
    if not rows:
        return "The two sweeps have no cell in common."
    told = []
    for what, name in (("time", "take"), ("cost", "cost, against bare metal,")):
        known = [changed(row[what]) for row in rows if row[what]]
        if known:
            more, less = known.count("more"), known.count("less")
            told.append(
                f"Of {len(known)} cells {more} {name} clearly more in the second, {less} clearly "
                f"less, {len(known) - more - less} neither."
            )
    return " ".join(told) or "No cell that both have can be compared: they share no input."
