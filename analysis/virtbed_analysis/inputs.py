"""Inputs whose ratio to bare metal is not that of their cell.

Only of scenarios judged by e2e, where a cell's ratio is a mean over inputs. Where a platform costs
one input more than another (a short request that waits for a quota, a long one that does not), it
holds for neither.
"""

from __future__ import annotations

from math import exp, log1p

import numpy as np
import polars as pl
from numpy.typing import NDArray

from virtbed_analysis.cells import SUBJECT
from virtbed_analysis.engine import Key, Logs, aligned
from virtbed_analysis.estimate import in_order
from virtbed_analysis.intervals import NO_SPREAD, simultaneous, t_quantile
from virtbed_analysis.latency import WHOLE
from virtbed_analysis.reduction import BASELINE, GROUP, Readings, by_cell, readings
from virtbed_analysis.trust import Json
from virtbed_contract.sweep import MARGIN

Floats = NDArray[np.float64]
_FEWEST = 3  # of two replicates inputs of unlike noise are named in 8% of reports
_MOST = 700.0  # exp of more is no number any more


def apart(samples: pl.DataFrame | Readings, margin: float = MARGIN) -> list[Json]:
    """Return the inputs whose ratio is clearly not their cell's, and differs by over a margin.

    For each replicate r and input i, d_ri is the logarithm of the input's time over bare metal's,
    and e_ri is d_ri less the mean of d_r over the inputs. An input is apart if the interval of its
    mean e excludes 0; the intervals of all inputs of all cells are simultaneous (Bonferroni), so
    that a report whose inputs are all alike names one in one of twenty. The spread of e is that of
    the input or of all inputs of its cell, whichever is larger.

    Args:
        samples: As `load` gives them.
        margin: The smallest difference worth knowing, as a share.

    Returns:
        One row per input: `GROUP`, `input`, `ratio` with `ratio_low`, `ratio_high`
        (Student's t, simultaneous for the inputs of one cell), `apart` (its ratio over the cell's)
        with `apart_low`, `apart_high`, `inputs` (how many the cell has) and `replicates`. Inputs
        that a replicate lacks are left out of the comparison.
    """
    # Latency and throughput are of no input.
    logs = readings(samples).filter(~pl.col("scenario").is_in(WHOLE)).logs()
    match = [*SUBJECT, "weights"]
    places = [GROUP.index(name) for name in match]
    metal = by_cell(logs.filter(BASELINE), match)
    compared = logs.filter(~BASELINE)
    cells = [
        (key, *_matrix(own, below))
        for key, own in by_cell(compared, GROUP).items()
        if (below := metal.get(tuple(key[place] for place in places)))
    ]
    tested = [one for one in cells if one[2].shape[0] >= _FEWEST and one[2].shape[1] > 1]
    every = sum(logs.shape[1] for _, _, logs in tested)
    rows = [row for one in tested for row in _rows(*one, every, log1p(margin))]
    if not rows:
        return []
    schema = {name: logs.schema[name] for name in GROUP}
    return in_order(pl.DataFrame(rows, schema_overrides=schema)).to_dicts()


def _matrix(above: Logs, below: Logs) -> tuple[list[str], Floats]:
    """Return the inputs that all paired replicates have on both sides, and d: a row for each."""
    above, below = aligned(above, below)
    known = above.known & below.known
    paired = known.any(axis=1)
    kept = np.flatnonzero(known[paired].all(axis=0))
    names = [above.inputs[column] for column in kept]
    return names, (above.values - below.values)[paired][:, kept]


def _rows(key: Key, names: list[str], logs: Floats, every: int, margin: float) -> list[Json]:
    replicates, inputs = logs.shape
    own = logs - logs.mean(axis=1, keepdims=True)
    means = own.mean(axis=0)
    common = ((own - means) ** 2).sum() / ((replicates - 1) * inputs)
    spread = np.maximum(common, own.var(axis=0, ddof=1))
    # The common spread rests on all inputs, an input's own on its replicates alone.
    freedom = np.where(spread > common, replicates - 1, (replicates - 1) * (inputs - 1))
    half = _quantile(every, freedom) * np.sqrt(spread / replicates)
    found = (abs(means) > half) & (abs(means) > margin) & (spread > NO_SPREAD**2)
    error = logs.std(axis=0, ddof=1) / np.sqrt(replicates)
    wide = t_quantile(simultaneous(inputs), replicates - 1) * error
    which = dict(zip(GROUP, key, strict=True))
    return [
        {
            **which,
            "input": names[i],
            **_ends("ratio", logs[:, i].mean(), wide[i]),
            **_ends("apart", means[i], half[i]),
            "inputs": inputs,
            "replicates": replicates,
        }
        for i in np.flatnonzero(found)
    ]


def _ends(name: str, mean: float, half: float) -> Json:
    """Return exponentials of a mean and its ends; None for ends that are beyond all numbers."""
    known = abs(mean) + half < _MOST
    return {
        name: exp(mean),
        f"{name}_low": exp(mean - half) if known else None,
        f"{name}_high": exp(mean + half) if known else None,
    }


def _quantile(several: int, freedom: NDArray[np.int64]) -> Floats:
    return np.array([t_quantile(simultaneous(several), int(own)) for own in freedom])
