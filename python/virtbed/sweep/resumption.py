"""What a sweep that goes on after a pause measures again, so that no pair spans the pause.

Ratios are paired within a replicate, so that what drifts over hours is common to both sides. If a
sweep stopped within a replicate and goes on the next day, its pairs would be a day apart. The old
result is kept, for the trials that were measured near it. Where the baseline is what is missing,
the trials from before the pause are measured again: nothing near them is left to pair with.
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
"""A result older than this, and than its whole replicate takes, is too old to pair with."""


def measured_again(
    trials: Sequence[Trial],
    missing: Collection[str],
    started_s: Callable[[Trial], float | None],
    usual_s: Mapping[str, float],
    now_s: float,
) -> list[Trial]:
    """Return what has a result that is too old to be paired with a trial that is missing.

    Baselines that others are missing of, and others whose baseline is missing.

    Args:
        trials: Every trial of the design.
        missing: Ids of those that are to be carried out.
        started_s: When a trial with a result started, in seconds since the epoch; None if that
            is unknown.
        usual_s: Mean seconds of a trial by platform, as far as known.
        now_s: The time now, in seconds since the epoch.
    """
    # By what a pair has in common, and whether the baseline is the side that is missing.
    waiting = {
        (_pair(trial), _is_baseline(trial))
        for trial in trials
        if trial.id in missing and not trial.emulated
    }
    whole_s: dict[int, float] = {}
    for trial in trials:
        before = whole_s.get(trial.replicate, 0.0)
        whole_s[trial.replicate] = before + usual_s.get(trial.instance.platform, 0.0)
    found = []
    for trial in trials:
        if trial.id in missing or trial.emulated:
            continue
        if (_pair(trial), not _is_baseline(trial)) not in waiting:
            continue
        started = started_s(trial)
        if started is not None and now_s - started > max(PAUSE_S, whole_s[trial.replicate]):
            found.append(trial)
    return found


def _is_baseline(trial: Trial) -> bool:
    """Return whether ratios are paired with a trial: plain bare metal, in the baseline's mode."""
    instance = trial.instance
    plain = all(trial.factors[f.name] == f.default for f in FACTORS if f.baseline == "default")
    bare = (instance.machine, instance.enclosure) == BARE
    return bare and plain and instance.mode == BASELINE_MODE


def _pair(trial: Trial) -> tuple[object, ...]:
    """Return what a trial and its baseline have in common."""
    matched = tuple(trial.factors[f.name] for f in FACTORS if f.baseline == "same")
    what = trial.instance.cores, trial.application, trial.scale, trial.scenario
    return (trial.replicate, *what, *matched)


def started_s(folder: Path) -> float | None:
    """Return when the trial of a folder started, in seconds since the epoch.

    None without a result that can be put aside: one that tells its start, and which attempt it was.
    """
    try:
        trial = json_file.read(folder / "result.json")["trial"]
        started = datetime.fromisoformat(trial["started_at"]).timestamp()
        return started if type(trial["attempt"]) is int and trial["attempt"] > 0 else None
    except (DocumentError, ValueError, KeyError, TypeError):
        return None


def keep_earlier(sweep: Path, trial_id: str) -> None:
    """Move a trial's result aside, into earlier/ATTEMPT/ID: the analysis reads it from there.

    It is there whole before it goes from its old place, so that no kill loses it.
    """
    folder = sweep / "trials" / trial_id
    result = json_file.read(folder / "result.json")
    aside = sweep / "earlier" / str(result["trial"]["attempt"]) / trial_id
    for path in sorted(folder.iterdir(), key=lambda path: path.name == "result.json"):
        if path.is_file() and not path.is_symlink() and path.name != "failure.json":
            text = path.read_text(encoding="utf-8", errors="replace")
            records.write_text(aside / path.name, text)
    (folder / "result.json").unlink()
