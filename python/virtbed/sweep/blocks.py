"""Execution of a sweep's blocks on one host: provision, trials, release, as Ansible playbooks.

Every block is released however its playbook ends, unless the user requested to keep a failed
trial's instance. Each outcome is recorded as soon as the playbook reports it.
"""

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
    HostRebootedError,
    Interruption,
    Kept,
    NoRoomError,
)  # fmt: skip
from virtbed.sweep.precision import Precision
from virtbed.sweep.recording import Recorder
from virtbed.trial import Trial
from virtbed_contract.codec import encode
from virtbed_contract.documents import Instance
from virtbed_contract.kernel.machine import digest
from virtbed_contract.limits import DiskFree, look
from virtbed_contract.neighbours import instances
from virtbed_contract.sweep import TIMES_EMULATED

# Starting Ansible costs as much as many tasks, so that one call carries several blocks out. More
# blocks per call would make its list of pending tasks long.
PER_PLAYBOOK = 20
# Messages of a full disk in the output of a failed task. Such a failure is not repeated.
_FULL = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT))
_INCOMING = ".incoming"

Block = list[Trial]


@dataclass
class Blocks:
    """Runs blocks on one host and records the outcomes.

    Attributes:
        folder: The sweep's folder.
        precision: The stopping rule, if the plan has one.
        per_playbook: The number of blocks per call of ansible-playbook; results do not depend
            on it.
        failed: The ids of the trials that failed.
        stores: The image stores (folders) of the plan's engines; their free space is checked.
        keep: Whether to keep the instance of the first failed trial, and end the sweep there.
        logins: The command that opens a shell in an instance, by enclosure; see `RoleProperties`.
        guest: Ansible's variables of the latest guest.
        holder: This controller, which holds the ledger.
        began: Whether a block has started, so that an instance may exist.
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
        """Carry out the blocks of the given trials, except trials that the precision rule skips.

        Args:
            missing: The trials to carry out, in order.

        Raises:
            Interrupted: The user ended the sweep.
            Kept: A trial failed, and its instance is kept, as requested by `keep`.
            NoRoomError, HostFullError: A disk has too little free space.
            HostLostError: One of several hosts became unreachable.
            HostRebootedError: The host has rebooted since its examination.
            BenchError: The running instance could not be released.
            OSError: Results cannot be written.
        """
        self._since = time.monotonic()
        rule = self.precision
        # With a stopping rule, the trials that are still needed are determined per replicate.
        for _, group in groupby(missing, key=lambda t: t.replicate if rule else 0):
            trials = list(group)
            needed = self._needed(trials, rule) if rule else trials
            blocks = [list(block) for _, block in groupby(needed, key=lambda t: t.block)]
            while blocks:
                self.interruption.check()
                del blocks[: self._playbook(blocks[: self.per_playbook])]

    def _needed(self, trials: list[Trial], rule: Precision) -> list[Trial]:
        """Return the trials that the stopping rule still needs, and report the others."""
        unneeded = rule.unneeded()
        for trial in trials:
            if trial.id in unneeded:
                self.progress.unneeded(trial)
        return [t for t in trials if t.id not in unneeded]

    def _playbook(self, blocks: list[Block]) -> int:
        """Carry out some blocks in one playbook; it ends at a block that cannot be provisioned.

        Returns:
            The number of blocks that have ended, successfully or not.
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
                raise HostLostError(f"it became unreachable: {ended.message}")
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
        """Raise Kept, which ends the sweep with the block's instance kept for inspection."""
        instance = block[0].instance
        failed = next((t for t in block if t.id in self.failed), None)
        if failed is None:  # provisioning failed, and so do all trials of the block
            self._fail_rest([block], pending, ended)
            failed = block[0]
        host = self.admitted.report.host
        command = login(self.guest if instance.own_kernel else {}, self.logins, instance, host)
        raise Kept(
            f"{failed.id} failed (reason in {self.folder / 'trials' / failed.id / 'failure.json'}),"
            f" and its instance is kept: {command}; `virtbed clear` removes it, and so does the "
            "next sweep, which continues"
        )

    def _fail_rest(self, blocks: list[Block], pending: _Pending, ended: Ended) -> None:
        """Record a failure for each trial of some blocks that reported no outcome."""
        for block in blocks:
            # Only the last block can have ended with the playbook itself.
            aborted = not ended.ok and block is blocks[-1]
            reason = ended.message if aborted else "the playbook reported no outcome of this trial"
            left = [trial for trial in block if trial.id in pending.trials]
            # If all trials are left, provisioning failed; if some are, the connection was lost.
            stage = "provision" if len(left) == len(block) else "trial"
            for trial in left:
                self.recorder.failure(trial, pending.attempts(trial), stage, reason)
                self._close(trial, pending, reason)

    def _events(self, blocks: list[Block], pending: _Pending) -> Ended:
        """Run the playbook and record the outcomes that it reports; return how it ended."""
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
            benches.affinity_restored() as move_to,
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
                        continue  # until the playbook ends; trials that end meanwhile are repeated
                    if isinstance(event, BlockStarted):
                        self._check_boot(event.boot)
                        self._check_room(event.start.disks)
                        # Count the first trial's attempt now, so that it counts even if the block
                        # is killed; each next trial's is counted when the one before has ended.
                        self.began = True
                        pending.attempt(blocks[pending.started][0])
                        pending.started += 1
                        if event.start.here:
                            move_to(event.start.cpus)
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
        """Return whether the failed instance exists and is to be kept, as requested by `keep`.

        It does not exist if the playbook failed between two blocks. It is not kept if a disk is
        full or the user ended the sweep (it is then released), or if the host is unreachable.
        """
        if not self.keep or not pending.started or ended.status != "failed":
            return False
        release = _full(ended) or self._lost(ended) or self.interruption.wanted
        return not release and pending.is_open(blocks[pending.started - 1])

    def _check_boot(self, boot: str) -> None:
        """Raise HostRebootedError if the bench host has rebooted since its examination."""
        if digest(boot) != self.admitted.report.facts["machine"]["boot"]:
            raise HostRebootedError(
                "the bench host has rebooted since it was examined, so its kernel and its settings "
                "may be others: set it up again (make setup), and call again to continue"
            )

    def _check_room(self, disks: Iterable[DiskFree]) -> None:
        """Raise NoRoomError if a disk of the bench host or of this machine lacks free space.

        A disk of the bench host raises its subclass HostFullError.
        """
        for disk in disks:
            if disk.lack:
                raise HostFullError(disk.lack)
        for disk in own_disks(self.folder):
            if disk.lack:
                raise NoRoomError(disk.lack)

    def _lost(self, ended: Ended) -> bool:
        """Return whether this is one of several hosts, and it became unreachable.

        Its pending trials are then not failures of a platform: other hosts can carry them out.
        """
        return self.bench.name in ended.lost

    def _block_s(self, block: Block) -> float:
        """Return the time limit of a block, in seconds."""
        return sum(map(self._allowed_s, block)) + self._allowed_s(None, block[0])

    def _renew(
        self, deadline: Deadline, upcoming: Trial | None, before: Trial | None = None
    ) -> None:
        """Give the playbook the time of its next step: until `upcoming` ends, or the release."""
        allowed_s = self._allowed_s(upcoming, before)
        deadline.renew(allowed_s)
        self._lease(allowed_s)

    def _lease(self, limit_s: float) -> None:
        """Hold the sweep's lease for a step of `limit_s` seconds and its clearance if it hangs."""
        expires = until(limit_s + self.bench.limit_s)
        # Several hosts share the lease, each at a step of its own: do not shorten it for another.
        self.ledger.renew(self.holder, expires, no_sooner=bool(self.bench.name))

    def _allowed_s(self, upcoming: Trial | None, before: Trial | None = None) -> float:
        """Return the seconds until the upcoming trial must end or, without one, the release."""
        trial = upcoming or before
        times = TIMES_EMULATED if trial and trial.emulated else 1
        return self.bench.hung_after_s * times + (upcoming.limit_s if upcoming else 0)

    def _close(self, trial: Trial, pending: _Pending, error: str) -> None:
        """Write a trial's end into the ledger; `error` is empty for a good trial."""
        del pending.trials[trial.id]
        # The time includes what preceded the trial: the release before it, and its provisioning.
        now = time.monotonic()
        seconds, self._since = now - self._since, now
        failed = error and not self.recorder.keeps(trial)
        digests = None if error else records.digests(self.folder / "trials" / trial.id)
        status = "failed" if failed else "done"
        self.ledger.close(trial.id, status, seconds, reason=error, digests=digests)
        if error:
            self.failed.append(trial.id)
        self.progress.done(trial, seconds, error)
        if pending.trials:
            self.progress.doing(next(iter(pending.trials.values())))


