"""The worker of one host in a sweep on several: it prepares the host and carries replicates out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from virtbed.fleet_ledger import FleetLedger
from virtbed.ledger import LedgerError
from virtbed.sweep.admission import Admitted
from virtbed.sweep.blocks import Blocks
from virtbed.sweep.call import MOST_ATTEMPTS, Call
from virtbed.sweep.joining import Member
from virtbed.sweep.precision import Precision
from virtbed.sweep.recording import Recorder
from virtbed.sweep.replicates import Replicates
from virtbed.sweep.several import report_of
from virtbed.sweep.standing import put_aside
from virtbed.trial import Trial
from virtbed_contract.counts import count
from virtbed_contract.sweep import Design


@dataclass(frozen=True)
class Worker:
    """Carries replicates out on one host of several, in a thread of its own.

    Attributes:
        call: The call of the sweep, with its options.
        member: The host, which was admitted.
        replicates: Assigns replicates to hosts.
        design: The sweep's design.
        ledger: The sweep's ledger, which all workers share.
    """

    call: Call
    member: Member
    replicates: Replicates
    design: Design
    ledger: FleetLedger

    @property
    def _admitted(self) -> Admitted:
        assert self.member.admitted
        return self.member.admitted

    def carry_out(self) -> None:
        """Clear the host, prepare it, and carry replicates out until none is left.

        Raises:
            Interrupted, Kept: The sweep ends on all hosts.
            BenchError, SweepError: This host cannot continue.
            LedgerError, LeaseError, NoRoomError, OSError: The sweep cannot continue.
        """
        call, member, bench = self.call, self.member, self.member.bench
        self._clear()
        report, rule = report_of(member.hostname), None
        recorder = Recorder(call.folder, call.plan, self._admitted, report=report)
        if call.plan.precision is not None:
            rule = Precision(call.folder, self.ledger, self.design)
            recorder.seen = rule.see
        progress = call.progress.of(member.name)
        blocks = call.blocks(bench, self._admitted, self.ledger, recorder, rule, progress)
        quiet = self._admitted.design.interrupts() if call.plan.tuning else None
        with bench.prepared(quiet) as tuned, member.kept_reason():
            recorder.tuned(tuned)
            for number, earlier_host in self._turns():
                with self.replicates.held(number):
                    self._replicate(number, earlier_host, blocks, recorder, rule)
                member.tries = 0
                self.ledger.note(member.name)
                call.progress.idle(member.name)
            member.finished = not call.interruption.wanted

    def _turns(self) -> Iterator[tuple[int, str]]:
        """Yield the replicates that the host gets, as `Replicates.take` returns them.

        While it waits for other hosts, nobody else may take it: if one is lost, it is needed again.
        Blocks renew its claim for longer than `limit_s` after their end, and so does `renew`.
        """
        bench, interruption = self.member.bench, self.call.interruption
        wait_s = 0.0
        while self.replicates.left and not interruption.wanted:
            taken = self.replicates.take(self.member.hostname, lambda: interruption.wanted, wait_s)
            if taken:
                yield taken
                wait_s = 0.0
            elif self.replicates.left and not interruption.wanted:
                bench.renew(lambda: interruption.wanted)
                wait_s = bench.limit_s

    def _clear(self) -> None:
        """Release the instances of an interrupted sweep; this one has made none yet."""
        interruption = self.call.interruption
        try:
            if self.member.bench.clear(lambda: interruption.wanted):
                progress = self.call.progress.of(self.member.name)
                progress.say("released what an interrupted sweep had left")
        finally:
            interruption.check()

    def _replicate(
        self,
        number: int,
        earlier_host: str,
        blocks: Blocks,
        recorder: Recorder,
        rule: Precision | None,
    ) -> None:
        """Carry out the missing trials of a replicate.

        Args:
            number: The replicate's number.
            earlier_host: The host that had started it; empty for a new one.
            blocks: Runs the trials.
            recorder: Writes their results.
            rule: The stopping rule, if the plan has one.
        """
        call, member, ledger = self.call, self.member, self.ledger
        trials = [trial for trial in self._admitted.design.trials if trial.replicate == number]
        try:
            if earlier_host not in ("", member.hostname):
                self._take_over(number, earlier_host, trials)
            ledger.bind(number, member.hostname)
            ledger.note(member.name, number)
            missing = self._missing(trials)
            pending = call.with_baselines(trials, missing, ledger, recorder, rule)
            call.progress.again(pending)
            blocks.carry_out(pending)
        finally:
            member.began = member.began or blocks.began
            with suppress(LedgerError):  # it must not hide the error that ended the replicate
                ledger.free(trial.id for trial in trials)

    def _missing(self, trials: Sequence[Trial]) -> list[Trial]:
        """Return the trials that have no result, without those that failed too often."""
        done = self.ledger.done()
        if not self.call.retry_failed:
            done |= self.ledger.given_up(MOST_ATTEMPTS).keys()
        return [trial for trial in trials if trial.id not in done]

    def _take_over(self, number: int, earlier_host: str, trials: Sequence[Trial]) -> None:
        """Move another host's results of a replicate aside, since a ratio pairs one host only."""
        folder, moved = self.call.folder, 0
        for trial in trials:
            place = put_aside(folder, folder / "trials" / trial.id, trial.id, self.ledger)
            moved += place is not None
            for earlier in sorted(folder.glob(f"earlier/*/{trial.id}")):
                put_aside(folder, earlier, trial.id, self.ledger)
        self.call.progress.say(
            f"{self.member.label} repeats replicate {number}, which {earlier_host} had started: "
            f"ratios are made within one host. What {earlier_host} had measured of it "
            f"({count(moved, 'trial')}) is kept in aside/"
        )
