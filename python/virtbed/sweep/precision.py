"""The stopping rule of plans with a `precision`: which trials are still needed.

It uses each trial's log means, which the ledger keeps, and the statistics of virtbed-analysis.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from virtbed.ledger import Ledger
from virtbed.sweep.resumption import started_s
from virtbed.trial import Trial
from virtbed_contract import json_file
from virtbed_contract.codec import DocumentError
from virtbed_contract.sweep import Design


class Precision:
    """The stopping rule of a sweep whose plan has a precision; it needs virtbed-analysis.

    Args:
        folder: The sweep's folder.
        ledger: Its ledger, which keeps the log means of each measured trial.
        design: Its design, the content of design.json.
    """

    def __init__(self, folder: Path, ledger: Ledger, design: Design) -> None:
        self._folder = folder
        self._ledger = ledger
        self._design = design
        self._replicate = {trial.id: trial.replicate for trial in design.trials}
        self._starts: dict[str, tuple[int, float | None]] = {}

    def see(self, trial: Trial, result: Mapping[str, Any]) -> None:
        """Add a good trial's result to the ledger's log means."""
        self._see(trial.id, result)

    def unneeded(self) -> frozenset[str]:
        """Return the ids of the trials without a result whose cells are precise enough already."""
        from virtbed_analysis import earlier_attempts, unneeded_trials

        for trial in self._ledger.done() - self._ledger.measured().keys():
            # An earlier call was killed after marking it done, before its log means were stored.
            path = self._folder / "trials" / trial / "result.json"
            with suppress(DocumentError):  # the report names unreadable results
                self._see(trial, json_file.read(path))
        measured: dict[str, Mapping[str, float]] = {**self._ledger.measured()}
        started = dict[str, float]()
        earlier = earlier_attempts(self._folder)
        for attempt in earlier:
            measured[attempt.name] = attempt.log_means
            started[attempt.name] = attempt.started_s
        if earlier:  # each trial of their replicates is paired with the baseline nearest in time
            replicates = {self._replicate.get(attempt.trial) for attempt in earlier}
            for trial in measured:
                if self._replicate.get(trial, 0) in replicates and (at := self._started_s(trial)):
                    started[trial] = at
        return unneeded_trials(self._design, measured, started)

    def _started_s(self, trial: str) -> float | None:
        """Return when a trial's result started, in seconds since the epoch; cached by mtime."""
        folder = self._folder / "trials" / trial
        try:
            modified = (folder / "result.json").stat().st_mtime_ns
        except OSError:
            return None
        if self._starts.get(trial, (0, None))[0] != modified:
            self._starts[trial] = modified, started_s(folder)
        return self._starts[trial][1]

    def _see(self, trial: str, result: Mapping[str, Any]) -> None:
        from virtbed_analysis import log_means

        self._ledger.measure(trial, log_means(result))
