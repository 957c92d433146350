"""One call of `virtbed sweep`: its options, and the steps shared by one host and a fleet."""

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
"""After so many attempts a failed trial is no longer repeated, unless with --retry-failed."""
_Ledger = TypeVar("_Ledger", bound=Ledger)


@dataclass
class Call:
    """The options of one call, and the trials that failed in it; see `Sweep` for the options.

    Attributes:
        folder: The sweep's folder.
        interruption: The user's request to end.
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
        """Open the sweep's ledger; a damaged one is moved aside, and `missing` rebuilds it."""
        ledger, damage = opened(self.folder / NAME, kind)
        if damage:
            self.progress.say(f"the ledger is damaged: {damage}; it is rebuilt from the results")
        return ledger

    def document(self, admitted: Admitted) -> Design:
        """Return the content of design.json for one host's design, without the commits."""
        return admitted.design.document(self.plan, admitted.image, self.platforms, ())

    def missing(self, standing: Standing, trials: Sequence[Trial], ledger: Ledger,
                cut_off: Sequence[str]) -> list[Trial]:  # fmt: skip
        """Bring the ledger up to date with the files; return the trials to carry out.

        Trials that failed MOST_ATTEMPTS times are added to `failed` instead.

        Args:
            standing: The state of the folder.
            trials: Every trial.
            ledger: The sweep's ledger.
            cut_off: Ids of the trials that were running when an earlier call was killed.
        """
        missing = standing.settle(tuple(trials), ledger, cut_off)
        given_up: Mapping[str, str] = {}
        if not self.retry_failed:
            given_up = ledger.given_up(MOST_ATTEMPTS)
        for trial in missing:
            if trial.id in given_up:
                self.failed.append(trial.id)
                self.progress.say(
                    f"{trial.id} is not repeated: it failed, and was started {MOST_ATTEMPTS} times "
                    f"or more; the last failure: {given_up[trial.id]}; --retry-failed repeats it"
                )
        return [trial for trial in missing if trial.id not in given_up]

    def with_baselines(self, trials: Sequence[Trial], missing: Sequence[Trial], ledger: Ledger,
                       recorder: Recorder, rule: Precision | None) -> list[Trial]:  # fmt: skip
        """Return the missing trials, and those to measure again for pairing with them, in order.

        Args:
            trials: Every trial, or every trial of some replicates.
            missing: Those of them without a result.
            ledger: The sweep's ledger.
            recorder: Its `again` is set to the ids of the trials that are measured again.
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
        if again and rule:  # a missing trial that the rule will skip needs no new baseline
            again = too_old(needed - rule.unneeded())
        recorder.again = frozenset(trial.id for trial in again)
        for trial in again:
            self.progress.say(
                f"{trial.id} is measured again: its result is from before a pause, too old to pair "
                "with the trials of its replicate that are still missing"
            )
        return sorted([*missing, *again], key=lambda trial: trial.position)

    def blocks(self, bench: Bench, admitted: Admitted, ledger: Ledger, recorder: Recorder,
               rule: Precision | None, progress: Progress | HostProgress) -> Blocks:  # fmt: skip
        """Return the executor of trials on an admitted host."""
        return Blocks(
            self.plan, self.folder, bench, admitted, ledger, recorder, progress,
            self.interruption, rule, self.per_playbook, self.failed, self._stores(),
            self.keep, {name: e.login for name, e in self.platforms.enclosures.items()},
        )  # fmt: skip

    def _stores(self) -> tuple[str, ...]:
        """Return the folders of the image stores of the plan's engines."""
        names = {role for name in self.plan.platforms for role in self.platforms.host_roles(name)}
        stores = {self.platforms.roles[name].store for name in names}
        return tuple(sorted(filter(None, stores)))
