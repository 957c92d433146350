"""When a cell has been measured often enough.

A cell stops at the first replicate, from a minimum on, at which its interval is as narrow as was
asked (the sequential rule of Chow and Robbins, "On the Asymptotic Theory of Fixed-Width Sequential
Confidence Intervals", Annals of Mathematical Statistics 36, 1965, doi:10.1214/aoms/1177700156).
Looking again and again favours moments when the spread happens to look small, which costs
coverage; a minimum of eight replicates keeps that loss below two points (simulated in the tests).

What the rule needs of a trial is `log_means`, a number per input, or one where its scenario is
judged by latency or throughput, which are of no input: a ledger that keeps them need not
read results again. Less is not enough. A ratio is paired by input, and which inputs two trials
have in common is known only when both have run; one number per trial (the mean of these) would do
only if LoadGen's quick rules gave every trial the same inputs, which they do not promise.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from virtbed_analysis.cells import BASELINE_MODE, CELL, SUBJECT, is_plain
from virtbed_analysis.engine import Logs, contrast, equal, half_width
from virtbed_analysis.platforms import platforms_of
from virtbed_analysis.reading import EARLIER, MARK
from virtbed_contract import json_file
from virtbed_contract.codec import DocumentError
from virtbed_contract.measures import JUDGED_BY
from virtbed_contract.sweep import Design, PlannedTrial

LogMeans = Mapping[str, float]
"""Logarithms of the time in ns that a trial is judged by, by input: an input's mean e2e time, or,
under the empty name, what is of the whole trial."""
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
    """Return the logarithm of the time, in ns, that a result is judged by, of each input it has.

    Example:
        >>> sample = {"warmup": False, "input": "a.png"}
        >>> result = {
        ...     "settings": {"scenario": "single_stream"},
        ...     "samples": [{**sample, "e2e_ns": 1_000}, {**sample, "e2e_ns": 3_000}],
        ... }
        >>> round(math.exp(log_means(result)["a.png"]))
        2000
    """
    if JUDGED_BY[result["settings"]["scenario"]].grain == "trial":
        # Polars takes long to import, and the controller seldom needs it here.
        from virtbed_analysis.latency import of_result

        return {"": math.log(of_result(result))}
    times: dict[str, list[int]] = defaultdict(list)
    for sample in result["samples"]:
        if not sample["warmup"]:
            times[sample["input"]].append(sample["e2e_ns"])
    return {name: math.log(sum(own) / len(own)) for name, own in sorted(times.items())}


def unneeded_trials(
    design: Design, measured: Mapping[str, LogMeans], started: Mapping[str, float] | None = None
) -> frozenset[str]:
    """Return the ids of the trials without result whose cells are close enough already.

    Bare metal, with which the others are paired, is needed as long as one of them is. Empty if the
    sweep asks for no precision.

    Args:
        design: What is planned.
        measured: `log_means` of each trial that has a result, by the trial's id; of a baseline that
            was measured again also those of its earlier attempts, by "ID@ATTEMPT".
        started: When trials started, in seconds since the epoch, by the same ids: needed where a
            baseline was measured again. Each trial is then paired with the nearest.

    Example:
        >>> import json
        >>> from virtbed_contract.codec import decode
        >>> planned = json.loads(Path("results/quick/design.json").read_text())
        >>> unneeded_trials(decode(Design, planned, "design.json"), {})  # it asks for no precision
        frozenset()
    """
    if design.precision is None:
        return frozenset()
    bare = platforms_of(design.platforms, {}).bare
    planned = [trial for trial in design.trials if not trial.emulated]

    def is_baseline(trial: PlannedTrial) -> bool:
        return trial.platform == bare and trial.mode == BASELINE_MODE and is_plain(vars(trial))

    compared = [trial for trial in planned if not is_baseline(trial)]
    attempts: dict[str, list[str]] = defaultdict(list)
    for name in measured:
        attempts[name.partition(MARK)[0]].append(name)
    baselines = {
        (_key(trial, SUBJECT), trial.replicate): attempts[trial.id]
        for trial in planned
        if is_baseline(trial) and trial.id in attempts
    }
    pairs: dict[_Key, dict[int, tuple[LogMeans, LogMeans]]] = defaultdict(dict)
    for trial in compared:
        names = baselines.get((_key(trial, SUBJECT), trial.replicate))
        if names and trial.id in measured:
            below = _nearest(trial.id, names, started or {})
            pairs[_key(trial, CELL)][trial.replicate] = measured[trial.id], measured[below]
    close = {cell for cell, own in pairs.items() if _close(own, design)}
    unsettled = {_key(t, SUBJECT) for t in compared if _key(t, CELL) not in close}
    settled = {_key(trial, SUBJECT) for trial in compared} - unsettled
    return frozenset(
        trial.id
        for trial in planned
        if trial.id not in measured
        and (_key(trial, SUBJECT) in settled if is_baseline(trial) else _key(trial, CELL) in close)
    )


class Earlier(NamedTuple):
    """A baseline's result that was put aside as it was measured again.

    Attributes:
        trial: Its id.
        name: What `unneeded_trials` calls it.
        log_means: See `log_means`.
        started_s: When it started, in seconds since the epoch.
    """

    trial: str
    name: str
    log_means: LogMeans
    started_s: float


def earlier_attempts(folder: Path) -> list[Earlier]:
    """Return the results in a results folder that were put aside; one that cannot be read is none.

    The report names those.

    Example:
        >>> earlier_attempts(Path("results/quick"))
        []
    """
    found = []
    for path in sorted(folder.glob(f"{EARLIER}/*/*/result.json")):
        trial, attempt = path.parent.name, path.parent.parent.name
        with suppress(DocumentError, KeyError, ValueError, TypeError):
            result = json_file.read(path)
            at = datetime.fromisoformat(result["trial"]["started_at"]).timestamp()
            found.append(Earlier(trial, f"{trial}{MARK}{attempt}", log_means(result), at))
    return found


def _nearest(trial: str, baselines: list[str], started: Mapping[str, float]) -> str:
    """Return the baseline that started nearest to a trial; the latest where that is not known.

    `passes.divided` pairs in the same way.
    """
    known = sorted((started[name], name) for name in baselines if name in started)
    if trial not in started or not known:
        return min(baselines, key=lambda name: MARK in name)
    return min(known, key=lambda one: abs(one[0] - started[trial]))[1]


def _close(pairs: Mapping[int, tuple[LogMeans, LogMeans]], design: Design) -> bool:
    """Return whether a cell's ratio is known as closely as its design asks.

    Args:
        pairs: Its trials, each with its baseline, by replicate.
        design: What is planned.
    """
    above, below = (
        Logs.of({r: (list(pair[side]), list(pair[side].values())) for r, pair in pairs.items()})
        for side in (0, 1)
    )
    logs = contrast((1.0, above), (-1.0, below))
    half = None if logs is None else half_width([logs])
    # Replicates that are all equal show no precision: a clock too coarse, or copies.
    if logs is None or half is None or equal(logs) or design.precision is None:
        return False
    low, high, n = np.exp([logs.mean() - half]), np.exp([logs.mean() + half]), np.array([len(logs)])
    return bool(close_enough(low, high, n, design.precision, design.min_replicates)[0])


def _key(trial: PlannedTrial, columns: Iterable[str]) -> _Key:
    return tuple(getattr(trial, column) for column in columns)
