"""Ratios whose sides ran two kernels, and the cost of guests taken apart by their factors."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import polars as pl

from virtbed_analysis import doubts, estimate
from virtbed_analysis.cells import BASELINE_MODE, CELL, PLAIN, SUBJECT, key_of
from virtbed_analysis.margin import with_answers
from virtbed_analysis.reading import Json
from virtbed_analysis.reduction import BARE, PLAIN_ROWS, Readings
from virtbed_contract.factors import FACTORS


def kernels(trials: pl.DataFrame) -> Callable[[Json], str | None]:
    """Return what says of a row of a cell that both sides of its ratio ran two kernels, and which.

    It says None where both ran one kernel, or none is known.
    """
    real = trials.filter(~pl.col("emulated"))
    bare = real.filter(BARE & (pl.col("mode") == BASELINE_MODE) & PLAIN_ROWS)
    ours, theirs = _kernels(real, CELL), _kernels(bare, SUBJECT)

    def differing(row: Json) -> str | None:
        whole = {**PLAIN, **row}
        own, other = ours.get(key_of(whole)), theirs.get(key_of(whole, SUBJECT))
        return f"kernel {own}, bare metal's {other}" if own and other and own != other else None

    return differing


def _kernels(trials: pl.DataFrame, by: list[str]) -> dict[tuple[object, ...], str]:
    """Return the releases of the kernels that each group of trials ran on."""
    found: dict[tuple[object, ...], set[str]] = {}
    for *key, kernel in trials.select(*by, "kernel").unique().iter_rows():
        found.setdefault(tuple(key), set()).add(kernel)
    return {key: " and ".join(sorted(kernels)) for key, kernels in found.items()}


def apart(means: Readings, cells: Iterable[Json], margin: float) -> list[Json]:
    """Return a table for each factor of guests that was measured with several values.

    Each has `name`, `default`, `meaning` and `rows`: `ratio` of the default over the other value,
    and `rest`, `rest_low` and `rest_high`, the ratio to bare metal that remains with that.
    """
    remaining = {key_of(cell): cell for cell in cells}
    tables = []
    for factor in (one for one in FACTORS if one.own_kernel):
        rows = with_answers(doubts.marked(estimate.guest_factor(means, factor).to_dicts()), margin)
        for row in rows:
            cell = remaining.get(key_of(row), {})
            row |= {f"rest{end}": cell.get(f"ratio{end}") for end in ("", "_low", "_high")}
            row |= {"doubt": None, "rest_doubt": None}
        if rows:
            about = {"name": factor.name, "default": factor.wording.format(factor.default)}
            tables.append({**about, "meaning": factor.meaning, "rows": rows})
    return tables