class _Pending:
    """The trials of one playbook that have not ended yet, in order, with their attempts.

    Attributes:
        trials: The trials by id.
        started: The number of blocks that have started.
        failed_in: The block of the trial whose failure was reported last.
    """

    def __init__(self, blocks: list[Block], ledger: Ledger) -> None:
        self.trials = {trial.id: trial for block in blocks for trial in block}
        self.started = 0
        self.failed_in: int | None = None
        self._ledger = ledger
        self._attempts: dict[str, int] = {}

    def attempt(self, trial: Trial) -> int:
        """Count an attempt at a trial, once per playbook; return its number, from 1."""
        if trial.id not in self._attempts:
            self._attempts[trial.id] = self._ledger.attempt(trial.id)
        return self._attempts[trial.id]

    def attempts(self, trial: Trial) -> int:
        """Return how many attempts at a trial have started so far."""
        return self._attempts.get(trial.id) or self._ledger.attempts(trial.id)

    def is_open(self, block: Block) -> bool:
        """Return whether a started block ended early: a trial failed, or some have not ended."""
        return block[0].block == self.failed_in or any(t.id in self.trials for t in block)

    def next_in(self, block: int) -> Trial | None:
        """Return the next trial of a block, if there is one."""
        return next((trial for trial in self.trials.values() if trial.block == block), None)


