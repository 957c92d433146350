"""The course of a sweep: admission, then what is missing of its blocks."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from virtbed.bench import Bench, alone
from virtbed.checkout import REPOSITORY, commit
from virtbed.lease import Holder, locked, until
from virtbed.ledger import NAME, Ledger, opened
from virtbed.plan import Plan
from virtbed.platforms import Platforms, load_platforms
from virtbed.progress import Progress
from virtbed.shards import Shard, whole_elsewhere
from virtbed.sweep.admission import Admitted, admit, identity
from virtbed.sweep.blocks import PER_PLAYBOOK, Blocks, own_disks
from virtbed.sweep.interruption import Interruption, SweepError
from virtbed.sweep.precision import Precision
from virtbed.sweep.recording import Recorder
from virtbed.sweep.resumption import measured_again, started_s
from virtbed.sweep.standing import Standing, recognized
from virtbed.trial import Trial
from virtbed_contract.codec import DocumentError
from virtbed_contract.sweep import Design

MOST_ATTEMPTS = 5
"""A trial that failed, and began so often, is not mended by being repeated."""


class Sweep:
    """One plan carried out on one host, into results/<plan name>.

    Args:
        plan: The plan.
        progress: Shows what the sweep does.
        bench: The host.
        results: The folder of all results.
        per_playbook: How many blocks one call of ansible-playbook carries.
        platforms: The platforms that there are; if not given, those of platforms.yml.
        retry_failed: Whether trials are repeated that failed MOST_ATTEMPTS times.
        keep: Whether a failed trial's instance is left for inspection, and the sweep then ends.
        shard: The share of the replicates that is carried out, into a folder of its own that is
            named once the host is known; all if not given.
    """

    def __init__(
        self,
        plan: Plan,
        progress: Progress,
        bench: Bench,
        results: Path = REPOSITORY / "results",
        per_playbook: int = PER_PLAYBOOK,
        platforms: Platforms | None = None,
        keep: bool = False,
        retry_failed: bool = False,
        shard: Shard | None = None,
    ) -> None:
        self.plan = plan
        self.folder = results / (shard.name(plan.name) if shard else plan.name)
        self._shard = shard
        self.failed: list[str] = []
        self._progress = progress
        self._bench = bench
        self._per_playbook = per_playbook
        self._platforms = platforms or load_platforms()
        self._keep = keep
        self._retry_failed = retry_failed
        self._interruption = Interruption()
        self._blocks: Blocks | None = None

    @property
    def began(self) -> bool:
        """Whether an instance was made: what ends it then is no refusal."""
        return self._blocks is not None and self._blocks.began

    def run(self) -> None:
        """Do what is missing of the sweep. Trials that fail are in `failed`.

        Raises:
            SweepError, BenchError, PlacementError, LedgerError, LeaseError: it cannot start, and
                nothing was made; or it cannot go on, and what was standing is released unless said
                otherwise.
            Interrupted: the user ended it; what was standing is released.
            Kept: a trial failed, and its instance is left as was asked.
        """
        self._bench.require_root("to place instances")
        with (
            self._interruption.by_signals(),
            alone(self._interruption.check),
            self._bench.claimed(f"virtbed sweep {self.plan.name}"),
        ):
            self._check_room()
            self._progress.say("examining the host")
            admitted = admit(self.plan, self._bench, self._platforms, self._interruption)
            if admitted.restored:
                self._progress.say("put back what a sweep that was cut off had changed of the host")
            if self._shard:
                admitted = self._share_of(self._shard, admitted)
                if not admitted.design.trials:
                    return
            try:
                self._carry_out(admitted)
            except OSError as error:
                raise SweepError(
                    f"results cannot be written: {error}; nothing is left standing, and the next "
                    "call goes on"
                ) from error
            except DocumentError as error:
                raise SweepError(
                    f"a playbook reported what its document does not allow: {error}; nothing is "
                    "left standing"
                ) from error

    def _share_of(self, shard: Shard, admitted: Admitted) -> Admitted:
        """Return a shard of the plan, and name the folder that it has on this host."""
        self.folder = self.folder.with_name(shard.name(self.plan.name, admitted.report.host))
        if self.plan.precision is not None:
            self._progress.say(
                f"precision {self.plan.precision:.3g} is not applied: whether a cell is known that "
                "closely takes the replicates of all shards, so each has all of its replicates"
            )
        share = admitted.design.of(shard)
        if not share.trials:
            self._progress.say(f"nothing to do: no trial here is of shard {shard}")
        return replace(admitted, design=share)

    def _stores(self) -> tuple[str, ...]:
        names = {role for name in self.plan.platforms for role in self._platforms.host_roles(name)}
        stores = {self._platforms.roles[name].store for name in names}
        return tuple(sorted(filter(None, stores)))

    def _check_room(self) -> None:
        try:
            disks = own_disks(self.folder)
        except OSError as error:
            raise SweepError(
                f"{error}: file systems that this user can look at are needed for {self.folder} "
                "and temporary files (TMPDIR); nothing was started"
            ) from error
        for disk in disks:
            if disk.lack:
                raise SweepError(f"{disk.lack}; nothing was started")

    def _carry_out(self, admitted: Admitted) -> None:
        design = admitted.design
        self.folder.mkdir(parents=True, exist_ok=True)
        self._bench.logs.move_to(self.folder / "ansible")
        with locked(self.folder), self._ledger() as ledger, ledger.left():
            cut_off = self._begin(admitted, ledger)
            missing = self._missing(admitted, ledger, cut_off)
            recorder, rule = Recorder(self.folder, self.plan, admitted), None
            # If nothing is missing, this call carries nothing out.
            written = recorder.start(self._platforms, [commit()] if missing else [])
            if self.plan.precision is not None and self._shard is None:
                rule = Precision(self.folder, ledger, written)
                recorder = Recorder(self.folder, self.plan, admitted, rule.see)
            missing = self._with_baselines(design.trials, missing, ledger, recorder, rule)
            self._clear()
            blocks = Blocks(
                self.plan, self.folder, self._bench, admitted, ledger, recorder, self._progress,
                self._interruption, rule, self._per_playbook, self.failed, self._stores(),
                self._keep, {name: e.login for name, e in self._platforms.enclosures.items()},
            )  # fmt: skip
            self._blocks = blocks
            self._progress.begin(len(design.trials), missing, ledger.seconds())
            quiet = design.interrupts() if self.plan.tuning else None
            with self._bench.prepared(quiet) as tuned:
                recorder.tuned(tuned)
                blocks.carry_out(missing)

    def _clear(self) -> None:
        """Release what a sweep that was cut off left; nothing of this one stands yet."""
        try:
            if self._bench.clear(lambda: self._interruption.wanted):
                self._progress.say("released what a sweep that was cut off had left")
        finally:
            self._interruption.check()

    def _ledger(self) -> Ledger:
        ledger, wrong = opened(self.folder / NAME)
        if wrong:
            self._progress.say(f"the ledger is damaged: {wrong}; it is rebuilt from the results")
        return ledger

    def _begin(self, admitted: Admitted, ledger: Ledger) -> list[str]:
        """Check that the folder is of this sweep, and take it.

        Returns:
            The trials that were being carried out when an earlier call was killed.
        """
        design, same = admitted.design, identity(self.plan, admitted, self._platforms)
        if ledger.new():
            recognized(self.folder, same, self._document(admitted))
        ledger.begin(same, [(t.id, t.position, t.instance.platform) for t in design.trials])
        return ledger.take(Holder.here(), until(self._bench.limit_s))

    def _document(self, admitted: Admitted) -> Design:
        return admitted.design.document(self.plan, admitted.image, self._platforms, ())

    def _with_baselines(
        self, trials: tuple[Trial, ...], missing: list[Trial], ledger: Ledger,
        recorder: Recorder, rule: Precision | None,
    ) -> list[Trial]:  # fmt: skip
        """Return what is missing, and what is too old to be paired with it."""

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
            self._progress.say(
                f"{trial.id} is measured again: it and others of its replicate would be paired "
                "across a pause"
            )
        return sorted([*missing, *again], key=lambda trial: trial.position)

    def _missing(self, admitted: Admitted, ledger: Ledger, cut_off: list[str]) -> list[Trial]:
        standing = Standing(
            self.folder, self._document(admitted), admitted.report.host, self._progress.say
        )
        missing = standing.settle(admitted.design.trials, ledger, cut_off)
        given_up = {} if self._retry_failed else ledger.given_up(MOST_ATTEMPTS)
        for trial in missing:
            if trial.id in given_up:
                self.failed.append(trial.id)
                self._progress.say(
                    f"{trial.id} is not repeated: it failed, and began {MOST_ATTEMPTS} times or "
                    f"more, the last time: {given_up[trial.id]}; --retry-failed repeats it"
                )
        done = self._done_elsewhere(admitted)
        return [t for t in missing if t.id not in given_up and t.replicate not in done]

    def _done_elsewhere(self, admitted: Admitted) -> frozenset[int]:
        """Return the replicates of a shard of which another host has every result."""
        if self._shard is None:
            return frozenset()
        done = whole_elsewhere(self.folder, self._shard, self._document(admitted))
        for replicate, there in sorted(done.items()):
            self._progress.say(f"replicate {replicate} is whole in {there.name}: not repeated here")
        return frozenset(done)
