"""The blocks of a sweep, carried out one after another; whatever happens, none is left standing."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from virtbed import bench as benches
from virtbed import records
from virtbed.ansible import Deadline
from virtbed.bench import Bench
from virtbed.events import BlockStarted, Ended, TaskOk, TrialEnded
from virtbed.lease import Holder, until
from virtbed.ledger import Ledger
from virtbed.plan import Plan
from virtbed.progress import HostProgress, Progress
from virtbed.sweep.admission import Admitted
from virtbed.sweep.interruption import (
    HostFullError,
    HostLostError,
    Interruption,
    Kept,
    NoRoomError,
)  # fmt: skip
from virtbed.sweep.precision import Precision
from virtbed.sweep.recording import Recorder
from virtbed.trial import Trial
from virtbed_contract.codec import encode
from virtbed_contract.documents import Instance
from virtbed_contract.limits import DiskFree, look
from virtbed_contract.neighbours import instances
from virtbed_contract.sweep import TIMES_EMULATED

# Ansible's start costs as much as many tasks; its list of what is to come grows with each block.
PER_PLAYBOOK = 20
# What making an instance says where a disk is full: repeating it would not help.
_FULL = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT))
_INCOMING = ".incoming"

Block = list[Trial]


@dataclass
class Blocks:
    """What is missing of a sweep, carried out.

    Attributes:
        precision: The stopping rule, if the plan has one.
        per_playbook: How many blocks one call of ansible-playbook carries; results do not depend
            on it.
        failed: The ids of the trials that failed.
        stores: Folders of the stores of the plan's engines.
        keep: Whether the first failed trial's instance is left, and the sweep ends.
        logins: What opens a shell in an instance, by enclosure; see `RoleProperties`.
        guest: How Ansible reaches the guest that was made last.
        holder: This controller, which has taken the ledger.
        began: Whether an instance was, or was to be, made.
    """

    plan: Plan
    folder: Path
    bench: Bench
    admitted: Admitted
    ledger: Ledger
    recorder: Recorder
    progress: Progress | HostProgress
    interruption: Interruption
    precision: Precision | None = None
    per_playbook: int = PER_PLAYBOOK
    failed: list[str] = field(default_factory=list)
    stores: tuple[str, ...] = ()
    keep: bool = False
    logins: Mapping[str, str] = field(default_factory=dict)
    guest: Mapping[str, Any] = field(default_factory=dict)
    holder: Holder = field(default_factory=Holder.here)
    began: bool = False
    _since: float = 0.0
    _kept: bool = False

    def carry_out(self, missing: Sequence[Trial]) -> None:
        """Carry out the blocks of some trials, without those that a precision makes unneeded.

        Raises:
            Interrupted: the user ended the sweep.
            BenchError: what was standing could not be released.
            OSError: results cannot be written.
        """
        self._since = time.monotonic()
        rule = self.precision
        # What is no longer needed is decided again after each replicate.
        for _, group in groupby(missing, key=lambda t: t.replicate if rule else 0):
            trials = list(group)
            needed = self._needed(trials, rule) if rule else trials
            blocks = [list(block) for _, block in groupby(needed, key=lambda t: t.block)]
            while blocks:
                self.interruption.check()
                del blocks[: self._playbook(blocks[: self.per_playbook])]

    def _needed(self, trials: list[Trial], rule: Precision) -> list[Trial]:
        unneeded = rule.unneeded()
        for trial in trials:
            if trial.id in unneeded:
                self.progress.unneeded(trial)
        return [t for t in trials if t.id not in unneeded]

    def _playbook(self, blocks: list[Block]) -> int:
        """Carry out some blocks in one playbook; the first that cannot be ends it.

        Returns:
            How many blocks are done with.
        """
        benches.end_strays(self.bench.name)
        pending = _Pending(blocks, self.ledger)
        leased = list(pending.trials)
        self._lease(self.bench.limit_s)
        self.ledger.lease(leased)
        self.progress.doing(blocks[0][0])
        ended, self._kept = Ended("failed"), False
        try:
            ended = self._events(blocks, pending)
            if self._lost(ended) and not self.interruption.wanted:
                raise HostLostError(f"it was lost: {ended.message}")
            carried_out = blocks if ended.ok else blocks[: pending.started or 1]
            if _full(ended):
                raise HostFullError(f"a disk of the bench host is full: {ended.message}")
            if self._kept:
                self.ledger.free(leased)
                self._keep(blocks[pending.started - 1], pending, ended)
            if not self.interruption.wanted:
                self._fail_rest(carried_out, pending, ended)
        finally:
            if not ended.ok:
                benches.end_strays(self.bench.name)
                if not self._kept and not self._lost(ended):
                    self.bench.clear(lambda: self.interruption.insisted)
        self.ledger.free(leased)
        self.interruption.check()
        return len(carried_out)

    def _keep(self, block: Block, pending: _Pending, ended: Ended) -> None:
        """Raise Kept: an instance, or what there is of it, stands for inspection."""
        instance = block[0].instance
        failed = next((t for t in block if t.id in self.failed), None)
        if failed is None:  # it was not made: all of its trials fail
            self._fail_rest([block], pending, ended)
            failed = block[0]
        host = self.admitted.report.host
        way = login(self.guest if instance.own_kernel else {}, self.logins, instance, host)
        raise Kept(
            f"{failed.id} failed ({self.folder / 'trials' / failed.id / 'failure.json'} says why), "
            f"and its instance is kept: {way}; `virtbed clear` removes it, and so does the next "
            "sweep, which goes on"
        )

    def _fail_rest(self, blocks: list[Block], pending: _Pending, ended: Ended) -> None:
        """Fail some blocks' trials that reported nothing; the last block may be cut off."""
        for block in blocks:
            cut_off = not ended.ok and block is blocks[-1]
            why = ended.message if cut_off else "the playbook went on, and reported nothing of it"
            left = [trial for trial in block if trial.id in pending.trials]
            # Without an instance no trial ran; without its connection the rest of them did not.
            stage = "provision" if len(left) == len(block) else "trial"
            for trial in left:
                self.recorder.failure(trial, pending.so_far(trial), stage, why)
                self._close(trial, pending, why)

    def _events(self, blocks: list[Block], pending: _Pending) -> Ended:
        """Run the playbook and record what it tells; return how it ended."""
        deadline = Deadline(self.bench.limit_s)
        turns = [
            {
                "virtbed_instance": encode(block[0].instance),
                "virtbed_neighbours": [encode(one) for one in instances(block[0].instance)],
                "virtbed_trials": [
                    encode(trial.request(self.plan.seed, self.admitted.report)) for trial in block
                ],
                "virtbed_claim_s": self.bench.claim_s(self._block_s(block)),
            }
            for block in blocks
        ]
        with (
            benches.keys(self.plan.name, lambda: self._kept, self.bench.name) as keys,
            _incoming(self.folder, self.bench.name) as incoming,
            benches.affinity_restored() as keep_to,
        ):
            variables = {
                "virtbed_bench": self.admitted.report.host,
                "virtbed_run_dir": str(keys),
                "virtbed_incoming_dir": str(incoming),
                "virtbed_tuned": self.plan.tuning,
                "virtbed_interrupts": self.admitted.design.interrupts(),
                "virtbed_keep": self.keep,
                "virtbed_stores": [["store", store] for store in self.stores],
            }
            events = self.bench.blocks(variables, turns, deadline, lambda: self.interruption.wanted)
            with closing(events):  # type: ignore[type-var]  # a generator, whatever its annotation
                for event in events:
                    if isinstance(event, Ended):
                        self._kept = self._is_kept(blocks, pending, event)
                        return event
                    if self.interruption.wanted:
                        continue  # its end comes, and what ended meanwhile is repeated
                    if isinstance(event, BlockStarted):
                        self._check_room(event.start.disks)
                        # Counted now, whatever becomes of it; the next when this has ended.
                        self.began = True
                        pending.attempt(blocks[pending.started][0])
                        pending.started += 1
                        if event.start.here:
                            keep_to(event.start.cpus)
                        self._renew(deadline, blocks[pending.started - 1][0])
                    elif isinstance(event, TaskOk) and event.action == "add_host":
                        self.guest = event.result.get("add_host", {}).get("host_vars", {})
                    elif isinstance(event, TrialEnded):
                        trial = pending.trials[event.outcome.id]
                        if event.outcome.failure is not None:
                            pending.failed_in = trial.block
                        error = self.recorder.trial(trial, pending.attempt(trial), event.outcome)
                        self._close(trial, pending, error)
                        upcoming = pending.next_in(trial.block)
                        if upcoming is not None:
                            pending.attempt(upcoming)
                        self._renew(deadline, upcoming, trial)
        return Ended("failed", "the playbook did not report its end")

    def _is_kept(self, blocks: list[Block], pending: _Pending, ended: Ended) -> bool:
        """Return whether an instance stands that was asked to be left: not one that was released.

        A playbook may fail between two blocks. And where the sweep must end all the same, for a
        disk that is full or since the user wants it to, nothing is left standing.
        """
        if not self.keep or not pending.started or ended.status != "failed":
            return False
        wanted = _full(ended) or self._lost(ended) or self.interruption.wanted
        return not wanted and pending.is_open(blocks[pending.started - 1])

    def _check_room(self, disks: Iterable[DiskFree]) -> None:
        """Raise NoRoomError if a disk of the bench host, or of this machine, has too little."""
        for disk in disks:
            if disk.lack:
                raise HostFullError(disk.lack)
        for disk in own_disks(self.folder):
            if disk.lack:
                raise NoRoomError(disk.lack)

    def _lost(self, ended: Ended) -> bool:
        """Return whether one of several hosts could not be reached any more.

        What it did not end is not the platform's failure, and others can do it.
        """
        return self.bench.name in ended.lost

    def _block_s(self, block: Block) -> float:
        """Return how long a block may take at most."""
        return sum(map(self._allowed_s, block)) + self._allowed_s(None, block[0])

    def _renew(
        self, deadline: Deadline, upcoming: Trial | None, before: Trial | None = None
    ) -> None:
        allowed_s = self._allowed_s(upcoming, before)
        deadline.renew(allowed_s)
        self._lease(allowed_s)

    def _lease(self, limit_s: float) -> None:
        """Hold the sweep for a step with a limit, and for what follows if it hangs: a clearance."""
        expires = until(limit_s + self.bench.limit_s)
        # Of several hosts each is at a step of its own.
        self.ledger.renew(self.holder, expires, no_sooner=bool(self.bench.name))

    def _allowed_s(self, upcoming: Trial | None, before: Trial | None = None) -> float:
        """Return how long it may take until the next trial has ended, or the block is released."""
        known = upcoming or before
        times = TIMES_EMULATED if known and known.emulated else 1
        return self.bench.hung_after_s * times + (upcoming.limit_s if upcoming else 0)

    def _close(self, trial: Trial, pending: _Pending, error: str) -> None:
        del pending.trials[trial.id]
        # With what preceded it: its instance, and the release of the one before.
        now = time.monotonic()
        seconds, self._since = now - self._since, now
        failed = error and not self.recorder.keeps(trial)
        kept = None if error else records.digests(self.folder / "trials" / trial.id)
        status = "failed" if failed else "done"
        self.ledger.close(trial.id, status, seconds, reason=error, digests=kept)
        if error:
            self.failed.append(trial.id)
        self.progress.done(trial, seconds, error)
        if pending.trials:
            self.progress.doing(next(iter(pending.trials.values())))


