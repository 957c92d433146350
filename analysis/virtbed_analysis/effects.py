"""Logarithms of times by cell (`Units`), and contrasts of cells such as the cost over bare metal.

A unit is the replication unit of a data set: a replicate of a sweep, or an input where each input
was run once (published data). `engine` pairs cells by unit and makes the intervals; findings,
scaling and resolution work on `Units`.
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
    """Logarithms of times by cell.

    Attributes:
        logs: The `Logs` of each plain cell, logarithms of seconds.
        unit: The name of a unit, such as "replicate".
        pre_post: The share of pre- and post-processing in the e2e time, by cell, if measured.
        platforms: The platforms of the data set.
        metal_mode: The mode of bare metal that costs are relative to, at every size.
    """

    logs: Mapping[Cell, Logs]
    unit: str
    pre_post: Mapping[Cell, float]
    platforms: Platforms
    metal_mode: str = BASELINE_MODE

    def cells(self, parts: Parts | None = None, **wanted: str | int) -> list[Cell]:
        """Return the measured cells with given values, in the order of a report.

        Args:
            parts: Machine and enclosure of the platform; None for every platform.
            **wanted: Values of fields of `Cell`, or of factors.
        """
        matching = (
            cell
            for cell in self.logs
            if parts in (None, self.platforms.parts(cell.platform))
            and all(cell.value(key) == value for key, value in wanted.items())
        )
        return sorted(matching, key=self.order)

    def order(self, cell: Cell) -> tuple[object, ...]:
        """Return the sort key of a cell in a report."""
        return (*rank(cell), *self.platforms.order(cell.platform, cell.mode))

    def is_bare(self, cell: Cell) -> bool:
        """Return whether a cell is of bare metal, in either mode."""
        return cell.platform == self.platforms.bare

    def baseline(self, cell: Cell) -> Cell:
        """Return the bare-metal cell that a cell is compared with; it may not be measured."""
        return cell._replace(platform=self.platforms.bare or "", mode=self.metal_mode)

    def elsewhere(self, cell: Cell, parts: Parts) -> list[Cell]:
        """Return the cell with each platform of this machine and enclosure in place of its own."""
        names = (name for name in self.platforms.names if self.platforms.parts(name) == parts)
        return [cell._replace(platform=name) for name in names]

    def contrast(self, *terms: tuple[float, Cell]) -> Floats | None:
        """Return `engine.contrast` of (weight, cell) terms; None if a cell is not measured."""
        return engine.contrast(*((weight, self.logs.get(cell)) for weight, cell in terms))

    def over(self, above: Cell, below: Cell) -> Floats | None:
        """Return the log ratio of one cell's time over another's, one value per shared unit."""
        return self.contrast((1.0, above), (-1.0, below))

    def cost(self, cell: Cell) -> Floats | None:
        """Return the log ratio of a cell's time to its baseline's, one value per shared unit."""
        return self.over(cell, self.baseline(cell))


def of_sweep(samples: pl.DataFrame | Readings, platforms: Platforms) -> Units:
    """Return the `Units` of a sweep's real plain cells; a unit is a replicate.

    Times are the judged ones of each scenario, see `Readings.judged`.

    Args:
        samples: As `load` returns them, or their readings.
        platforms: The platforms of the sweep.
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
