"""Splits a platform's cost into the parts of the factors that were varied one at a time.

A plan with `explain: true` measures a star: a reference cell of each platform, and cells that
differ from it in one value of one factor. R is a cell's ratio to bare metal. With R_ref of the
pinned reference, and R_i of the cell without part i (its factor has the value that bare metal has),

- part i is R_ref - R_i, in shares of bare metal's time;
- the rest is R_ref - 1 - the sum of the parts: everything that was not varied, and interactions;
- the mode is R_vanilla - R_ref.

They add up to the whole. A factor that bare metal does not have in any form, such as another
runtime, is no part but a change: R_changed - R_reference, of the cell in which it was varied.

All terms of a waterfall use the replicates that all its cells have, paired within each. Intervals
are Student's t on the contributions of the replicates (`engine.points`), simultaneous for one
waterfall (Bonferroni); each change has an interval of its own. `waterfall` draws the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from virtbed_analysis import words
from virtbed_analysis.cells import BASELINE_MODE, CELL, DEFAULTED, PLAIN, SUBJECT
from virtbed_analysis.engine import Floats, Logs, equal, half_width, points, shared
from virtbed_analysis.frames import Sweep
from virtbed_analysis.intervals import CONFIDENCE, simultaneous
from virtbed_analysis.reduction import GROUP, Readings, by_cell, readings
from virtbed_analysis.trust import Json
from virtbed_contract.documents import Platform
from virtbed_contract.factors import MODES, Factor

# A twin or a slowed platform tests the testbed. The slowdown by neighbours is no part of a
# platform's cost, since bare metal has it, too: see `isolation`.
_ASIDE = ("variant", "neighbours")
_VARIED = tuple(factor for factor in DEFAULTED if factor.name not in _ASIDE)
_MOST = 300.0  # largest logarithm whose exp can be squared without overflow
_DIAGNOSTICS = {"stalled": "throttled_share", "huge": "huge_share"}
_Changed = tuple[tuple[Factor, str], ...]
"""The factors of a cell that do not have their default, with their values."""
_Own = tuple[str, str, _Changed]
"""Platform, mode and changed factors: a cell of one subject."""


@dataclass(frozen=True)
class _Term:
    """One row of a waterfall: a weighted sum of its cells' ratios, plus a constant."""

    kind: str
    what: str
    terms: Mapping[int, float]
    constant: float = 0.0


def of_sweep(sweep: Sweep, means: Readings | None = None) -> Json:
    """Return `confidence`, and `explained`: the waterfalls of `document`, each with a `sentence`.

    Example:
        >>> from pathlib import Path
        >>> from virtbed_analysis import read_sweep
        >>> of_sweep(read_sweep(Path("results/quick")))["explained"]
        []
    """
    entries = sweep.platforms.entries
    rows = document(means or readings(sweep.samples), sweep.trials, entries)
    sentences = [{**row, "sentence": sentence(row, entries)} for row in rows]
    return {"confidence": CONFIDENCE, "explained": sentences}


