"""Compares sweeps: two hosts, two kernels, before and after a change.

With one sweep per side, the unit is the replicate: intervals include differences between replicates
of one sweep, but none between days. With several sweeps per side, the unit is the sweep. Intervals
are Welch's, simultaneous for all cells (Bonferroni). `virtbed compare` prints the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl

from virtbed_analysis import unlike, words
from virtbed_analysis.cells import DEFAULTED, Cell
from virtbed_analysis.effects import Units, of_sweep
from virtbed_analysis.engine import Floats, equal, together
from virtbed_analysis.errors import AnalysisError
from virtbed_analysis.frames import Sweep, read_sweep
from virtbed_analysis.intervals import CONFIDENCE
from virtbed_analysis.margin import CANNOT_TELL, DIFFERS, EQUIVALENT, answer
from virtbed_analysis.marks import Compared
from virtbed_analysis.platforms import Platforms
from virtbed_analysis.provenance import provenance
from virtbed_analysis.reduction import PLAIN_ROWS
from virtbed_analysis.rises import Losses, judged, vanished
from virtbed_analysis.trust import Json
from virtbed_contract import identifiers
from virtbed_contract.codec import encode

# Items of provenance that are not compared, since they name the sweep or its time.
_OWN = {"Plan digest", "Trials started", "Real trials", "Analysis"}
_Groups = tuple[Floats, Floats] | None
MORE, LESS = "more", "less"
_NAMED = 3


def compare(
    first: Path | Sequence[Path],
    second: Path | Sequence[Path],
    margin: float | None = None,
    fail_above: float | None = None,
) -> Json:
    """Compare results folders, one or several per side.

    Args:
        first: A folder, or several of one condition.
        second: The same for the other condition.
        margin: The smallest change worth knowing, as a share; None for that of the first plan.
        fail_above: A rise to test for, as a share; see `fail` below.

    Returns:
        Among others, `cells`: one row per cell that all sweeps have.

        - `time`: the second side's time divided by the first's, of the measure of the scenario
          (`judged_by`; for throughput, the time per sample). With one sweep per side it has no
          interval, because a host drifts and differs from day to day.
        - `cost`: the second side's ratio to bare metal divided by the first's, which a slower host
          does not change; None for bare metal, or without it.
        - `lost`, `lost_metal`: trials of the cell, and of its bare metal, without usable times.
        - `other_answers`: the sides whose answers differ from bare metal's.
        - `marks`: warnings about its numbers.

        `time` and `cost` have `value`, `low`, `high`, `n` (units of the side with fewer), `unit`
        ("replicate" or "sweep") and `answer` ("more", "less", "equivalent", "cannot tell").

        With `fail_above`, `fail` has `limit`, `verdict` and the cells `above` and `unclear`, with
        what rose and `why` it is undecided. The verdict is "above" if a cell's whole interval is
        above the limit; "not above" if no interval reaches it, and the second side lacks no cell
        and no trials that the first has; else "cannot tell".

    Raises:
        AnalysisError: A folder does not exist, has unlike results, shares trials with another, or
            did other work than another (see `unlike.Fact.compared`).

    Example:
        >>> content = compare(Path("results/quick"), Path("results/after"), fail_above=0.1)
        >>> [round(row["time"]["value"], 1) for row in content["cells"] if row["platform"] == "cn"]
        [1.2, 1.2]
        >>> content["fail"]["verdict"]
        'above'
    """
    sides = [[one] if isinstance(one, Path) else list(one) for one in (first, second)]
    sweeps = [[read_sweep(folder) for folder in side] for side in sides]
    _refuse_same([*sides[0], *sides[1]], [*sweeps[0], *sweeps[1]])
    _refuse_other_work([*sweeps[0], *sweeps[1]])
    margin = sweeps[0][0].margin if margin is None else margin
    platforms = sweeps[0][0].platforms
    for sweep in [*sweeps[0], *sweeps[1]]:
        platforms |= sweep.platforms
    units = [[of_sweep(sweep.samples, platforms) for sweep in side] for side in sweeps]
    every = [*units[0], *units[1]]
    common = [cell for cell in every[0].cells() if all(cell in one.logs for one in every)]
    shared = [[_shared(one, every, common) for one in side] for side in units]
    unit = "replicate" if len(every) == 2 else "sweep"
    times = _each(common, unit, margin, lambda cell: _groups(shared, unit, cell, _time))
    costs = _each(common, unit, margin, lambda cell: _groups(shared, unit, cell, _cost))
    marks = Compared(*sweeps)
    losses, gone = Losses(*sweeps), [_only(side, common) for side in units]
    rows = [
        {
            **c.row(), "judged_by": words.judged(c.row()).name,
            "baseline": c == every[0].baseline(c), "time": times.get(c),
            "cost": costs.get(c), "lost": losses.of(c),
            "lost_metal": losses.of(every[0].baseline(c)) if costs.get(c) else None,
            "other_answers": marks.other_answers(c.row()), "marks": marks.of(c.row()),
        }
        for c in common
    ]  # fmt: skip
    return {
        "schema": identifiers.COMPARISON,
        "first": [str(folder) for folder in sides[0]],
        "second": [str(folder) for folder in sides[1]],
        "confidence": CONFIDENCE,
        "unit": unit,
        "margin": margin,
        "platforms": [encode(entry) for entry in platforms.entries.values()],
        "summary": (
            _summary(rows, [len(side) for side in sides], margin) if rows else _apart(units)
        )
        + (vanished(gone, platforms.entries) if rows else "")
        + _unlike_work(rows, platforms)
        + _not_compared([*sweeps[0], *sweeps[1]])
        + _suspicion(sweeps),
        "fail": None if fail_above is None else judged(rows, gone[0], fail_above),
        "differs": _differs(*sweeps),
        "unlike": [
            {"side": name, **row}
            for name, side in zip(("first", "second"), sweeps, strict=True)
            for row in _unlike(side)
        ],
        "cells": rows,
        "only_first": gone[0],
        "only_second": gone[1],
        "suspect": {
            "first": sum(map(_suspect, sweeps[0])),
            "second": sum(map(_suspect, sweeps[1])),
        },
    }


def changed(effect: Json | None) -> str:
    """Return "more", "less", "equivalent", "cannot tell", or "unknown" without an effect.

    Example:
        >>> changed({"answer": "less"}), changed(None)
        ('less', 'unknown')
    """
    return str(effect["answer"]) if effect else "unknown"


def _refuse_same(folders: list[Path], sweeps: list[Sweep]) -> None:
    """Raise `AnalysisError` if a trial would be compared with itself."""
    # Trials are identified by their samples, to the nanosecond, since a copy may be relabelled.
    trials = [set(sweep.trials.select("trial", "times_digest").iter_rows()) for sweep in sweeps]
    for (one, mine), (other, theirs) in combinations(zip(folders, trials, strict=True), 2):
        if one.resolve() == other.resolve():
            raise AnalysisError(f"{one} is compared with itself; give another results folder")
        if both := mine & theirs:
            raise AnalysisError(
                f"{one} and {other} have {len(both)} of {len(mine)} trials in common, the first "
                f"{min(both)[0]}: a sweep compared with itself, or with a copy, shows no change; "
                "give folders of different sweeps"
            )


def _refuse_other_work(sweeps: list[Sweep]) -> None:
    """Raise `AnalysisError` if sweeps ran different work under one name.

    Only cells that are compared count: real ones with the defaults of all factors.
    """
    text = pl.col("platform").cast(pl.String)
    trials = [sweep.trials.filter(PLAIN_ROWS).with_columns(text) for sweep in sweeps]
    unlike.refuse_compared(pl.concat(trials))


def _shared(units: Units, every: list[Units], common: list[Cell]) -> Units:
    """Return a sweep's cells, each restricted to the inputs that all sweeps have of it."""
    logs = {}
    for cell in common:
        inputs = set.intersection(*(set(one.logs[cell].inputs) for one in every))
        own = units.logs[cell]
        logs[cell] = own.at(own.units, tuple(sorted(inputs))).with_inputs
    return replace(units, logs=logs)


