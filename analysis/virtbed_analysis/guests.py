"""Ratios whose two sides ran different kernels, and the cost of guests split by guest factors."""

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
    """Return a function from a cell's row to a text on the kernels of its ratio's two sides.

    The text is None if both sides ran the same kernel release, or if one is not known.

    Args:
        trials: `Sweep.trials`.
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
    """Return the kernel releases of each group of trials, as a text, by the group's key."""
    releases: dict[tuple[object, ...], set[str]] = {}
    for *key, kernel in trials.select(*by, "kernel").unique().iter_rows():
        releases.setdefault(tuple(key), set()).add(kernel)
    return {key: " and ".join(sorted(kernels)) for key, kernels in releases.items()}


def apart(means: Readings, cells: Iterable[Json], margin: float) -> list[Json]:
    """Return a table per guest factor that was measured with several values.

    Args:
        means: The readings of the sweep.
        cells: The report's cells, with their ratios to bare metal.
        margin: The margin of the answers, as a share.

    Returns:
        Tables with `name`, `default`, `meaning` and `rows`. A row has the columns of
        `estimate.guest_factor` (`ratio`: default over the other value), the answer at the margin,
        and `rest`, `rest_low`, `rest_high`: the ratio to bare metal with the other value.
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
