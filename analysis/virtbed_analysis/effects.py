"""The units of a set of measurements, and the cost of one cell over another in them.

A unit is a sweep's replicate, or, where each input was run once, the input. See `engine` for how
cells are paired, and for the intervals of effects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from virtbed_analysis import engine
from virtbed_analysis.cells import BASELINE_MODE, MATCHED, Cell, cell_of, rank
from virtbed_analysis.engine import Effect, Floats, Logs, effects, together
from virtbed_analysis.platforms import Parts, Platforms
from virtbed_analysis.reduction import PLAIN_ROWS, Readings, by_cell, readings

__all__ = ["Effect", "Floats", "Units", "effects", "of_sweep", "together"]


@dataclass(frozen=True)
class Units:
    """Logarithms of seconds by cell.

    `pre_post` is the share of pre- and post-processing in a request's time, by cell, as far as it
    was measured. `unit` says in words what a unit is. Costs are against bare metal of
    `metal_mode`, at every size.
    """

    logs: Mapping[Cell, Logs]
    unit: str
    pre_post: Mapping[Cell, float]
    platforms: Platforms
    metal_mode: str = BASELINE_MODE

    def cells(self, parts: Parts | None = None, **wanted: str | int) -> list[Cell]:
        """Return the measured cells that have these parts or factors, as a report lists them.

        Args:
            parts: Machine and enclosure; None for every platform.
            **wanted: Parts of a `Cell`, or values of factors.
        """
        found = (
            cell
            for cell in self.logs
            if parts in (None, self.platforms.parts(cell.platform))
            and all(cell.value(key) == value for key, value in wanted.items())
        )
        return sorted(found, key=self.order)

    def order(self, cell: Cell) -> tuple[object, ...]:
        """Return where a report lists a cell."""
        return (*rank(cell), *self.platforms.order(cell.platform, cell.mode))

    def is_bare(self, cell: Cell) -> bool:
        """Return whether a cell is of bare metal, in either mode."""
        return cell.platform == self.platforms.bare

    def baseline(self, cell: Cell) -> Cell:
        """Return bare metal at a cell's size; a cell without logarithms if there is none."""
        return cell._replace(platform=self.platforms.bare or "", mode=self.metal_mode)

    def elsewhere(self, cell: Cell, parts: Parts) -> list[Cell]:
        """Return a cell's like on each platform that has this machine and enclosure."""
        names = (name for name in self.platforms.names if self.platforms.parts(name) == parts)
        return [cell._replace(platform=name) for name in names]

    def contrast(self, *terms: tuple[float, Cell]) -> Floats | None:
        """Return `engine.contrast` of cells: one value per unit that all share; None without."""
        return engine.contrast(*((weight, self.logs.get(cell)) for weight, cell in terms))

    def over(self, above: Cell, below: Cell) -> Floats | None:
        """Return the logarithms of one cell's time over another's, one per shared unit."""
        return self.contrast((1.0, above), (-1.0, below))

    def cost(self, cell: Cell) -> Floats | None:
        """Return the logarithms of a cell's time over bare metal's at its size."""
        return self.over(cell, self.baseline(cell))


def of_sweep(samples: pl.DataFrame | Readings, platforms: Platforms) -> Units:
    """Return the units of a sweep's real plain cells, one per replicate.

    Times are those that their scenario is judged by: see `Readings.judged`.

    Args:
        samples: As `load` gives them, or their readings.
        platforms: The sweep's.
    """
    plain = readings(samples).filter(PLAIN_ROWS)
    seconds = plain.judged.with_columns(pl.col("log") - np.log(1e9))
    logs = {
        cell_of(dict(zip(_PARTS, key, strict=True))): own
        for key, own in by_cell(seconds, _PARTS).items()
    }
    spent = (pl.col("pre_ns") + pl.col("post_ns")).sum() / pl.col("e2e_ns").sum()
    shares = plain.totals.group_by(_PARTS).agg(spent.alias("share"))
    pre_post = {cell_of(row): float(row["share"]) for row in shares.iter_rows(named=True)}
    return Units(logs, "replicate", pre_post, platforms)


_PARTS = (
    "application", "scale", "scenario", "weights", *(factor.name for factor in MATCHED),
    "cores", "platform", "mode",
)  # fmt: skip
