"""Verdict of a comparison: whether a time or cost rose above a limit from one side to the other.

An effect is above the limit, or not above it, if its whole interval is. An effect without an
interval, with other answers, or with lost trials that may have been slow is never "not above": a
platform on which no trial ends any more has no time that could have risen. `comparison` makes the
effects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from virtbed_analysis.candidates import Ends, ends_by_cell
from virtbed_analysis.cells import PLAIN, Cell, key_of
from virtbed_analysis.frames import Sweep
from virtbed_analysis.margin import has_width
from virtbed_analysis.trust import Json
from virtbed_analysis.words import Entries, count, placed

ABOVE, NOT_ABOVE, CANNOT_TELL = "above", "not above", "cannot tell"
WHAT = ("time", "cost")
_NAMED = 3


class Losses:
    """Numbers of trials without usable times, by cell and side of a comparison."""

    def __init__(self, first: Sequence[Sweep], second: Sequence[Sweep]) -> None:
        self._sides = [[ends_by_cell(sweep) for sweep in side] for side in (first, second)]

    def of(self, cell: Cell) -> Json:
        """Return by side ("first", "second") a cell's `lost` trials, `of` how many, and `late`."""
        key = key_of({**PLAIN, **cell.row()})
        both = (_sum(key, side) for side in self._sides)
        return dict(zip(("first", "second"), both, strict=True))


def _sum(key: tuple[object, ...], sweeps: Iterable[Mapping[tuple[object, ...], Ends]]) -> Json:
    own = [sweep[key] for sweep in sweeps if key in sweep]
    lost = sum(ends.lost for ends in own)
    return {
        "lost": lost,
        "of": lost + sum(ends.measured for ends in own),
        "late": sum(ends.late for ends in own),
    }


def judged(rows: Iterable[Json], gone: Iterable[Json], limit: float) -> Json:
    """Return the verdict on all cells: whether a cost, or a time with an interval, rose.

    Args:
        rows: One row per cell of both sides: `baseline`, `time` and `cost` (effects, or None),
            `other_answers` (sides with other answers), `lost` and `lost_metal` (see `Losses.of`).
        gone: Cells of the first side without a result on the second.
        limit: The allowed rise, as a share.

    Returns:
        `limit`, `verdict` ("above", "not above" or "cannot tell"), `judged` (number of effects),
        `above` and `unclear` (rows with `what`, `effect` and `why`).
    """
    above, unclear, number = [], [], 0
    for row in rows:
        timed = row["time"] is not None and row["time"]["low"] is not None
        if not row["baseline"] and row["cost"] is None and not timed:
            named = {**row, "time": None, "what": "cost", "effect": None}
            unclear.append({**named, "why": "no common replicate or input"})
        for what in WHAT:
            if (effect := row[what]) is None:
                continue
            timeless = what == "time" and effect["low"] is None
            number += not timeless
            named = {**row, "time": None, "cost": None, "what": what, "effect": effect, "why": ""}
            if timeless:
                if row["other_answers"] and row["baseline"]:
                    unclear.append({**named, "why": _unlike(row["other_answers"])})
                elif effect["value"] > 1 + limit:
                    unclear.append({**named, "why": "no interval"})
            elif row["other_answers"]:
                unclear.append({**named, "why": _unlike(row["other_answers"])})
            elif effect["low"] is None or not has_width(effect["low"], effect["high"]):
                unclear.append({**named, "why": "no interval"})
            elif effect["low"] > 1 + limit:
                if why := _inflated(row, what):
                    unclear.append({**named, "why": why})
                else:
                    above.append(named)
            elif effect["high"] > 1 + limit:
                unclear.append(named)
            elif why := _flattered(row, what):
                unclear.append({**named, "why": why})
    for cell in gone:
        named = {**cell, "time": None, "cost": None, "what": "result", "effect": None}
        unclear.append({**named, "why": "none in the second"})
    clear = NOT_ABOVE if number and not unclear else CANNOT_TELL
    verdict = ABOVE if above else clear
    return {
        "limit": limit, "verdict": verdict, "judged": number, "above": above, "unclear": unclear,
    }  # fmt: skip


def _unlike(sides: Sequence[str]) -> str:
    return f"answers differ from bare metal's in the {' and the '.join(sides)}: other work"


def _flattered(row: Json, what: str) -> str:
    """Return why a rise may be hidden by lost slow trials; "" if it cannot be."""
    if _more(row["lost"]["second"], row["lost"]["first"]):
        return _in_words(row["lost"], "")
    metal = row["lost_metal"]
    if what == "cost" and metal and _more(metal["first"], metal["second"]):
        return _in_words(metal, " of bare metal")
    return ""


def _inflated(row: Json, what: str) -> str:
    """Return why a rise may be an artefact of slow trials lost on the first side; "" if not."""
    if _more(row["lost"]["first"], row["lost"]["second"], "late"):
        return _in_words(row["lost"], "")
    metal = row["lost_metal"]
    if what == "cost" and metal and _more(metal["second"], metal["first"], "late"):
        return _in_words(metal, " of bare metal")
    return ""


def _more(one: Json, other: Json, what: str = "lost") -> bool:
    """Return whether one side lost a larger share of its trials than the other."""
    return bool(one[what] * max(1, other["of"]) > other[what] * max(1, one["of"]))


def _in_words(lost: Json, of: str) -> str:
    sides = (f"{lost[s]['lost']} of {count(lost[s]['of'], 'trial')}" for s in ("first", "second"))
    return f"{' and '.join(sides)}{of} lost"


def vanished(sides: Sequence[Sequence[Json]], entries: Entries) -> str:
    """Return the cells that only one side has, in words; "" if there are none."""
    addition = ""
    for rows, (has, lacks) in zip(sides, (("first", "second"), ("second", "first")), strict=True):
        if rows:
            named = "; ".join(placed(row, entries) for row in rows[:_NAMED])
            more = f"; and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
            addition += (
                f" {count(len(rows), 'cell').capitalize()} of the {has} without a result in "
                f"the {lacks}: {named}{more}."
            )
    return addition
