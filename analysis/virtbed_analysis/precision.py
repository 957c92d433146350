"""Sequential stopping: which trials of a design are no longer needed.

A cell stops at the first replicate, from a minimum on, at which its interval is as narrow as the
plan requires (sequential rule of Chow and Robbins, "On the Asymptotic Theory of Fixed-Width
Sequential Confidence Intervals", Annals of Mathematical Statistics 36, 1965,
doi:10.1214/aoms/1177700156). Repeated checks favour moments at which the spread happens to look
small, which costs coverage; with a minimum of eight replicates the loss is below two percentage
points (simulated in the tests).

The rule needs `log_means` of each trial: one number per input, or a single one if the scenario is
judged by latency or throughput. The ledger keeps them, so results are not read again. One number
per trial would not be enough: a ratio is paired by input, the common inputs of two trials are known
only when both have run, and LoadGen's quick rules do not guarantee every trial the same inputs.
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
"""Logarithms of a trial's judged time in ns, by input: of each input's mean e2e time, or, under the
empty name, of the one value of a scenario that is judged by whole trials."""
_Key = tuple[Any, ...]


def close_enough(
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    replicates: NDArray[np.int64],
    precision: float,
    min_replicates: int,
) -> NDArray[np.bool_]:
    """Return, elementwise, whether intervals of ratios are as narrow as required.

    The half-width on the logarithmic scale, log(high / low) / 2, must be at most log(1 +
    precision); with 0.02 the ends are within 2% of the estimate.

    Args:
        low: Lower ends; NaN counts as not narrow.
        high: Upper ends, same shape.
        replicates: Numbers of pairs, same shape.
        precision: The required half-width, as a share.
        min_replicates: The least number of pairs.
    """
    narrow = np.log(high / low) / 2 <= np.log1p(precision)
    return np.asarray(narrow & (replicates >= min_replicates))


def log_means(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the logarithms of a result's judged time in ns, by input (see `LogMeans`).

    Args:
        result: A result.json, of which only `settings.scenario` and `samples` are needed (and
            `loadgen` in scenarios judged by whole trials).

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
    """Return the trials without a result whose cells already have the required precision.

    A bare-metal baseline is needed as long as one of the cells that are paired with it is.

    Args:
        design: The design of the sweep, with `precision` and `min_replicates`.
        measured: `log_means` of each trial that has a result, by the trial's id; for a baseline
            that was measured again also those of its earlier attempts, by "ID@ATTEMPT".
        started: Starts of trials in seconds since the epoch, by the same ids. Needed only if a
            baseline was measured again: each trial is then paired with the nearest one.

    Returns:
        The ids of the trials; empty if the design requires no precision.

    Example:
        >>> import json
        >>> from virtbed_contract.codec import decode
        >>> planned = json.loads(Path("results/quick/design.json").read_text())
        >>> unneeded_trials(decode(Design, planned, "design.json"), {})  # it has no precision
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
    """An earlier result of a baseline that was measured again.

    Attributes:
        trial: The trial's id.
        name: The key of this attempt in `unneeded_trials`, "ID@ATTEMPT".
        log_means: See `log_means`.
        started_s: The start in seconds since the epoch.
    """

    trial: str
    name: str
    log_means: LogMeans
    started_s: float


def earlier_attempts(folder: Path) -> list[Earlier]:
    """Return the earlier results of baselines that were measured again, in a results folder.

    Unreadable files are skipped here; the report lists them.

    Example:
        >>> earlier_attempts(Path("results/quick"))
        []
    """
    earlier = []
    for path in sorted(folder.glob(f"{EARLIER}/*/*/result.json")):
        trial, attempt = path.parent.name, path.parent.parent.name
        with suppress(DocumentError, KeyError, ValueError, TypeError):
            result = json_file.read(path)
            at = datetime.fromisoformat(result["trial"]["started_at"]).timestamp()
            earlier.append(Earlier(trial, f"{trial}{MARK}{attempt}", log_means(result), at))
    return earlier


def _nearest(trial: str, baselines: list[str], started: Mapping[str, float]) -> str:
    """Return the baseline that started nearest to a trial; the latest one if starts are unknown.

    `passes.divided` pairs in the same way.
    """
    known = sorted((started[name], name) for name in baselines if name in started)
    if trial not in started or not known:
        return min(baselines, key=lambda name: MARK in name)
    return min(known, key=lambda one: abs(one[0] - started[trial]))[1]


def _close(pairs: Mapping[int, tuple[LogMeans, LogMeans]], design: Design) -> bool:
    """Return whether a cell's ratio has the precision that its design requires.

    Args:
        pairs: The log means of a trial and of its baseline, by replicate.
        design: The design, with `precision` and `min_replicates`.
    """
    above, below = (
        Logs.of({r: (list(pair[side]), list(pair[side].values())) for r, pair in pairs.items()})
        for side in (0, 1)
    )
    logs = contrast((1.0, above), (-1.0, below))
    half = None if logs is None else half_width([logs])
    # Equal replicates show no precision: the clock is too coarse, or they are copies.
    if logs is None or half is None or equal(logs) or design.precision is None:
        return False
    low, high, n = np.exp([logs.mean() - half]), np.exp([logs.mean() + half]), np.array([len(logs)])
    return bool(close_enough(low, high, n, design.precision, design.min_replicates)[0])


def _key(trial: PlannedTrial, columns: Iterable[str]) -> _Key:
    return tuple(getattr(trial, column) for column in columns)
