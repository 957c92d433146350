"""Typical times of cells that share replicates in part only: a fit by least absolute deviations.

The logarithm of a time is taken as a part of its replicate plus a part of its cell, and the sum of
the absolute rest is made least, by iteratively reweighted least squares (Schlossmacher, "An
Iterative Technique for Absolute Deviations Curve Fitting", JASA 68, 1973). Cells that never ran in
one replicate are compared through those that ran with both, and one bad instance moves no cell.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from virtbed_analysis.candidates import Candidate

Floats = NDArray[np.float64]
_TURNS = 40
_LEAST = 1e-3  # a smaller rest weighs no more: 0.1% is less than any margin
_HOLD = 1e-3  # keeps replicates alike where no cell connects them, and is too weak to do else


def typical_logs(cells: Sequence[Candidate]) -> Floats:
    """Return the typical logarithm of each cell's time, or cost; only differences mean something.

    Over the inputs that all replicates of all cells have, or each over its own if there is none.
    """
    every = sorted({unit for cell in cells for unit in cell.times.units})
    units = {unit: place for place, unit in enumerate(every)}
    common = sorted(set.intersection(*(set(cell.times.everywhere) for cell in cells)))
    rows: list[tuple[int, int]] = []
    logs: list[float] = []
    for column, cell in enumerate(cells):
        own = cell.times.at(cell.times.units, common) if common else cell.times
        rows += [(units[unit], len(units) + column) for unit in own.units]
        logs.extend(np.log(cell.weight) + own.means)
    values = np.array(logs) - np.median(logs)
    design = np.zeros((len(rows), len(units) + len(cells)))
    np.put_along_axis(design, np.array(rows), 1.0, axis=1)
    held = np.diag(np.repeat([_HOLD, 0.0], [len(units), len(cells)]))
    weights = np.ones(len(rows))
    for _ in range(_TURNS):
        found = np.linalg.solve(design.T * weights @ design + held, design.T @ (weights * values))
        weights = 1 / np.maximum(abs(values - design @ found), _LEAST)
    return np.asarray(found[len(units) :])
