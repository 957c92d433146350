"""What one call of a sweep is asked for, and the steps that one host and several have in common."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from virtbed.bench import Bench
from virtbed.ledger import NAME, Ledger, opened
from virtbed.plan import Plan
from virtbed.platforms import Platforms
from virtbed.progress import HostProgress, Progress
from virtbed.sweep.admission import Admitted
from virtbed.sweep.blocks import PER_PLAYBOOK, Blocks
from virtbed.sweep.interruption import Interruption
from virtbed.sweep.precision import Precision
from virtbed.sweep.recording import Recorder
from virtbed.sweep.resumption import measured_again, started_s
from virtbed.sweep.standing import Standing
from virtbed.trial import Trial
from virtbed_contract.sweep import Design

MOST_ATTEMPTS = 5
"""A trial that failed, and began so often, is not mended by being repeated."""
_Ledger = TypeVar("_Ledger", bound=Ledger)


@dataclass
class Call:
    """What one call of a sweep is asked for, and what became of it; see `Sweep`.

    Attributes:
        folder: The sweep's folder.
        failed: The ids of the trials that failed.
    """

    plan: Plan
    folder: Path
    platforms: Platforms
    progress: Progress
    per_playbook: int = PER_PLAYBOOK
    keep: bool = False
    retry_failed: bool = False
    interruption: Interruption = field(default_factory=Interruption)
    failed: list[str] = field(default_factory=list)

    def ledger(self, kind: type[_Ledger]) -> _Ledger:
        """Open the sweep's ledger; one that is damaged is moved aside, and rebuilt by `missing`."""
        ledger, wrong = opened(self.folder / NAME, kind)
        if wrong:
            self.progress.say(f"the ledger is damaged: {wrong}; it is rebuilt from the results")
        return ledger

    def document(self, admitted: Admitted) -> Design:
        """Return what design.json holds of a host's design, but for the commits."""
        return admitted.design.document(self.plan, admitted.image, self.platforms, ())

    def missing(self, standing: Standing, trials: Sequence[Trial], ledger: Ledger,
                cut_off: Sequence[str]) -> list[Trial]:  # fmt: skip
        """Return the trials that are to be carried out, once the ledger is as the files are.

        Args:
            standing: What stands in the folder.
            trials: Every trial.
            ledger: The sweep's ledger.
            cut_off: Those that were being carried out when an earlier call was killed.
        """
        missing = standing.settle(tuple(trials), ledger, cut_off)
        given_up: Mapping[str, str] = {}
        if not self.retry_failed:
            given_up = ledger.given_up(MOST_ATTEMPTS)
        for trial in missing:
            if trial.id in given_up:
                self.failed.append(trial.id)
                self.progress.say(
                    f"{trial.id} is not repeated: it failed, and began {MOST_ATTEMPTS} times or "
                    f"more, the last time: {given_up[trial.id]}; --retry-failed repeats it"
                )
        return [trial for trial in missing if trial.id not in given_up]

    def with_baselines(self, trials: Sequence[Trial], missing: Sequence[Trial], ledger: Ledger,
                       recorder: Recorder, rule: Precision | None) -> list[Trial]:  # fmt: skip
        """Return what is missing, and what is too old to be paired with it, in order.

        Args:
            trials: Every trial, or every one of some replicates.
            missing: Those of them that are to be carried out.
            ledger: The sweep's ledger.
            recorder: Gets to know which of them have a result, and are measured again.
            rule: The stopping rule, if the plan has one.
        """

        def too_old(needed: set[str]) -> list[Trial]:
            return measured_again(
                trials,
                needed,
                lambda trial: started_s(self.folder / "trials" / trial.id),
                ledger.seconds(),
                time.time(),
            )

        needed = {trial.id for trial in missing}
        again = too_old(needed)
        if again and rule:  # what no cell needs, no baseline is needed for
            again = too_old(needed - rule.unneeded())
        recorder.again = frozenset(trial.id for trial in again)
        for trial in again:
            self.progress.say(
                f"{trial.id} is measured again: it and others of its replicate would be paired "
                "across a pause"
            )
        return sorted([*missing, *again], key=lambda trial: trial.position)

    def blocks(self, bench: Bench, admitted: Admitted, ledger: Ledger, recorder: Recorder,
               rule: Precision | None, progress: Progress | HostProgress) -> Blocks:  # fmt: skip
        """Return what carries out trials on a host that was admitted."""
        return Blocks(
            self.plan, self.folder, bench, admitted, ledger, recorder, progress,
            self.interruption, rule, self.per_playbook, self.failed, self._stores(),
            self.keep, {name: e.login for name, e in self.platforms.enclosures.items()},
        )  # fmt: skip

    def _stores(self) -> tuple[str, ...]:
        names = {role for name in self.plan.platforms for role in self.platforms.host_roles(name)}
        stores = {self.platforms.roles[name].store for name in names}
        return tuple(sorted(filter(None, stores)))