def _full(ended: Ended) -> bool:
    """Return whether a playbook ended because a disk is full."""
    return any(message in ended.message for message in _FULL)


def login(
    guest: Mapping[str, Any], logins: Mapping[str, str], instance: Instance, host: str
) -> str:
    """Return in words how to open a shell in an instance: the command, and where to call it.

    Args:
        guest: Ansible's variables of its guest; empty without one.
        logins: The command that opens a shell in an enclosure, by the enclosure's name.
        instance: The instance.
        host: Name of the bench host.
    """
    name = f"virtbed-{instance.id}"
    inside = logins.get(instance.enclosure, "").format(name=name)
    if not instance.own_kernel:
        return f"log in on {host}" + (f", `{inside}`" if inside else "")
    if not guest:
        return f"{name} on {host}, which accepts no login"
    ssh = (
        f"ssh -t -p {guest.get('ansible_port')} -i {guest.get('ansible_ssh_private_key_file')} "
        f"{' '.join(str(guest.get('ansible_ssh_common_args', '')).split())} "
        f"{guest.get('ansible_user')}@{guest.get('ansible_host')}"
    )
    return f"`{ssh}`" + (f", in it `{inside}`" if inside else "")


def own_disks(folder: Path) -> tuple[DiskFree, ...]:
    """Return the free space of this machine's disks that a sweep writes to."""
    return (look("results", folder), look("tmp", Path(gettempdir())))


def forget_incoming(folder: Path) -> None:
    """Remove fetched files that a killed sweep left, including those of hosts not used now."""
    for incoming in folder.glob(f"{_INCOMING}*"):
        # Ignore errors, which must not stop other hosts: the host that needs this folder will fail
        # to make it, with the reason.
        shutil.rmtree(incoming, ignore_errors=True)


@contextmanager
def _incoming(folder: Path, host: str = "") -> Iterator[Path]:
    """Yield a folder for the results that a playbook fetches, one per host; then remove it."""
    incoming = folder / (f"{_INCOMING}-{benches.file_name(host)}" if host else _INCOMING)
    shutil.rmtree(incoming, ignore_errors=True)  # it exists only if a sweep was killed
    incoming.mkdir(parents=True)
    try:
        yield incoming
    finally:
        # An error here must not hide the one that ended the sweep.
        shutil.rmtree(incoming, ignore_errors=True)