class _Pending:
    """The trials of one playbook that have not ended yet, in order, and what is known of them."""

    def __init__(self, blocks: list[Block], ledger: Ledger) -> None:
        self.trials = {trial.id: trial for block in blocks for trial in block}
        self.started = 0
        self.failed_in: int | None = None  # the block of the trial whose failure was reported last
        self._ledger = ledger
        self._attempts: dict[str, int] = {}

    def attempt(self, trial: Trial) -> int:
        """Return which attempt at a trial this is, from 1; counted once per playbook."""
        if trial.id not in self._attempts:
            self._attempts[trial.id] = self._ledger.attempt(trial.id)
        return self._attempts[trial.id]

    def so_far(self, trial: Trial) -> int:
        """Return how many attempts at a trial have started, this one if it has."""
        return self._attempts.get(trial.id) or self._ledger.attempts(trial.id)

    def is_open(self, block: Block) -> bool:
        """Return whether a block that began has ended by the failure of a trial, or before all."""
        return block[0].block == self.failed_in or any(t.id in self.trials for t in block)

    def next_in(self, block: int) -> Trial | None:
        """Return the next trial of a block, if there is one."""
        return next((trial for trial in self.trials.values() if trial.block == block), None)


def _full(ended: Ended) -> bool:
    return any(word in ended.message for word in _FULL)