def _time(units: Units, cell: Cell) -> Floats | None:
    """Return each replicate's mean logarithm; None unless all have the same inputs."""
    own = units.logs[cell]
    return own.means if own.whole and own.units else None


def _cost(units: Units, cell: Cell) -> Floats | None:
    return None if cell == units.baseline(cell) else units.cost(cell)


def _groups(
    sides: list[list[Units]], unit: str, cell: Cell, of: Callable[[Units, Cell], Floats | None]
) -> _Groups:
    """Return the logarithms of both sides, one per unit; None if a sweep has none.

    For times, a sweep counts once: the times of its replicates drift together.
    """
    every = [[of(one, cell) for one in side] for side in sides]
    known = [[logs for logs in side if logs is not None and len(logs)] for side in every]
    if any(len(kept) < len(side) for kept, side in zip(known, every, strict=True)):
        return None
    if unit == "replicate" and of is _cost:
        return known[0][0], known[1][0]
    first, second = (np.array([logs.mean() for logs in side]) for side in known)
    return first, second


def _each(
    cells: list[Cell], unit: str, margin: float, groups: Callable[[Cell], _Groups]
) -> dict[Cell, Json]:
    both_sides = {cell: both for cell in cells if (both := groups(cell)) is not None}
    # If one side has a single sweep, the spread of the other side is assumed for it.
    effects = together(
        ((cell.application, (-first, second)) for cell, (first, second) in both_sides.items()),
        pooled=unit == "sweep",
    )
    rows = {}
    for cell, effect in zip(both_sides, effects, strict=True):
        assert effect is not None
        if any(equal(group) for group in both_sides[cell]):  # as in copies: no precision
            effect = replace(effect, low=None, high=None)
        verdict = answer(effect.low, effect.high, margin)
        change = (MORE if effect.value > 1 else LESS) if verdict == DIFFERS else verdict
        rows[cell] = {**asdict(effect), "unit": unit, "answer": change}
    return rows