def document(means: Readings, trials: pl.DataFrame, entries: Mapping[str, Platform]) -> list[Json]:
    """Return one waterfall per platform and subject in which a factor was varied alone.

    Args:
        means: The readings of a sweep.
        trials: One row per trial, with `throttled_share` and `huge_share`.
        entries: The platforms by name, in the order of reports.

    Returns:
        Waterfalls with the columns of `SUBJECT`, `weights`, `platform`, `mode` (of the last total),
        `n` (number of replicates) and `rows`. A row has `kind` (``part``, ``rest``, ``mode``,
        ``total`` or ``change``), `what` (in words), `points` (a share of bare metal's time) with
        `low` and `high` (null without an interval), `start` and `end` (ratios to bare metal), and
        `n`. Diagnostics of the cell in which a row ends, which are in no ratio: `stalled` (share of
        periods in which the CPU quota stopped it; null without a quota) and `huge` (share of its
        memory in huge pages; null if unknown).
    """
    logs = means.judged
    metal = set(logs.filter("bare")["platform"].unique())
    subjects: dict[tuple[Any, ...], dict[_Own, Logs]] = {}
    for key, own in by_cell(logs, GROUP).items():
        row = dict(zip(GROUP, key, strict=True))
        if _is_of_a_platform(row):
            about = tuple(row[name] for name in (*SUBJECT, "weights"))
            where = (row["platform"], row["mode"], _changed(row))
            subjects.setdefault(about, {})[where] = own
    counted = {diagnostic: _counted(trials, column) for diagnostic, column in _DIAGNOSTICS.items()}
    waterfalls = []
    for about, cells in subjects.items():
        base = next((c for (p, m, x), c in cells.items() if _is_base(p, m, x, metal)), None)
        if base is None or not any(len(changed) == 1 for _, _, changed in cells):
            continue
        columns = dict(zip((*SUBJECT, "weights"), about, strict=True))
        for name, entry in entries.items():
            theirs = {(m, x): one for (p, m, x), one in cells.items() if p == name and len(x) < 2}
            if drawn := _waterfall(base, theirs, entry, name in metal):
                mode = drawn.pop("mode")
                waterfall = {**columns, "platform": name, "mode": mode, **drawn}
                for row in waterfall["rows"]:
                    where = row.pop("cell")
                    cell = (about[: len(SUBJECT)], name, *where)
                    row |= {
                        diagnostic: means_of.get(cell) for diagnostic, means_of in counted.items()
                    }
                waterfalls.append(waterfall)
    return waterfalls


def _is_base(platform: str, mode: str, changed: _Changed, metal: set[str]) -> bool:
    return platform in metal and mode == BASELINE_MODE and not changed


def _is_of_a_platform(row: Mapping[str, Any]) -> bool:
    return all(row[name] == PLAIN[name] for name in _ASIDE)


def _changed(row: Mapping[str, Any]) -> _Changed:
    return tuple((f, row[f.name]) for f in _VARIED if row[f.name] != f.default)


def _counted(trials: pl.DataFrame, column: str) -> dict[tuple[Any, ...], float]:
    """Return the mean of a diagnostic's column over the trials of each real cell."""
    real = trials.filter(~pl.col("emulated"), pl.col(column).is_not_null())
    means = {}
    for row in real.group_by(CELL, maintain_order=True).agg(pl.col(column).mean()).to_dicts():
        about = tuple(row[name] for name in SUBJECT)
        # A hostile file may have any number.
        if np.isfinite(row[column]) and _is_of_a_platform(row):
            means[about, row["platform"], row["mode"], _changed(row)] = row[column]
    return means


def sentence(waterfall: Json, entries: Mapping[str, Platform]) -> str:
    """Return the parts of a platform's cost in one sentence; empty if it has no total.

    "container, CPU quota: +60.0% (+45.0 to +77.0) of bare metal's time, of which CPU quota in place
    of pinned +58.0 (+43.0 to +75.0), seccomp filter +1.0 (-0.5 to +2.5)."
    """
    steps = [row for row in waterfall["rows"] if row["kind"] in ("part", "rest", "mode")]
    totals = [row for row in waterfall["rows"] if row["kind"] == "total"]
    if not totals:
        return ""
    steps = sorted(steps, key=lambda row: -abs(row["points"]))
    parts = ", ".join(f"{row['what']} {words.points(row)}" for row in steps)
    name = words.platform(waterfall, entries)
    whole = words.points(totals[-1], "%")
    return f"{name}: {whole} of bare metal's time{f', of which {parts}' if parts else ''}."


