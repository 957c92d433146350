"""Which trials a plan's precision still needs, from the running sums in the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from virtbed.ledger import Ledger
from virtbed.trial import Trial
from virtbed_contract import json_file
from virtbed_contract.codec import DocumentError
from virtbed_contract.sweep import Design


class Precision:
    """The stopping rule of a sweep whose plan has a precision; it needs virtbed-analysis.

    Args:
        folder: The sweep's folder.
        ledger: Its journal.
        laid: Its design, as design.json has it.
    """

    def __init__(self, folder: Path, ledger: Ledger, laid: Design) -> None:
        self._folder = folder
        self._ledger = ledger
        self._laid = laid

    def see(self, trial: Trial, result: Mapping[str, Any]) -> None:
        """Keep what the rule needs of a result."""
        self._see(trial.id, result)

    def unneeded(self) -> frozenset[str]:
        """Return the ids of the trials without result whose cells are known closely enough."""
        from virtbed_analysis import unneeded_trials

        measured = self._ledger.measured()
        for trial in self._ledger.done() - measured.keys():
            # Done, and killed before its sums were kept.
            path = self._folder / "trials" / trial / "result.json"
            with suppress(DocumentError):  # which the report names
                self._see(trial, json_file.read(path))
        return unneeded_trials(self._laid, self._ledger.measured())

    def _see(self, trial: str, result: Mapping[str, Any]) -> None:
        from virtbed_analysis import log_means

        self._ledger.measure(trial, log_means(result))