def _only(side: list[Units], common: list[Cell]) -> list[Json]:
    """Return the cells of a side's sweeps that not all sweeps have."""
    only = {cell: one for one in side for cell in one.logs if cell not in common}
    return [cell.row() for cell in sorted(only, key=lambda cell: only[cell].order(cell))]


def _suspect(sweep: Sweep) -> int:
    real = sweep.trials.filter(~pl.col("emulated"))
    return real.filter(pl.col("suspicions").list.len() > 0).height


def _suspicion(sides: list[list[Sweep]]) -> str:
    """Return a sentence on the suspect trials of each side; empty if none is suspect."""
    few = [sum(map(_suspect, side)) for side in sides]
    if not any(few):
        return ""
    every = [sum(one.trials.filter(~pl.col("emulated")).height for one in side) for side in sides]
    first, second = (f"{n} of {total}" for n, total in zip(few, every, strict=True))
    return (
        f" Suspect are {first} trials of the first and {second} of the second, during which "
        "something other than the platform changed; all numbers here include them."
    )


def _unlike_work(rows: list[Json], platforms: Platforms) -> str:
    """Return a sentence on cells that gave other answers than bare metal; empty if none did."""
    wrong = [row for row in rows if row["other_answers"]]
    if not wrong:
        return ""
    named = "; ".join(words.placed(row, platforms.entries) for row in wrong[:_NAMED])
    more = f"; and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
    return (
        f" {words.count(len(wrong), 'cell').capitalize()} gave other answers than bare metal; the "
        f"times are of different work and cannot be compared: {named}{more}."
    )