def _waterfall(
    base: Logs, own: Mapping[tuple[str, _Changed], Logs], entry: Platform, bare: bool
) -> Json | None:
    """Return the waterfall of one platform; None if it has no reference cell."""
    modes = [mode for mode in MODES if (mode, ()) in own]
    if not modes:
        return None
    reference = BASELINE_MODE if BASELINE_MODE in modes else modes[0]
    parts = [
        factor
        for factor in _VARIED
        if factor.bare is not None and (reference, ((factor, factor.bare),)) in own and not bare
    ]
    rows: list[Json] = []
    n = 0
    if not bare:
        rows, n = _steps(base, own, entry, (reference, modes[0]), parts)
    for (mode, changed), logs in own.items():
        if len(changed) == 1 and (mode, ()) in own:
            factor, value = changed[0]
            if factor not in parts or mode != reference:
                where = "" if len(modes) == 1 else f", {entry.modes.get(mode, mode)}"
                what = f"{factor.words(value)}{where}"
                rows += _change(base, own[mode, ()], logs, what, (mode, changed))
    return {"mode": modes[0], "n": n, "rows": rows} if rows else None


def _steps(
    base: Logs,
    own: Mapping[tuple[str, _Changed], Logs],
    entry: Platform,
    modes: tuple[str, str],
    parts: Sequence[Factor],
) -> tuple[list[Json], int]:
    """Return the steps from bare metal to a platform's last mode, and the number of replicates.

    Args:
        base: Logarithms of bare metal.
        own: Logarithms of the platform's cells.
        entry: The platform.
        modes: The mode of the reference, and the last mode; equal if it has one mode.
        parts: The factors whose parts were measured.
    """
    reference, last = modes
    without = [own[reference, ((factor, str(factor.bare)),)] for factor in parts]
    vanilla = [own[last, ()]] if last != reference else []
    units, (zero, *sides) = shared(base, own[reference, ()], *without, *vanilla)
    logs = [side - zero for side in sides]
    if not units or not _usable(logs):
        return [], 0
    places = {number: factor.part for number, factor in enumerate(parts, 1)}
    terms = [_Term("part", what, {0: 1.0, place: -1.0}) for place, what in places.items()]
    if parts:
        rest = {0: 1.0 - len(parts), **dict.fromkeys(places, 1.0)}
        terms.append(_Term("rest", f"everything else of {entry.words}", rest, -1.0))
    terms.append(_Term("total", entry.in_words(reference), {0: 1.0}, -1.0))
    if vanilla:
        named = [entry.modes.get(mode, mode) for mode in (last, reference)]
        place = len(logs) - 1
        terms.append(_Term("mode", " in place of ".join(named), {place: 1.0, 0: -1.0}))
        terms.append(_Term("total", entry.in_words(last), {place: 1.0}, -1.0))
    at = 1.0
    rows: list[Json] = []
    for term in terms:
        row = _row(logs, term, simultaneous(len(terms)))
        at = 1.0 + row["points"] if term.kind == "total" else at + row["points"]
        row["start"] = 1.0 if term.kind == "total" else at - row["points"]
        mode = last if (rows and rows[-1]["kind"] == "mode") or term.kind == "mode" else reference
        rows.append({**row, "end": at, "cell": (mode, ())})
    return rows, len(units)


def _change(
    base: Logs, reference: Logs, changed: Logs, what: str, cell: tuple[str, _Changed]
) -> Iterator[Json]:
    units, (zero, *sides) = shared(base, reference, changed)
    logs = [side - zero for side in sides]
    if units and _usable(logs):
        row = _row(logs, _Term("change", what, {1: 1.0, 0: -1.0}), CONFIDENCE)
        start, end = (float(np.exp(side.mean())) for side in logs)
        yield {**row, "start": start, "end": end, "cell": cell}


def _usable(logs: Sequence[Floats]) -> bool:
    """Return whether all logarithms are of numbers that do not overflow."""
    return all(bool((np.abs(side) < _MOST).all()) for side in logs)


def _row(logs: Sequence[Floats], term: _Term, confidence: float) -> Json:
    value, parts = points(logs, term.terms, term.constant)
    half = None if equal(parts) else half_width([parts], confidence)
    return {
        "kind": term.kind,
        "what": term.what,
        "points": value,
        "low": None if half is None else value - half,
        "high": None if half is None else value + half,
        "n": len(parts),
    }
