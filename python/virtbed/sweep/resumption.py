"""Selection of the trials that a sweep measures again after a pause, so that no pair spans it.

Ratios are paired within a replicate, so that drift over hours affects both sides alike. If a sweep
stopped within a replicate and continues the next day, the two sides of its ratios would be a day
apart. Therefore the baseline is measured again. Its old result is kept for the trials that were
measured near it. If the baseline itself is missing, the trials from before the pause are measured
again, because they have no baseline near them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from virtbed import records
from virtbed.trial import Trial
from virtbed_contract import json_file
from virtbed_contract.codec import DocumentError
from virtbed_contract.documents import BARE
from virtbed_contract.factors import BASELINE_MODE, FACTORS

PAUSE_S = 3600.0
"""A result older than this, in seconds, is too old to pair, unless its replicate takes longer."""


def measured_again(
    trials: Sequence[Trial],
    missing: Collection[str],
    started_s: Callable[[Trial], float | None],
    usual_s: Mapping[str, float],
    now_s: float,
) -> list[Trial]:
    """Return the trials whose result is too old to be paired with a missing trial.

    These are baselines of missing trials, and trials whose baseline is missing.

    Args:
        trials: Every trial of the design.
        missing: Ids of the trials without a result.
        started_s: Returns when a trial with a result started, in seconds since the epoch; None if
            that is unknown.
        usual_s: Mean seconds per trial, by platform, as far as known.
        now_s: The time now, in seconds since the epoch.
    """
    # The key of each pair with a missing side, and whether that side is the baseline.
    incomplete = {
        (_pair(trial), _is_baseline(trial))
        for trial in trials
        if trial.id in missing and not trial.emulated
    }
    replicate_s: dict[int, float] = {}
    for trial in trials:
        so_far = replicate_s.get(trial.replicate, 0.0)
        replicate_s[trial.replicate] = so_far + usual_s.get(trial.instance.platform, 0.0)
    too_old = []
    for trial in trials:
        if trial.id in missing or trial.emulated:
            continue
        if (_pair(trial), not _is_baseline(trial)) not in incomplete:
            continue
        started = started_s(trial)
        if started is not None and now_s - started > max(PAUSE_S, replicate_s[trial.replicate]):
            too_old.append(trial)
    return too_old


def _is_baseline(trial: Trial) -> bool:
    """Return whether a trial is a baseline: bare metal, pinned, with the factors' defaults.

    A factor whose `baseline` is "same" may have any value, which its pairs share; see `_pair`.
    """
    instance = trial.instance
    plain = all(trial.factors[f.name] == f.default for f in FACTORS if f.baseline == "default")
    bare = (instance.machine, instance.enclosure) == BARE
    return bare and plain and instance.mode == BASELINE_MODE


def _pair(trial: Trial) -> tuple[object, ...]:
    """Return the key of a pair: the values that a trial and its baseline share."""
    matched = tuple(trial.factors[f.name] for f in FACTORS if f.baseline == "same")
    work = trial.instance.cores, trial.application, trial.scale, trial.scenario
    return (trial.replicate, *work, *matched)


def started_s(folder: Path) -> float | None:
    """Return when the trial of a folder started, in seconds since the epoch.

    None without a readable result that has a start time and an attempt's number, which
    `keep_earlier` needs.
    """
    try:
        trial = json_file.read(folder / "result.json")["trial"]
        started = datetime.fromisoformat(trial["started_at"]).timestamp()
        return started if type(trial["attempt"]) is int and trial["attempt"] > 0 else None
    except (DocumentError, ValueError, KeyError, TypeError):
        return None


def keep_earlier(sweep: Path, trial_id: str) -> None:
    """Move a trial's result to earlier/ATTEMPT/ID, where the analysis reads it.

    All files are copied before the old result is removed, so that a kill does not lose it.
    """
    folder = sweep / "trials" / trial_id
    result = json_file.read(folder / "result.json")
    aside = sweep / "earlier" / str(result["trial"]["attempt"]) / trial_id
    for path in sorted(folder.iterdir(), key=lambda path: path.name == "result.json"):
        if path.is_file() and not path.is_symlink() and path.name != "failure.json":
            text = path.read_text(encoding="utf-8", errors="replace")
            records.write_text(aside / path.name, text)
    (folder / "result.json").unlink()
