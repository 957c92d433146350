"""When a cell has been measured often enough.

A cell stops at the first replicate, from a minimum on, at which its interval is as narrow as was
asked (the sequential rule of Chow and Robbins, "On the Asymptotic Theory of Fixed-Width Sequential
Confidence Intervals", Annals of Mathematical Statistics 36, 1965, doi:10.1214/aoms/1177700156).
Looking again and again favours moments when the spread happens to look small, which costs
coverage; a minimum of eight replicates keeps that loss below two points (simulated in the tests).

What the rule needs of a trial is `log_means`, a number per input: a ledger that keeps them need not
read results again. Less is not enough. A ratio is paired by input, and which inputs two trials
have in common is known only when both have run; one number per trial (the mean of these) would do
only if LoadGen's quick rules gave every trial the same inputs, which they do not promise.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virtbed_analysis.cells import BASELINE_MODE, CELL, SUBJECT, is_plain
from virtbed_analysis.engine import Logs, contrast, half_width
from virtbed_analysis.platforms import platforms_of
from virtbed_contract.sweep import Design, PlannedTrial

LogMeans = Mapping[str, float]
"""Logarithms of an input's mean e2e time in ns, by the name of the input."""
_Key = tuple[Any, ...]


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


def log_means(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the logarithm of the mean e2e time, in ns, of each input of a result."""
    times: dict[str, list[int]] = defaultdict(list)
    for sample in result["samples"]:
        if not sample["warmup"]:
            times[sample["input"]].append(sample["e2e_ns"])
    return {name: math.log(sum(own) / len(own)) for name, own in sorted(times.items())}


def unneeded_trials(design: Design, measured: Mapping[str, LogMeans]) -> frozenset[str]:
    """Return the ids of the trials without result whose cells are close enough already.

    Bare metal, with which the others are paired, is needed as long as one of them is. Empty if the
    sweep asks for no precision.

    Args:
        design: What is planned.
        measured: `log_means` of each trial that has a result, by the trial's id.
    """
    if design.precision is None:
        return frozenset()
    bare = platforms_of(design.platforms, {}).bare
    planned = [trial for trial in design.trials if not trial.emulated]

    def is_baseline(trial: PlannedTrial) -> bool:
        return trial.platform == bare and trial.mode == BASELINE_MODE and is_plain(vars(trial))

    compared = [trial for trial in planned if not is_baseline(trial)]
    metal: dict[_Key, dict[int, Any]] = defaultdict(dict)
    cells: dict[_Key, dict[int, Any]] = defaultdict(dict)
    subjects = {}
    for trial in planned:
        if logs := measured.get(trial.id):
            own = metal[_key(trial, SUBJECT)] if is_baseline(trial) else cells[_key(trial, CELL)]
            own[trial.replicate] = list(logs), list(logs.values())
            subjects[_key(trial, CELL)] = _key(trial, SUBJECT)
    below = {subject: Logs.of(own) for subject, own in metal.items()}
    close = {
        cell
        for cell, own in cells.items()
        if _close(Logs.of(own), below.get(subjects[cell]), design)
    }
    unsettled = {_key(t, SUBJECT) for t in compared if _key(t, CELL) not in close}
    settled = {_key(trial, SUBJECT) for trial in compared} - unsettled
    return frozenset(
        trial.id
        for trial in planned
        if trial.id not in measured
        and (_key(trial, SUBJECT) in settled if is_baseline(trial) else _key(trial, CELL) in close)
    )


def _close(above: Logs, below: Logs | None, design: Design) -> bool:
    """Return whether a cell's ratio is known as closely as its design asks."""
    logs = contrast((1.0, above), (-1.0, below))
    half = None if logs is None else half_width([logs])
    if logs is None or half is None or design.precision is None:
        return False
    low, high, n = np.exp([logs.mean() - half]), np.exp([logs.mean() + half]), np.array([len(logs)])
    return bool(close_enough(low, high, n, design.precision, design.min_replicates)[0])


def _key(trial: PlannedTrial, columns: Iterable[str]) -> _Key:
    return tuple(getattr(trial, column) for column in columns)
