"""A sweep on several hosts: one worker per host, and replicates handed to whichever is free.

Each worker is a thread with playbooks, logs, keys and a ledger's connection of its own; its host is
held by it alone. A host that cannot be examined, is lost, full, taken by another controller or
cannot be cleared is set aside with its reason. Its worker tries again after a while, and cleans the
host when it is back; until then others do what it has not finished.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from threading import RLock

from virtbed import bench as benches
from virtbed.bench import Bench, BenchError
from virtbed.checkout import commit
from virtbed.fleet_ledger import SEVERAL, FleetLedger
from virtbed.lease import Holder, locked, until
from virtbed.ledger import NAME, LedgerError
from virtbed.placement import PlacementError
from virtbed.plan import PlanError
from virtbed.sweep.admission import admit, common, of_host
from virtbed.sweep.blocks import forget_incoming
from virtbed.sweep.call import Call
from virtbed.sweep.interruption import (
    HostFullError,
    Interrupted,
    Kept,
    NoRoomError,
    SweepError,
)  # fmt: skip
from virtbed.sweep.joining import Member, UnfitError, check, check_apart
from virtbed.sweep.recording import Recorder, write_design
from virtbed.sweep.replicates import Replicates
from virtbed.sweep.several import identities, one_host, planned_hosts, report_of
from virtbed.sweep.standing import Standing, recognized
from virtbed.sweep.worker import Worker
from virtbed.trial import Trial
from virtbed_contract.sweep import Design, PlannedHost

PAUSES_S = (60.0, 120.0, 240.0, 480.0, 900.0, 900.0)
"""How long a host that was set aside is left alone each time, before it is given up."""
# What may be wrong with one host; see `_is_of_a_host`.
_OF_A_HOST = (BenchError, SweepError, PlacementError, PlanError)


class Fleet:
    """Several hosts that carry one sweep out.

    Args:
        call: What is asked for.
        benches: The hosts, each with its `name`.
    """

    def __init__(self, call: Call, benches: Sequence[Bench]) -> None:
        self._call = call
        self._path = call.folder / NAME
        self._members = [Member(bench) for bench in benches]
        self._lock = RLock()  # of what follows, once there are workers
        self._taking_part: list[Member] = []
        self._hosts: dict[str, PlannedHost] = {}
        self._reference: Member | None = None
        self._design: Design | None = None
        self._replicates = Replicates((), {})
        self._error: BaseException | None = None

    @property
    def began(self) -> bool:
        """Whether an instance was made on any host."""
        return any(member.began for member in self._members)

    def run(self) -> None:
        """Do what is missing of the sweep; see `Sweep.run`, which says what is raised."""
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
                forget_incoming(call.folder)
                self._begin(ledger)
                self._each(self._work)
                self._conclude(ledger)
        finally:
            with ThreadPoolExecutor(len(self._members)) as pool:
                list(pool.map(lambda member: member.held.close(), self._members))
            if not isinstance(self._error, Kept):  # else nobody could log in
                benches.forget_keys()

    def _each(self, do: Callable[[Member], None]) -> None:
        """Do something for each host at once; what is wrong with all of them ends all.

        Raises:
            Interrupted: the user ended it.
            Kept, and whatever concerns all hosts: all have ended.
        """

        def guarded(member: Member) -> None:
            try:
                do(member)
            except Interrupted:
                pass  # said below
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
                "interrupted, and the next call goes on. It, or `virtbed clear`, removes what may "
                f"stand on hosts that were set aside. {_why(left)}"
            )
        self._call.interruption.check()

    @contextmanager
    def _apart(self, member: Member) -> Iterator[None]:
        """Set a host aside for what is wrong with it alone, and let it go."""
        try:
            yield
        except _OF_A_HOST as error:
            first = member.first or error
            if isinstance(first, Interrupted) and first is not error:
                member.first = first = error  # the host could not be put back as the user ended it
            if not _is_of_a_host(first):
                if first is error:
                    raise
                self._call.progress.say(f"{member.words}: {error}")
                raise first from error
            member.set_aside(error)
            if member.takes_part:  # and is not another machine of the name
                self._replicates.leave(member.own)
                member.takes_part = False
            member.held.close()
            self._call.progress.say(f"{member.words} is set aside: {member.aside}")
            self._call.progress.idle(member.name)
            self._note(member)

    def _note(self, member: Member) -> None:
        """Note for `virtbed status` that a host is there, or why not; a failure is no matter."""
        if self._design:
            with suppress(LedgerError), FleetLedger(self._path) as ledger:
                ledger.note(member.name, aside=member.aside)

    # At the start.

    def _examine(self, member: Member) -> None:
        """Examine a host, and hold it from then on."""
        call = self._call
        with self._apart(member):
            member.held.enter_context(member.bench.claimed(f"virtbed sweep {call.plan.name}"))
            admitted = admit(call.plan, member.bench, call.platforms, call.interruption)
            member.examined(admitted)
            if len(self._members) > 1:
                check_apart(member)
            if said := member.clock_words:
                call.progress.say(f"{member.words}: {said}")
            if admitted.restored:
                said = "put back what a sweep that was cut off had changed of it"
                call.progress.say(f"{member.words}: {said}")

    def _begin(self, ledger: FleetLedger) -> None:
        """Find who takes part, and what is missing."""
        call = self._call
        found = [member for member in self._members if not member.aside]
        self._reference = self._chosen(found, ledger)
        cut_off = ledger.take(Holder.here(), until(max(m.bench.limit_s for m in self._members)))
        ledger.forget_notes()
        self._hosts = planned_hosts(call.folder)
        for host, own in identities(call.folder, call.plan, call.platforms):
            if host not in ledger.hosts():  # the ledger was lost
                ledger.join(host, own)
        for member in found:
            self._enter(member, ledger)
        if not self._taking_part:
            raise self._none()
        missing, bound = self._missing(ledger, cut_off)
        self._replicates = Replicates({trial.replicate for trial in missing}, bound)
        for member in self._taking_part:
            self._let_in(member)
        self._write([commit()] if missing else [])
        for member in self._members:
            self._note(member)
        hosts = len(self._taking_part)
        call.progress.begin(len(self._trials()), missing, ledger.seconds(), hosts)

    def _chosen(self, found: Sequence[Member], ledger: FleetLedger) -> Member:
        """Return the host whose cells are the sweep's: the folder's, else those of most hosts."""
        call = self._call
        why: LedgerError | None = None
        ledger.refuse_one_host(one_host(call.folder))
        alike = Counter(member.work(call.plan) for member in found)
        for member in sorted(found, key=lambda member: -alike[member.work(call.plan)]):
            assert member.admitted
            same, document = common(call.plan, member.admitted), call.document(member.admitted)
            trials = member.admitted.design.trials
            try:
                if ledger.new():
                    recognized(call.folder, same, document)
                rows = [(t.id, t.position, t.instance.platform) for t in trials]
                ledger.begin(same | SEVERAL, rows)
                return member
            except LedgerError as error:
                why = why or error
        raise why or self._none()

    def _none(self) -> SweepError:
        why = _why(self._members)
        return SweepError(f"no host can carry the plan {self._call.plan.name} out. {why}")

    def _enter(self, member: Member, ledger: FleetLedger) -> None:
        """Let a host take part that was examined, if it may."""
        call = self._call
        with self._lock, self._apart(member):
            assert member.admitted and self._reference
            others = [other for other in self._taking_part if other is not member]
            check(call.plan, member, self._reference, others)
            try:
                ledger.join(member.own, of_host(call.plan, member.admitted, call.platforms))
            except LedgerError as error:
                raise UnfitError(str(error)) from error
            self._hosts[member.own] = PlannedHost(member.own, member.admitted.design.placements)
            if member not in self._taking_part:
                self._taking_part.append(member)
            Recorder(
                call.folder, call.plan, member.admitted, report=report_of(member.own)
            ).examined()

    def _let_in(self, member: Member) -> None:
        member.takes_part = True
        self._replicates.enter(member.own)

    def _missing(
        self, ledger: FleetLedger, cut_off: Sequence[str]
    ) -> tuple[list[Trial], dict[int, str]]:
        """Return the trials that are missing, and the host of each replicate that was started."""
        call = self._call
        known: dict[str, dict[str, Trial] | None] = dict.fromkeys(sorted(ledger.hosts()))
        for member in self._taking_part:
            assert member.admitted
            known[member.own] = {trial.id: trial for trial in member.admitted.design.trials}
        standing = Standing(call.folder, self._document(), known, call.progress.say, ledger.bound())
        missing = call.missing(standing, self._trials(), ledger, cut_off)
        for number, host in standing.bound.items():
            ledger.bind(number, host)
        return missing, standing.bound

    def _trials(self) -> tuple[Trial, ...]:
        assert self._reference and self._reference.admitted
        return self._reference.admitted.design.trials

    def _document(self) -> Design:
        assert self._reference and self._reference.admitted
        hosts = tuple(self._hosts[name] for name in sorted(self._hosts))
        return replace(self._call.document(self._reference.admitted), placements=(), hosts=hosts)

    def _write(self, commits: Sequence[str]) -> None:
        call = self._call
        self._design = write_design(call.folder, call.plan, self._document(), commits)

    # What the workers do.

    def _work(self, member: Member) -> None:
        """Carry replicates out on a host; where it is set aside, try again after a while."""
        try:
            while not member.unfit:
                if not member.aside:
                    with self._apart(member), FleetLedger(self._path) as ledger:
                        assert self._design
                        worker = Worker(self._call, member, self._replicates, self._design, ledger)
                        worker.carry_out()
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
        """Leave a host alone for a while; return whether there is something to do for it then."""
        if member.tries > len(PAUSES_S):
            return False
        return self._replicates.wait(PAUSES_S[member.tries - 1], self._over)

    def _over(self) -> bool:
        return self._call.interruption.wanted

    def _return(self, member: Member) -> None:
        """Let a host take part again, or for the first time."""
        with self._lock, FleetLedger(self._path) as ledger:
            self._enter(member, ledger)
            if not member.aside:
                self._let_in(member)
                self._write([])
                self._note(member)
                self._call.progress.say(f"{member.words} is there, and takes part")

    # At the end.

    def _conclude(self, ledger: FleetLedger) -> None:
        """Say which hosts are not there any more; raise if that leaves something undone."""
        gone = [member for member in self._members if member.aside]
        if not_back := [member for member in gone if member.finished]:
            raise BenchError(_why(not_back))
        if left := self._replicates.left:
            raise BenchError(
                f"no host is left, and replicates {', '.join(map(str, left))} are not whole. "
                f"{_why(gone)}. Call again to go on"
            )
        self._call.failed[:] = ledger.failed()
        for member in gone:
            self._call.progress.say(
                f"{member.words} was set aside, and others did its part: {member.aside}. If "
                "anything stands there, the next sweep on it removes that, or `virtbed clear`"
            )


def _is_of_a_host(error: Exception) -> bool:
    """Return whether an error is wrong with one host: the others go on."""
    if isinstance(error, NoRoomError):
        return isinstance(error, HostFullError)
    return isinstance(error, _OF_A_HOST) and not isinstance(error, (Interrupted, Kept))


def _why(members: Iterable[Member]) -> str:
    return "; ".join(f"{member.words}: {member.aside}" for member in members)