def _not_compared(sweeps: list[Sweep]) -> str:
    """Return a sentence on values of factors that are not compared; empty if there are none."""
    values = [
        f"{factor.name} {value}"
        for factor in DEFAULTED
        for value in factor.values
        if value != factor.default
        and any(
            sweep.trials.filter(~pl.col("emulated"), pl.col(factor.name) == value).height
            for sweep in sweeps
        )
    ]
    if not values:
        return ""
    return (
        f" Cells with {', '.join(values)} are not compared: only cells with the defaults of these "
        "factors are. The ratios of the others are in the report of each sweep."
    )


def _differs(first: list[Sweep], second: list[Sweep]) -> list[Json]:
    """Return the facts that are known of both sides and differ: possible causes of a change."""
    sides = [_known(side) for side in (first, second)]
    return [
        {"item": item, "first": sides[0].get(item, []), "second": sides[1].get(item, [])}
        for item in dict.fromkeys([*sides[0], *sides[1]])
        if item not in _OWN and sides[0].get(item) != sides[1].get(item)
    ]


def _known(side: list[Sweep]) -> dict[str, list[str]]:
    """Return the values of each item of provenance over all sweeps of a side."""
    items: dict[str, list[str]] = {}
    for row in (row for sweep in side for row in provenance(sweep)):
        kept = items.setdefault(row["item"], [])
        kept += [value for value in row["values"] if value not in kept]
    return items


def _unlike(side: list[Sweep]) -> list[Json]:
    """Return the facts that differ between sweeps of one side, which represent one condition."""
    each = [_known([sweep]) for sweep in side]
    return [
        {"item": item, "values": values}
        for item, values in _known(side).items()
        if item not in _OWN and any(one.get(item) != each[0].get(item) for one in each)
    ]


def _apart(sides: list[list[Units]]) -> str:
    """Return a sentence on what each side has, for sweeps without a common cell."""
    parts = []
    for side in sides:
        works = [
            f"{cell.application} ({cell.scale}, {cell.scenario}, {cell.weights} weights)"
            for one in side
            for cell in one.cells()
        ]
        parts.append(", ".join(dict.fromkeys(works)) or "nothing that ran for real")
    return (
        f"The sweeps have no cell in common. The first: {parts[0]}. The second: {parts[1]}. Work, "
        "platform, mode and size of a cell must be the same."
    )


def _summary(rows: list[Json], sizes: list[int], margin: float) -> str:
    if sizes == [1, 1]:
        parts = [
            "Two sweeps, one per side: differences between days are part of each change, but of "
            "no interval, so times have no interval; give several sweeps per side."
        ]
    else:
        parts = [
            f"{sizes[0]} against {sizes[1]} sweeps: intervals are over sweeps, and include "
            "differences between days."
        ]
        if 1 in sizes:
            parts.append(
                "A single sweep does not show differences between days: those of the other side "
                "are assumed for it, and a noisier host or day widens no interval."
            )
    for what, name in (("time", "take"), ("cost", "cost, against bare metal,")):
        known = [row[what]["answer"] for row in rows if row[what] and row[what]["low"] is not None]
        if known:
            count = {kind: known.count(kind) for kind in (MORE, LESS, EQUIVALENT, CANNOT_TELL)}
            parts.append(
                f"Of {words.count(len(known), 'cell')}, {count[MORE]} {name} clearly more in the "
                f"second, {count[LESS]} clearly less, {count[EQUIVALENT]} as much within "
                f"{100 * margin:.3g}%, {count[CANNOT_TELL]} undecided."
            )
    if of := words.times_of(row["scenario"] for row in rows):
        parts.append(f"Time here is {of}.")
    if not any(row[what] for row in rows for what in ("time", "cost")):
        return "No cell of all sweeps can be compared: they share no input."
    return " ".join(parts)
