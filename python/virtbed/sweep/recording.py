"""Recording of a sweep's files: results, evidence, failures, host report, plan and design.

A trial's result is verified (size and digest of the fetched file), checked against its schema, and
judged as the analysis judges it. It is then written atomically, so that it exists completely or not
at all.
"""

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
from virtbed_contract.codec import DocumentError, decode, encode
from virtbed_contract.events import FetchedFile, TrialOutcome
from virtbed_contract.identifiers import FAILURE
from virtbed_contract.objections import Planned, labels_of
from virtbed_contract.sweep import Design, Evidence, TuningRow

DOCTOR = "doctor.json"
"""The file of the host's report in the folder of a sweep on one host."""


class Recorder:
    """Writes the files of a sweep's folder, for one host.

    Each method raises OSError if the folder cannot be written, for example because its disk is
    full.

    Args:
        folder: The sweep's folder.
        plan: Its plan.
        admitted: The admission of the plan to the host.
        seen: Callback with each good trial and its result, once that is written.
        report: The file of the host's report, relative to the folder.

    Attributes:
        seen: The callback; it may be set later.
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
        """Return whether a trial has an earlier result that stays if this attempt fails."""
        return trial.id in self.again and (self._of(trial) / "result.json").exists()

    def start(self, platforms: Platforms, commits: Sequence[str]) -> Design:
        """Write plan.yml, doctor.json and design.json.

        Args:
            platforms: The known platforms.
            commits: Commits of virtbed that run trials in this call; earlier ones are kept.

        Returns:
            The content of design.json.
        """
        self.examined()
        document = self._admitted.design.document(self._plan, self._admitted.image, platforms, ())
        return write_design(self._folder, self._plan, document, commits)

    def examined(self) -> None:
        """Write the host's report."""
        records.write_json(self._report, encode(self._admitted.report))

    def tuned(self, settings: tuple[TuningRow, ...]) -> None:
        """Add the settings that the sweep made on the host to its report, if there are any."""
        if settings:
            report = replace(self._admitted.report, tuned=settings)
            records.write_json(self._report, encode(report))

    def trial(self, trial: Trial, attempt: int, outcome: TrialOutcome) -> str:
        """Write a trial's result and evidence, or its failure; remove the fetched file.

        Args:
            trial: The trial.
            attempt: The number of this attempt, from 1.
            outcome: What the playbook reported.

        Returns:
            Why the trial failed; empty for a good trial.
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
            proof = evidence_of(trial, outcome)
            self._judge(trial, result, proof)
            if self.keeps(trial):
                keep_earlier(self._folder, trial.id)
            records.write_trial(self._of(trial), result, proof, logs)
        except RecordError as error:
            evidence = evidence_of(trial, outcome, str(error))
            self.failure(trial, attempt, "record", str(error), evidence)
            return str(error)
        self.seen(trial, result)
        return ""

    def _judge(self, trial: Trial, result: Mapping[str, Any], proof: Mapping[str, Any]) -> None:
        """Raise RecordError unless the report will accept a result."""
        plan = self._plan
        labels = labels_of(trial.planned(), plan.name, plan.seed)
        records.check_result(result)
        try:
            evidence = decode(Evidence, proof, "evidence.json")
        except DocumentError as error:
            raise RecordError(str(error)) from error
        records.check_trust(result, evidence, Planned(plan.digest(), {trial.id: labels}))

    def failure(
        self,
        trial: Trial,
        attempt: int,
        stage: str,
        message: str,
        evidence: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a trial's failure.json.

        Args:
            trial: The trial.
            attempt: The number of the attempt that failed.
            stage: What failed: ``provision``, ``trial`` or ``record``.
            message: Why it failed.
            evidence: The readings that exist, as for evidence.json.
        """
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
        document: The content of design.json, without its commits.
        commits: Commits of virtbed that run trials in this call; earlier ones are kept.

    Returns:
        The content of design.json.
    """
    records.write_text(
        folder / "plan.yml", yaml.safe_dump(plan.model_dump(mode="json"), sort_keys=False)
    )
    every = tuple(dict.fromkeys([*_commits(folder), *commits]))
    document = replace(document, commits=every)
    records.write_json(folder / "design.json", encode(document))
    return document


def _commits(folder: Path) -> list[str]:
    """Return the commits of virtbed that ran trials in earlier calls."""
    try:
        commits = json_file.read(folder / "design.json").get("commits")
    except DocumentError:
        return []
    return commits if isinstance(commits, list) else []


def fetched(file: FetchedFile | None) -> dict[str, Any]:
    """Return the harness's document from a file that a playbook fetched.

    Raises:
        RecordError: There is no file, its size or digest is not that of the fetched one, or it is
            not JSON.
    """
    if file is None:
        raise RecordError("the trial did not fail, and no result was fetched, one needed")
    try:
        content = Path(file.path).read_bytes()
    except FileNotFoundError:
        raise RecordError(f"{file.path}: not found, the fetched result needed") from None
    found = (len(content), hashlib.sha256(content).hexdigest())
    if found != (file.size, file.sha256):
        raise RecordError(
            f"{file.path}: {found[0]} bytes with SHA-256 {found[1][:12]} found, {file.size} with "
            f"{file.sha256[:12]} needed: it was changed during the transfer"
        )
    try:
        return json_file.parse_bytes(content, "it")
    except DocumentError as error:
        raise RecordError(f"{file.path}: {error}") from error
