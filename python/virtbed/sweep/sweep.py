"""The entry point of a sweep: admit the host, then carry out the blocks that have no result yet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from virtbed.bench import Bench, alone
from virtbed.checkout import REPOSITORY, commit
from virtbed.lease import Holder, locked, until
from virtbed.ledger import Ledger
from virtbed.plan import Plan
from virtbed.platforms import Platforms, load_platforms
from virtbed.progress import Progress
from virtbed.shards import Shard, ShardError
from virtbed.sweep.admission import Admitted, admit, identity
from virtbed.sweep.blocks import PER_PLAYBOOK, Blocks, own_disks
from virtbed.sweep.call import MOST_ATTEMPTS as MOST_ATTEMPTS
from virtbed.sweep.call import Call
from virtbed.sweep.elsewhere import whole_elsewhere
from virtbed.sweep.fleet import Fleet
from virtbed.sweep.interruption import SweepError
from virtbed.sweep.precision import Precision
from virtbed.sweep.recording import Recorder
from virtbed.sweep.several import is_of_several
from virtbed.sweep.standing import Standing, check_folder
from virtbed.trial import Trial
from virtbed_contract.codec import DocumentError


class Sweep:
    """A sweep: one plan on one host, or on several at once, into results/<plan name>.

    Args:
        plan: The plan.
        progress: Shows what the sweep does.
        bench: The host, or the hosts.
        results: The folder of all results.
        per_playbook: The number of blocks per call of ansible-playbook.
        platforms: The known platforms; by default those of platforms.yml.
        keep: Whether to keep the instance of the first failed trial for inspection, and end the
            sweep there.
        retry_failed: Whether to repeat trials that failed MOST_ATTEMPTS times.
        shard: The shard of the replicates to carry out; by default all of them. A shard has a
            folder of its own, which is named once the host is known.
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
        self._progress = progress
        self._bench = bench
        self._platforms = platforms or load_platforms()
        self._call = Call(
            plan, self.folder, self._platforms, progress, per_playbook, keep, retry_failed
        )
        self._interruption = self._call.interruption
        self._blocks: Blocks | None = None
        self._fleet: Fleet | None = None

    @property
    def failed(self) -> list[str]:
        """The ids of the trials that failed in this call."""
        return self._call.failed

    @property
    def began(self) -> bool:
        """Whether an instance was made. If not, an error means that the sweep was refused."""
        one_host = self._blocks is not None and self._blocks.began
        return one_host or (self._fleet is not None and self._fleet.began)

    def run(self) -> None:
        """Carry out the trials that have no result yet; `failed` then lists those that failed.

        Raises:
            SweepError, BenchError, PlacementError, LedgerError, LeaseError: The sweep cannot start,
                and nothing was made; or it cannot continue, and the running instance is released
                unless the message states otherwise.
            Interrupted: The user ended the sweep; the running instance is released.
            Kept: A trial failed, and its instance is kept, as requested by `keep`.
        """
        self._bench.require_root("to place instances")
        with self._interruption.by_signals(), alone(self._interruption.check):
            self._check_room()
            hosts = self._bench.hosts()
            if self._shard and len(hosts) > 1:
                raise ShardError(
                    f"hosts {', '.join(hosts)} found, one needed: a shard runs on one host; choose "
                    "it with --limit, or carry the whole plan out on all of them"
                )
            try:
                if len(hosts) > 1 or (hosts and is_of_several(self.folder)):
                    self._fleet = Fleet(self._call, [self._bench.one_of(name) for name in hosts])
                    self._fleet.run()
                else:
                    self._on_one_host()
            except OSError as error:
                raise SweepError(
                    f"results cannot be written: {error}; everything is released, and the next "
                    "call continues"
                ) from error
            except DocumentError as error:
                raise SweepError(
                    f"a playbook reported what its document does not allow: {error}; everything is "
                    "released"
                ) from error

    def _on_one_host(self) -> None:
        """Claim the one host, admit the plan to it, and carry the plan or its shard out."""
        with self._bench.claimed(f"virtbed sweep {self.plan.name}"):
            self._progress.say("examining the host")
            admitted = admit(self.plan, self._bench, self._platforms, self._interruption)
            if admitted.restored:
                self._progress.say("restored what an interrupted sweep had changed on the host")
            if self._shard:
                admitted = self._share_of(self._shard, admitted)
                if not admitted.design.trials:
                    return
            self._carry_out(admitted)

    def _share_of(self, shard: Shard, admitted: Admitted) -> Admitted:
        """Return `admitted` with the trials of a shard only, and name the shard's folder."""
        self.folder = self.folder.with_name(shard.name(self.plan.name, admitted.report.host))
        self._call.folder = self.folder
        if self.plan.precision is not None:
            self._progress.say(
                f"precision {self.plan.precision:.3g} is not applied: only the replicates of all "
                "shards together show how precisely a cell is known, so each shard runs all of its "
                "replicates"
            )
        share = admitted.design.of(shard)
        if not share.trials:
            self._progress.say(f"nothing to do: shard {shard} has no trial on this host")
        return replace(admitted, design=share)

    def _check_room(self) -> None:
        """Raise SweepError if this machine's disks lack free space."""
        try:
            disks = own_disks(self.folder)
        except OSError as error:
            raise SweepError(
                f"{error}: {self.folder} and the folder of temporary files (TMPDIR) must be on "
                "file systems that this user can read; nothing was started"
            ) from error
        for disk in disks:
            if disk.lack:
                raise SweepError(f"{disk.lack}; nothing was started")

    def _carry_out(self, admitted: Admitted) -> None:
        """Lock the folder, find the missing trials, and run them on the prepared host."""
        call, trials = self._call, admitted.design.trials
        self.folder.mkdir(parents=True, exist_ok=True)
        self._bench.logs.move_to(self.folder / "ansible")
        with locked(self.folder), call.ledger(Ledger) as ledger, ledger.left():
            cut_off = self._begin(admitted, ledger)
            missing = self._missing(admitted, ledger, cut_off)
            recorder, rule = Recorder(self.folder, self.plan, admitted), None
            # design.json lists the commits that ran trials; none run if nothing is missing.
            document = recorder.start(self._platforms, [commit()] if missing else [])
            if self.plan.precision is not None and self._shard is None:
                rule = Precision(self.folder, ledger, document)
                recorder = Recorder(self.folder, self.plan, admitted, rule.see)
            missing = call.with_baselines(trials, missing, ledger, recorder, rule)
            self._clear()
            self._blocks = call.blocks(
                self._bench, admitted, ledger, recorder, rule, self._progress
            )
            self._progress.begin(len(trials), missing, ledger.seconds())
            quiet = admitted.design.interrupts() if self.plan.tuning else None
            with self._bench.prepared(quiet) as tuned:
                recorder.tuned(tuned)
                self._blocks.carry_out(missing)

    def _clear(self) -> None:
        """Release the instances of an interrupted sweep; this one has made none yet."""
        try:
            if self._bench.clear(lambda: self._interruption.wanted):
                self._progress.say("released what an interrupted sweep had left")
        finally:
            self._interruption.check()

    def _begin(self, admitted: Admitted, ledger: Ledger) -> list[str]:
        """Check that the folder belongs to this sweep, and take its ledger.

        Returns:
            The ids of the trials that were running when an earlier call was killed.
        """
        design, own = admitted.design, identity(self.plan, admitted, self._platforms)
        if ledger.new():
            check_folder(self.folder, own, self._call.document(admitted))
        ledger.begin(own, [(t.id, t.position, t.instance.platform) for t in design.trials])
        return ledger.take(Holder.here(), until(self._bench.limit_s))

    def _missing(self, admitted: Admitted, ledger: Ledger, cut_off: list[str]) -> list[Trial]:
        """Return the trials without a result, except those that another host of a shard has."""
        trials = admitted.design.trials
        placed = {admitted.report.host: {trial.id: trial for trial in trials}}
        document = self._call.document(admitted)
        standing = Standing(self.folder, document, placed, self._progress.say)
        missing = self._call.missing(standing, trials, ledger, cut_off)
        done = self._done_elsewhere(admitted)
        return [trial for trial in missing if trial.replicate not in done]

    def _done_elsewhere(self, admitted: Admitted) -> frozenset[int]:
        """Return the replicates of the shard that another, similar host has measured completely."""
        if self._shard is None:
            return frozenset()
        done = whole_elsewhere(
            self.folder, self._shard, self.plan, admitted, self._call.document(admitted),
            self._platforms,
        )  # fmt: skip
        for replicate, other in sorted(done.items()):
            line = f"replicate {replicate} is complete in {other.folder.name}"
            if other.unlike:
                line += (
                    f", but its host is unlike this one ({other.unlike}): repeated here; leave "
                    "that folder out of virtbed merge"
                )
            elif other.bad:
                line += f", but a result there is not valid ({other.bad}): repeated here"
            else:
                line += ": not repeated here"
            self._progress.say(line)
        return frozenset(number for number, other in done.items() if other.usable)
