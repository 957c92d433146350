"""Knows when a cell has been measured often enough.

A cell stops at the first replicate, from a minimum on, at which its interval is as narrow as was
asked (the sequential rule of Chow and Robbins, "On the Asymptotic Theory of Fixed-Width Sequential
Confidence Intervals", Annals of Mathematical Statistics 36, 1965, doi:10.1214/aoms/1177700156).
Looking again and again favours moments when the spread happens to look small, which costs
coverage; a minimum of eight replicates keeps that loss below two points (simulated in the tests).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from virtbed_analysis.estimate import BASELINE, CELL, SUBJECT, ratio_to_bare_metal
from virtbed_analysis.load import Json, Sweep, read_sweep


def close_enough(
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    replicates: NDArray[np.int64],
    precision: float,
    min_replicates: int,
) -> NDArray[np.bool_]:
    """Return, elementwise, whether intervals of ratios are as narrow as asked.

    A precision of 0.02 asks that sqrt(high / low) be at most 1.02: the ends are then within 2% of
    the estimate. An interval that is NaN is not narrow.
    """
    narrow = np.log(high / low) / 2 <= np.log1p(precision)
    return np.asarray(narrow & (replicates >= min_replicates))


def unneeded_trials(folder: Path) -> frozenset[str]:
    """Return the planned trials that have no result and need none; see `unneeded`.

    Raises:
        AnalysisError: the folder does not exist, or its results come from different images.
    """
    return unneeded(read_sweep(folder))


def unneeded(sweep: Sweep) -> frozenset[str]:
    """Return the ids of the trials without result whose cells are close enough already.

    Bare metal, with which the others are paired, is needed as long as one of them is. Empty if the
    sweep asks for no precision.
    """
    design = sweep.design or {}
    if not design.get("precision"):
        return frozenset()
    close = _close(sweep.samples, design["precision"], design["min_replicates"])
    planned = [trial for trial in design["trials"] if not trial["emulated"]]
    compared = {_key(trial, CELL) for trial in planned if not _is_baseline(trial)}
    open_subjects = {_key(dict(zip(CELL, cell, strict=True)), SUBJECT) for cell in compared - close}
    compared_subjects = {_key(dict(zip(CELL, cell, strict=True)), SUBJECT) for cell in compared}
    closed_subjects = compared_subjects - open_subjects
    with_result = set(sweep.trials["trial"])
    return frozenset(
        trial["id"]
        for trial in planned
        if trial["id"] not in with_result
        and (
            _key(trial, SUBJECT) in closed_subjects
            if _is_baseline(trial)
            else _key(trial, CELL) in close
        )
    )


def _close(samples: pl.DataFrame, precision: float, minimum: int) -> set[tuple[object, ...]]:
    ratios = ratio_to_bare_metal(samples)
    low, high = (
        ratios[end].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        for end in ("ratio_low", "ratio_high")
    )
    close = close_enough(low, high, ratios["ratio_replicates"].to_numpy(), precision, minimum)
    return set(ratios.filter(pl.Series(close)).select(CELL).rows())


def _is_baseline(trial: Json) -> bool:
    return all(trial[key] == value for key, value in BASELINE.items())


def _key(trial: Json, columns: Iterable[str]) -> tuple[object, ...]:
    return tuple(trial[column] for column in columns)