def login(
    guest: Mapping[str, Any], logins: Mapping[str, str], instance: Instance, host: str
) -> str:
    """Return the command that opens a shell in an instance, and where it is to be called.

    Args:
        guest: Ansible's variables of its guest; empty without one.
        logins: What opens a shell in an enclosure, by the enclosure's name.
        instance: The instance.
        host: Name of the bench host.
    """
    name = f"virtbed-{instance.id}"
    inside = logins.get(instance.enclosure, "").format(name=name)
    if not instance.own_kernel:
        return f"log in on {host}" + (f", `{inside}`" if inside else "")
    if not guest:
        return f"{name} on {host}, in which nobody can log in"
    ssh = (
        f"ssh -t -p {guest.get('ansible_port')} -i {guest.get('ansible_ssh_private_key_file')} "
        f"{' '.join(str(guest.get('ansible_ssh_common_args', '')).split())} "
        f"{guest.get('ansible_user')}@{guest.get('ansible_host')}"
    )
    return f"`{ssh}`" + (f", in it `{inside}`" if inside else "")


def own_disks(folder: Path) -> tuple[DiskFree, ...]:
    """Return what is free on this machine's disks that a sweep writes to."""
    return (look("results", folder), look("tmp", Path(gettempdir())))


def forget_incoming(folder: Path) -> None:
    """Remove what was fetched for a sweep that was killed, also from hosts that are not there."""
    for incoming in folder.glob(f"{_INCOMING}*"):
        # What cannot be removed hinders no other host: making its own folder fails with the reason.
        shutil.rmtree(incoming, ignore_errors=True)


@contextmanager
def _incoming(folder: Path, host: str = "") -> Iterator[Path]:
    """Give a folder for the results that a playbook fetches, and remove it; one per host."""
    incoming = folder / (f"{_INCOMING}-{benches.file_name(host)}" if host else _INCOMING)
    shutil.rmtree(incoming, ignore_errors=True)  # there is none, unless a sweep was killed
    incoming.mkdir(parents=True)
    try:
        yield incoming
    finally:
        shutil.rmtree(incoming, ignore_errors=True)  # the error that ended the sweep is reported
