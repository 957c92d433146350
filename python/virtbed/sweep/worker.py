"""One host of several at work: it is cleared and prepared, and gets replicate after replicate."""

from __future__ import annotations

from collections.abc import Sequence
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
from virtbed_contract.sweep import Design


@dataclass(frozen=True)
class Worker:
    """What carries a sweep's replicates out on one host of several, in a thread of its own.

    Attributes:
        call: What is asked for.
        member: The host, which was admitted.
        replicates: What hands replicates out.
        design: The sweep's design.
        ledger: The sweep's ledger, by a connection of this thread.
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
        """Clear the host, prepare it, and carry replicates out as long as there are any.

        Raises:
            Interrupted, Kept: the sweep ends.
            BenchError, SweepError: something is wrong with this host.
            LedgerError, LeaseError, NoRoomError, OSError: something is wrong with the sweep.
        """
        call, member, bench = self.call, self.member, self.member.bench
        self._clear()
        report, rule = report_of(member.own), None
        recorder = Recorder(call.folder, call.plan, self._admitted, report=report)
        if call.plan.precision is not None:
            rule = Precision(call.folder, self.ledger, self.design)
            recorder.seen = rule.see
        progress = call.progress.of(member.name)
        blocks = call.blocks(bench, self._admitted, self.ledger, recorder, rule, progress)
        quiet = self._admitted.design.interrupts() if call.plan.tuning else None
        with bench.prepared(quiet) as tuned, member.kept_reason():
            recorder.tuned(tuned)
            while taken := self.replicates.take(member.own, lambda: call.interruption.wanted):
                number, before = taken
                with self.replicates.held(number):
                    self._replicate(number, before, blocks, recorder, rule)
                member.tries = 0
                self.ledger.note(member.name)
                call.progress.idle(member.name)
            member.finished = not call.interruption.wanted

    def _clear(self) -> None:
        """Release what a sweep that was cut off left; nothing of this one stands yet."""
        wanted = self.call.interruption
        try:
            if self.member.bench.clear(lambda: wanted.wanted):
                said = "released what a sweep that was cut off had left"
                self.call.progress.of(self.member.name).say(said)
        finally:
            wanted.check()

    def _replicate(
        self, number: int, before: str, blocks: Blocks, recorder: Recorder, rule: Precision | None
    ) -> None:
        """Carry out what is missing of a replicate; `before` is the host that had started it."""
        call, member, ledger = self.call, self.member, self.ledger
        trials = [trial for trial in self._admitted.design.trials if trial.replicate == number]
        try:
            if before not in ("", member.own):
                self._take_over(number, before, trials)
            ledger.bind(number, member.own)
            ledger.note(member.name, number)
            missing = self._missing(trials)
            wanted = call.with_baselines(trials, missing, ledger, recorder, rule)
            call.progress.again(wanted)
            blocks.carry_out(wanted)
        finally:
            member.began = member.began or blocks.began
            with suppress(LedgerError):  # the error that ended it is reported
                ledger.free(trial.id for trial in trials)

    def _missing(self, trials: Sequence[Trial]) -> list[Trial]:
        done = self.ledger.done()
        if not self.call.retry_failed:
            done |= self.ledger.given_up(MOST_ATTEMPTS).keys()
        return [trial for trial in trials if trial.id not in done]

    def _take_over(self, number: int, before: str, trials: Sequence[Trial]) -> None:
        """Put aside what another host left of a replicate: a pair of both would compare them."""
        folder, moved = self.call.folder, 0
        for trial in trials:
            kept = put_aside(folder, folder / "trials" / trial.id, trial.id, self.ledger)
            moved += kept is not None
            for earlier in sorted(folder.glob(f"earlier/*/{trial.id}")):
                put_aside(folder, earlier, trial.id, self.ledger)
        self.call.progress.say(
            f"{self.member.words} repeats replicate {number}, which {before} had started: pairs "
            f"are of one host. What {before} left of {moved} of its trials is kept in aside/"
        )
