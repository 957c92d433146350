"""A sweep on several hosts: one worker per host, which takes a replicate whenever it is free.

Each worker is a thread with its own playbooks, logs and keys, and holds its host; all share the
ledger. A host that cannot be examined, is unreachable, full, taken by another controller or
cannot be cleared is set aside, with the reason. Its worker tries again after a pause, and clears
the host when it is back. Meanwhile other hosts carry its replicates out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from threading import RLock

from virtbed import bench as benches
from virtbed import design as designs
from virtbed.bench import Bench, BenchError
from virtbed.checkout import commit
from virtbed.fleet_ledger import SEVERAL, FleetLedger
from virtbed.lease import Holder, locked, until
from virtbed.ledger import LedgerError
from virtbed.placement import PlacementError
from virtbed.plan import Plan, PlanError
from virtbed.platforms import Platforms
from virtbed.sweep.admission import admit, common_identity, host_identity
from virtbed.sweep.blocks import forget_incoming
from virtbed.sweep.call import Call
from virtbed.sweep.interruption import (
    HostFullError,
    Interrupted,
    Kept,
    NoRoomError,
    SweepError,
)  # fmt: skip
from virtbed.sweep.joining import Member, UnfitError, check, check_apart, clones_warning
from virtbed.sweep.recording import Recorder, write_design
from virtbed.sweep.replicates import Replicates
from virtbed.sweep.several import identities, one_host, planned_hosts, report_of, widen
from virtbed.sweep.standing import Standing, check_folder
from virtbed.sweep.worker import Worker
from virtbed.trial import Trial
from virtbed_contract.sweep import Design, HostReport, PlannedHost

PAUSES_S = (60.0, 120.0, 240.0, 480.0, 900.0, 900.0)
"""Pauses before each new try of a host that is set aside; after the last one it is given up."""
# Errors that may concern one host only; see `_is_of_a_host`.
_OF_A_HOST = (BenchError, SweepError, PlacementError, PlanError)


class Fleet:
    """Several hosts that carry one sweep out.

    Args:
        call: The call of the sweep, with its options.
        benches: The hosts, each with its `name`.
    """

    def __init__(self, call: Call, benches: Sequence[Bench]) -> None:
        self._call = call
        self._members = [Member(bench) for bench in benches]
        self._lock = RLock()  # guards the attributes below, once workers run
        self._ledger: FleetLedger | None = None  # until it is opened
        self._taking_part: list[Member] = []
        self._hosts: dict[str, PlannedHost] = {}
        self._reference: Member | None = None
        self._design: Design | None = None
        self._designs: list[designs.Design] = []  # those of the hosts, as far as they differ
        self._replicates = Replicates((), {})
        self._error: BaseException | None = None
        self._cut_off: list[str] = []  # trials that ran when an earlier call was killed

    @property
    def began(self) -> bool:
        """Whether an instance was made on any host."""
        return any(member.began for member in self._members)

    def run(self) -> None:
        """Carry out the missing trials; raises what `Sweep.run` documents."""
        call, names = self._call, ", ".join(member.name for member in self._members)
        benches.end_strays()
        benches.forget_keys()
        call.progress.say(f"examining {len(self._members)} hosts: {names}")
        try:
            self._each(self._examine)
            if all(member.aside for member in self._members):
                raise self._none()
            call.folder.mkdir(parents=True, exist_ok=True)
            for member in self._members:
                member.bench.logs.move_to(call.folder / "ansible" / benches.file_name(member.name))
            with locked(call.folder), call.ledger(FleetLedger) as ledger, ledger.left():
                self._ledger = ledger
                forget_incoming(call.folder)
                self._begin(ledger)
                self._each(self._work)
                self._conclude(ledger)
        finally:
            with ThreadPoolExecutor(len(self._members)) as pool:
                list(pool.map(lambda member: member.held.close(), self._members))
            if not isinstance(self._error, Kept):  # a kept guest needs its key for the login
                benches.forget_keys()

    def _each(self, do: Callable[[Member], None]) -> None:
        """Call a function for each host in parallel; an error that concerns all hosts ends all.

        Raises:
            Interrupted: The user ended the sweep.
            Kept, and any error that concerns all hosts: After all of them have ended.
        """

        def guarded(member: Member) -> None:
            try:
                do(member)
            except Interrupted:
                pass  # raised below, for all hosts together
            except BaseException as error:
                with self._lock:
                    self._error = self._error or error
                self._call.interruption.end()

        with ThreadPoolExecutor(len(self._members)) as pool:
            list(pool.map(guarded, self._members))
        if self._error:
            raise self._error
        left = [m for m in self._members if m.aside and m.admitted and not m.unfit]
        if self._over() and left:
            raise Interrupted(
                "interrupted, and the next call continues. It, or `virtbed clear`, removes what "
                f"may be left on hosts that were set aside. {_reasons(left)}"
            )
        self._call.interruption.check()

    @contextmanager
    def _apart(self, member: Member) -> Iterator[None]:
        """Set a host aside for an error of the context that concerns this host only, and free it.

        Raises:
            SweepError, BenchError, PlacementError, PlanError: The error concerns all hosts.
        """
        try:
            yield
        except _OF_A_HOST as error:
            first = member.first or error
            if isinstance(first, Interrupted) and first is not error:
                member.first = first = error  # after the interruption the host was not restored
            if not _is_of_a_host(first):
                if first is error:
                    raise
                self._call.progress.say(f"{member.label}: {error}")
                raise first from error
            member.set_aside(error)
            if member.takes_part:  # otherwise its hostname may be that of another member
                self._replicates.leave(member.hostname)
                member.takes_part = False
            member.held.close()
            self._call.progress.say(f"{member.label} is set aside: {member.aside}")
            self._call.progress.idle(member.name)
            self._note(member)

    def _note(self, member: Member) -> None:
        """Note for `virtbed status` that a host takes part, or why not; ignore a failure."""
        if self._design and self._ledger:
            with suppress(LedgerError):
                self._ledger.note(member.name, aside=member.aside)

    # At the start.

    def _examine(self, member: Member) -> None:
        """Examine a host, and hold it from then on."""
        call = self._call
        with self._apart(member):
            member.held.enter_context(member.bench.claimed(f"virtbed sweep {call.plan.name}"))
            admitted = admit(
                call.plan, member.bench, call.platforms, call.interruption, self._designed
            )
            member.examined(admitted)
            if len(self._members) > 1:
                check_apart(member)
            if warning := member.clock_warning:
                call.progress.say(f"{member.label}: {warning}")
            if admitted.restored:
                line = "restored what an interrupted sweep had changed on it"
                call.progress.say(f"{member.label}: {line}")

    def _designed(self, plan: Plan, report: HostReport, platforms: Platforms) -> designs.Design:
        """Return the design of a host; it shares its trials with a host that has equal cells."""
        with self._lock:
            made = designs.design(plan, report, platforms, self._designs)
            if all(made.trials is not other.trials for other in self._designs):
                self._designs.append(made)
        return made

    def _begin(self, ledger: FleetLedger) -> None:
        """Determine the hosts that take part and the missing trials, and write the design."""
        call = self._call
        candidates = [member for member in self._members if not member.aside]
        self._reference = self._chosen(candidates, ledger)
        self._take(ledger)
        ledger.forget_notes()
        self._hosts = planned_hosts(call.folder)
        for host, own in identities(call.folder, call.plan, call.platforms):
            if host not in ledger.hosts():  # the ledger was lost: rebuild it
                ledger.join(host, own)
        for member in candidates:
            self._enter(member, ledger)
        if not self._taking_part:
            raise self._none()
        missing, bound = self._missing(ledger)
        self._replicates = Replicates({trial.replicate for trial in missing}, bound)
        for member in self._taking_part:
            self._let_in(member)
        self._write([commit()] if missing else [])
        for member in self._members:
            self._note(member)
        hosts = len(self._taking_part)
        call.progress.begin(len(self._trials()), missing, ledger.seconds(), hosts)

    def _chosen(self, candidates: Sequence[Member], ledger: FleetLedger) -> Member:
        """Return the reference: a host with the folder's cells or, in a new folder, most hosts'."""
        call = self._call
        first: LedgerError | None = None
        alone = ledger.of_one_host(one_host(call.folder))
        alike = Counter(member.work(call.plan) for member in candidates)
        for member in sorted(candidates, key=lambda member: -alike[member.work(call.plan)]):
            assert member.admitted
            shared = common_identity(call.plan, member.admitted)
            trials = member.admitted.design.trials
            try:
                if ledger.new():
                    check_folder(call.folder, shared, call.document(member.admitted))
                if alone:
                    self._widen(alone, ledger, shared, trials)
                    alone = ""
                rows = [(t.id, t.position, t.instance.platform) for t in trials]
                ledger.begin(shared | SEVERAL, rows)
                return member
            except LedgerError as error:
                first = first or error
        raise first or self._none()

    def _take(self, ledger: FleetLedger) -> None:
        """Become the only controller of the sweep, or raise LeaseError."""
        limit_s = max(member.bench.limit_s for member in self._members)
        self._cut_off += ledger.take(Holder.here(), until(limit_s))

    def _widen(
        self, host: str, ledger: FleetLedger, shared: Mapping[str, str], trials: Sequence[Trial]
    ) -> None:
        """Turn a sweep that was started on one host into a sweep on several, which has that one.

        The ledger is last: if this call is killed before, the next one comes here again.
        """
        folder, known = self._call.folder, not ledger.new()
        started = ledger.started(shared, {t.id: t.replicate for t in trials}) if known else ()
        self._take(ledger)  # so that no other controller writes to it meanwhile
        widen(folder, host)
        if known:
            ledger.widen(host, shared.keys(), started)
        self._call.progress.say(f"started on one host, {host}; it continues as one of several")

    def _none(self) -> SweepError:
        """Return the error that no host can take part, with the reason of each."""
        reasons = _reasons(self._members)
        return SweepError(f"no host can carry the plan {self._call.plan.name} out. {reasons}")

    def _enter(self, member: Member, ledger: FleetLedger) -> None:
        """Add an examined host to the sweep, or set it aside if it cannot take part."""
        call = self._call
        with self._lock, self._apart(member):
            assert member.admitted and self._reference
            others = [other for other in self._taking_part if other is not member]
            check(call.plan, member, self._reference, others)
            if warning := clones_warning(member, others):
                call.progress.say(f"{member.label}: {warning}")
            try:
                ledger.join(
                    member.hostname, host_identity(call.plan, member.admitted, call.platforms)
                )
            except LedgerError as error:
                raise UnfitError(str(error)) from error
            self._hosts[member.hostname] = PlannedHost(
                member.hostname, member.admitted.design.placements
            )
            if member not in self._taking_part:
                self._taking_part.append(member)
            Recorder(
                call.folder, call.plan, member.admitted, report=report_of(member.hostname)
            ).examined()

    def _let_in(self, member: Member) -> None:
        """Let a host take replicates."""
        member.takes_part = True
        self._replicates.enter(member.hostname)

    def _missing(self, ledger: FleetLedger) -> tuple[list[Trial], dict[int, str]]:
        """Return the missing trials, and the host of each replicate that was started, by number."""
        call = self._call
        known: dict[str, dict[str, Trial] | None] = dict.fromkeys(sorted(ledger.hosts()))
        by_id = {id(one.trials): {trial.id: trial for trial in one.trials} for one in self._designs}
        for member in self._taking_part:
            assert member.admitted
            known[member.hostname] = by_id[id(member.admitted.design.trials)]
        standing = Standing(call.folder, self._document(), known, call.progress.say, ledger.bound())
        missing = call.missing(standing, self._trials(), ledger, self._cut_off)
        for number, host in standing.bound.items():
            ledger.bind(number, host)
        return missing, standing.bound

    def _trials(self) -> tuple[Trial, ...]:
        """Return every trial of the sweep, as planned on the reference host."""
        assert self._reference and self._reference.admitted
        return self._reference.admitted.design.trials

    def _document(self) -> Design:
        """Return the content of design.json, with the placements of each host."""
        assert self._reference and self._reference.admitted
        hosts = tuple(self._hosts[name] for name in sorted(self._hosts))
        return replace(self._call.document(self._reference.admitted), placements=(), hosts=hosts)

    def _write(self, commits: Sequence[str]) -> None:
        """Write plan.yml and design.json with the hosts that take part."""
        call = self._call
        self._design = write_design(call.folder, call.plan, self._document(), commits)

    # In the workers' threads.

    def _work(self, member: Member) -> None:
        """Carry replicates out on a host; while it is set aside, try again after pauses."""
        try:
            while not member.unfit:
                if not member.aside:
                    with self._apart(member):
                        assert self._design and self._ledger
                        Worker(
                            self._call, member, self._replicates, self._design, self._ledger
                        ).carry_out()
                        return
                if member.unfit or not self._waited(member):
                    return
                member.aside = ""
                self._examine(member)
                if not member.aside:
                    self._return(member)
        finally:
            member.held.close()

    def _waited(self, member: Member) -> bool:
        """Pause before the next try of a host; return whether replicates are still missing then."""
        if member.tries > len(PAUSES_S):
            return False
        return self._replicates.wait(PAUSES_S[member.tries - 1], self._over)

    def _over(self) -> bool:
        """Return whether the sweep must end."""
        return self._call.interruption.wanted

    def _return(self, member: Member) -> None:
        """Let a host take part that was set aside, whether or not it took part before."""
        assert self._ledger
        with self._lock:
            self._enter(member, self._ledger)
            if not member.aside:
                self._let_in(member)
                self._write([])
                self._note(member)
                self._call.progress.say(f"{member.label} is available, and takes part")

    # At the end.

    def _conclude(self, ledger: FleetLedger) -> None:
        """Report the hosts that are set aside.

        Raises:
            BenchError: A host could not be restored, or replicates are incomplete.
        """
        aside = [member for member in self._members if member.aside]
        if not_restored := [member for member in aside if member.finished]:
            raise BenchError(_reasons(not_restored))
        if left := self._replicates.left:
            raise BenchError(
                f"no host is left, and replicates {', '.join(map(str, left))} are incomplete. "
                f"{_reasons(aside)}. Call again to continue"
            )
        self._call.failed[:] = ledger.failed()
        for member in aside:
            self._call.progress.say(
                f"{member.label} was set aside, and other hosts carried its trials out: "
                f"{member.aside}. If an instance is left there, the next sweep on it removes it, "
                "and so does `virtbed clear`"
            )


def _is_of_a_host(error: Exception) -> bool:
    """Return whether an error concerns one host only, so that the others continue."""
    if isinstance(error, NoRoomError):
        return isinstance(error, HostFullError)
    return isinstance(error, _OF_A_HOST) and not isinstance(error, (Interrupted, Kept))


def _reasons(members: Iterable[Member]) -> str:
    """Return why each of some hosts is set aside, in a line."""
    return "; ".join(f"{member.label}: {member.aside}" for member in members)
