"""How a trial's outcome is recorded: verified, checked against its schema, written whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from virtbed import records
from virtbed.outcome import evidence_of, result_of
from virtbed.plan import Plan
from virtbed.platforms import Platforms
from virtbed.records import RecordError
from virtbed.sweep.admission import Admitted
from virtbed.sweep.resumption import keep_earlier
from virtbed.trial import Trial
from virtbed_contract import json_file
from virtbed_contract.codec import DocumentError, encode
from virtbed_contract.events import FetchedFile, TrialOutcome
from virtbed_contract.identifiers import FAILURE
from virtbed_contract.sweep import Design, TuningRow

DOCTOR = "doctor.json"
"""The report of a sweep's one host."""


class Recorder:
    """Writes what a sweep leaves in its folder.

    Each method raises OSError where the folder cannot be written, on a full disk, say.

    Args:
        folder: The sweep's folder.
        plan: Its plan.
        admitted: The host, and the plan placed on it.
        seen: Called with each good trial and its result, once that is written.
        report: The file of the host's report.

    Attributes:
        seen: As it was given, or set later.
        again: Ids of trials that have a result and are measured again.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        admitted: Admitted,
        seen: Callable[[Trial, Mapping[str, Any]], None] = lambda *_: None,
        report: str = DOCTOR,
    ) -> None:
        self._folder = folder
        self._plan = plan
        self._admitted = admitted
        self.seen = seen
        self._report = folder / report
        self.again: frozenset[str] = frozenset()

    def keeps(self, trial: Trial) -> bool:
        """Return whether a trial has a result, of an earlier attempt, that a failure leaves."""
        return trial.id in self.again and (self._of(trial) / "result.json").exists()

    def start(self, platforms: Platforms, commits: Sequence[str]) -> Design:
        """Write plan.yml, doctor.json and design.json.

        Args:
            platforms: The platforms that there are.
            commits: Commits of virtbed that carry this call out; those before are kept.

        Returns:
            What design.json holds.
        """
        self.examined()
        document = self._admitted.design.document(self._plan, self._admitted.image, platforms, ())
        return write_design(self._folder, self._plan, document, commits)

    def examined(self) -> None:
        """Write the host's report."""
        records.write_json(self._report, encode(self._admitted.report))

    def tuned(self, settings: tuple[TuningRow, ...]) -> None:
        """Write the settings that the host was given into its report; none leave it as it is."""
        if settings:
            report = replace(self._admitted.report, tuned=settings)
            records.write_json(self._report, encode(report))

    def trial(self, trial: Trial, attempt: int, outcome: TrialOutcome) -> str:
        """Write a trial's result and evidence, or its failure; remove what was fetched.

        Returns:
            Why the trial failed, or nothing.
        """
        try:
            return self._recorded(trial, attempt, outcome)
        finally:
            if outcome.result is not None:
                Path(outcome.result.path).unlink(missing_ok=True)

    def _recorded(self, trial: Trial, attempt: int, outcome: TrialOutcome) -> str:
        if outcome.failure is not None:
            error = outcome.failure.message or f"task failed: {outcome.failure.task}"
            self.failure(trial, attempt, "trial", error, evidence_of(trial, outcome, error))
            return error
        try:
            document = fetched(outcome.result)
            logs = document.pop("files", {})
            host = self._admitted.report.host
            result = result_of(trial, document, outcome, self._plan, host, attempt)
            if self.keeps(trial):
                records.check_result(result)  # before the earlier one leaves its place
                keep_earlier(self._folder, trial.id)
            records.write_trial(self._of(trial), result, evidence_of(trial, outcome), logs)
        except RecordError as error:
            evidence = evidence_of(trial, outcome, str(error))
            self.failure(trial, attempt, "record", str(error), evidence)
            return str(error)
        self.seen(trial, result)
        return ""

    def failure(
        self,
        trial: Trial,
        attempt: int,
        stage: str,
        message: str,
        evidence: Mapping[str, Any] | None = None,
    ) -> None:
        """Write why a trial has no result."""
        failure = {
            "schema": FAILURE,
            "id": trial.id,
            "stage": stage,
            "message": message,
            "attempt": attempt,
            "at": records.now(),
        }
        kept = self.keeps(trial)
        records.write_failure(self._of(trial), failure, evidence, keep_result=kept)

    def _of(self, trial: Trial) -> Path:
        return self._folder / "trials" / trial.id


def write_design(folder: Path, plan: Plan, document: Design, commits: Sequence[str]) -> Design:
    """Write plan.yml and design.json.

    Args:
        folder: The sweep's folder.
        plan: Its plan.
        document: What design.json is to hold, but for its commits.
        commits: Commits of virtbed that carry this call out; those before are kept.

    Returns:
        What design.json holds.
    """
    records.write_text(
        folder / "plan.yml", yaml.safe_dump(plan.model_dump(mode="json"), sort_keys=False)
    )
    every = tuple(dict.fromkeys([*_commits(folder), *commits]))
    document = replace(document, commits=every)
    records.write_json(folder / "design.json", encode(document))
    return document


def _commits(folder: Path) -> list[str]:
    """Return the commits of virtbed that carried a sweep out so far."""
    try:
        before = json_file.read(folder / "design.json").get("commits")
    except DocumentError:
        return []
    return before if isinstance(before, list) else []


def fetched(file: FetchedFile | None) -> dict[str, Any]:
    """Return the harness's document in a file that a playbook fetched.

    Raises:
        RecordError: there is none, it is not the file that was fetched, or not JSON.
    """
    if file is None:
        raise RecordError("no result was fetched of a trial that did not fail")
    try:
        content = Path(file.path).read_bytes()
    except FileNotFoundError:
        raise RecordError(f"{file.path}: not found, the fetched result needed") from None
    found = (len(content), hashlib.sha256(content).hexdigest())
    if found != (file.size, file.sha256):
        raise RecordError(
            f"{file.path}: {found[0]} bytes with SHA-256 {found[1][:12]} found, {file.size} with "
            f"{file.sha256[:12]} needed: it was changed on its way"
        )
    try:
        return json_file.parse_bytes(content, "it")
    except DocumentError as error:
        raise RecordError(f"{file.path}: {error}") from error
