"""Inputs whose ratio to bare metal differs from that of the other inputs of their cell.

If a platform costs one input more than another (such as a short request that waits for a quota
period), the ratio of the cell is right for neither. Only scenarios judged by the e2e time have
inputs to compare; latency and throughput are values of a whole trial.
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
_FEWEST = 3  # with two replicates, unequal noise of inputs causes false alarms in 8% of reports
_MOST = 700.0  # exp of more overflows


def apart(samples: pl.DataFrame | Readings, margin: float = MARGIN) -> list[Json]:
    """Return the inputs whose ratio differs significantly, and by more than a margin.

    For replicate r and input i, d_ri is the log ratio of the input's time to bare metal's, and e_ri
    = d_ri - mean of d_r over inputs (the interaction of a two-way layout). An input is reported if
    the interval of its mean e excludes 0. The intervals of all inputs of all cells are simultaneous
    (Bonferroni), so with equal inputs one report of twenty names one. The variance of e is the
    larger of the input's own (replicates - 1 degrees of freedom) and the pooled one of its cell
    ((replicates - 1)(inputs - 1)).

    Args:
        samples: As `load` returns them, or their readings.
        margin: The smallest difference worth knowing, as a share.

    Returns:
        One row per such input: `GROUP`, `input`, `ratio` with `ratio_low`, `ratio_high` (Student's
        t, simultaneous for the inputs of one cell), `apart` (its ratio over the geometric mean of
        the ratios of the cell's inputs) with `apart_low`, `apart_high`, `inputs` and `replicates`
        (numbers). Inputs that a replicate lacks are left out of the comparison.
    """
    # Latency and throughput belong to no input.
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
    """Return the inputs that all paired replicates have on both sides, and d.

    Returns:
        The names of the inputs, and d of shape (replicates, inputs).
    """
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
    # The pooled variance rests on all inputs, an input's own on its replicates only.
    freedom = np.where(spread > common, replicates - 1, (replicates - 1) * (inputs - 1))
    half = _quantile(every, freedom) * np.sqrt(spread / replicates)
    significant = (abs(means) > half) & (abs(means) > margin) & (spread > NO_SPREAD**2)
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
        for i in np.flatnonzero(significant)
    ]


def _ends(name: str, mean: float, half: float) -> Json:
    """Return exp of a mean and of its interval's ends; None for ends that overflow."""
    known = abs(mean) + half < _MOST
    return {
        name: exp(mean),
        f"{name}_low": exp(mean - half) if known else None,
        f"{name}_high": exp(mean + half) if known else None,
    }


def _quantile(several: int, freedom: NDArray[np.int64]) -> Floats:
    return np.array([t_quantile(simultaneous(several), int(own)) for own in freedom])
