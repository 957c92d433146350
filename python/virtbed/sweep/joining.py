"""Whether a host may take part in a sweep of several: what all have in common, and what none may.

All of them run the same cells, or replicates would not be those of one sweep. They need not be
alike otherwise: the analysis pools those that are.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from virtbed.bench import Bench
from virtbed.plan import Plan
from virtbed.progress import minutes
from virtbed.sweep.admission import Admitted, common
from virtbed.sweep.interruption import SweepError
from virtbed_contract.codec import encode
from virtbed_contract.kernel import machine

CLOCK_APART_S = 60.0
_REMEDIES = {
    "image": "bring both the same image, or build both of the same sources",
    "accelerator": "virtbed doctor says of each why guests run as they do",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class UnfitError(SweepError):
    """A host that cannot take part in this sweep, however often it is asked."""


@dataclass
class Member:
    """One host of several.

    Attributes:
        bench: The host; its `name` is the inventory's.
        admitted: What its examination found; None before, and if it failed.
        aside: Why it does not take part; empty if it does, or may.
        unfit: Whether that is for good.
        takes_part: Whether it gets replicates.
        finished: Whether there was nothing left to do for it: what is wrong then is that it could
            not be put back.
        tries: How often in a row it was set aside.
        began: Whether an instance was, or was to be, made on it.
        clock_apart_s: How far its clock was ahead of this machine's as it was examined.
        held: Lets the host go when it is closed.
        first: What was wrong, before what followed from it.
    """

    bench: Bench
    admitted: Admitted | None = None
    aside: str = ""
    unfit: bool = False
    takes_part: bool = False
    finished: bool = False
    tries: int = 0
    began: bool = False
    clock_apart_s: float = 0.0
    held: ExitStack = field(default_factory=ExitStack)
    first: Exception | None = None

    @property
    def name(self) -> str:
        """Its name in the inventory."""
        return self.bench.name

    @property
    def own(self) -> str:
        """Its own name, by which results tell it from others."""
        assert self.admitted
        return self.admitted.report.host

    @property
    def own_name(self) -> str:
        """Its own name; empty where that is not known yet."""
        return self.admitted.report.host if self.admitted else ""

    def work(self, plan: Plan) -> tuple[object, ...]:
        """Return what it would run: equal on hosts that can share a sweep."""
        assert self.admitted
        trials = ((trial.id, trial.emulated) for trial in self.admitted.design.trials)
        return (*common(plan, self.admitted).values(), *trials)

    @property
    def words(self) -> str:
        """Its name, with its own where that is another."""
        own = self.own_name
        return f"{self.name} ({own})" if own and own != self.name else self.name

    def set_aside(self, error: Exception) -> None:
        """Let it take no part, for now or for good.

        What followed from an error, such as settings that cannot be put back on a host that was
        lost, is not its reason.
        """
        self.aside = str(self.first or error)
        self.unfit = isinstance(error, UnfitError)
        self.tries += 1
        self.first = None

    @contextmanager
    def kept_reason(self) -> Iterator[None]:
        """Keep the first error meanwhile: putting the host back may meet another one."""
        try:
            yield
        except Exception as error:
            self.first = error
            raise

    def examined(self, admitted: Admitted) -> None:
        """Keep what was found just now."""
        self.admitted = admitted
        clock_s = _machine(admitted).get("clock_s")
        self.clock_apart_s = clock_s - time.time() if isinstance(clock_s, float) else 0.0

    @property
    def clock_words(self) -> str:
        """Say that its clock is not this machine's; empty if it is."""
        if abs(self.clock_apart_s) <= CLOCK_APART_S:
            return ""
        side = "ahead of" if self.clock_apart_s > 0 else "behind"
        return (
            f"its clock is {minutes(abs(self.clock_apart_s))} {side} this machine's, "
            f"{minutes(CLOCK_APART_S)} at most expected: no time in a result is taken from it, but "
            "its own logs will not match; set it (timedatectl set-ntp true)"
        )


def check(plan: Plan, member: Member, reference: Member, others: list[Member]) -> None:
    """Raise UnfitError if a host may not take part.

    Args:
        plan: The plan.
        member: The host, which was admitted.
        reference: The host whose cells are the sweep's.
        others: Those that take part already.
    """
    assert member.admitted and reference.admitted
    if not _NAME.fullmatch(member.own):
        raise UnfitError(
            f"its own name is {member.own!r}, letters, digits, '.', '_' and '-' needed: files are "
            "named after it; hostnamectl hostname NAME there"
        )
    for other in others:
        if machine.are_one(_machine(member.admitted), _machine(other.admitted)):
            raise UnfitError(
                f"it is the same machine as {other.words}, by machine-id and boot id; name it once"
            )
        if member.own == other.own:
            raise UnfitError(
                f"its own name is {member.own}, as that of {other.name}: results are distinguished "
                "by it; hostnamectl hostname NAME on one of them"
            )
    asked = common(plan, reference.admitted)
    for key, value in common(plan, member.admitted).items():
        if value != asked[key]:
            remedy = _REMEDIES.get(key, "set both up again")
            raise UnfitError(
                f"{key} {value} found, {asked[key]} needed, as on {reference.words}; {remedy}, or "
                "leave one out (--limit)"
            )
    if why := next(_other_cells(member.admitted, reference.admitted), ""):
        raise UnfitError(
            f"it would not run the cells of {reference.words}: {why}; mend that, or leave one out "
            "(--limit)"
        )


def check_apart(member: Member) -> None:
    """Raise UnfitError if a host is this machine: what carries others out would be measured."""
    assert member.admitted
    mine = {**machine.identity(Path("/")), "host": os.uname().nodename}
    theirs = {**_machine(member.admitted), "host": member.own}
    if machine.are_one(theirs, mine) and theirs["host"] == mine["host"]:
        raise UnfitError(
            "it is this machine, which carries the sweep out on the others: that would be measured "
            "along with it; call virtbed on another machine, or measure this one alone (--limit)"
        )


def _machine(admitted: Admitted | None) -> Mapping[str, Any]:
    found = admitted.report.facts.get("machine") if admitted else None
    return found if isinstance(found, dict) else {}


def _other_cells(own: Admitted, reference: Admitted) -> Iterator[str]:
    """Give how a host's cells differ from another's."""
    ours, theirs = (
        {trial.id: encode(trial.planned()) for trial in one.design.trials}
        for one in (own, reference)
    )
    if ours == theirs:
        return
    rows = [(row.platform, row.mode, row.cores, row.reason) for row in reference.design.not_run]
    for row in own.design.not_run:
        if (row.platform, row.mode, row.cores, row.reason) not in rows:
            what = " ".join(str(part) for part in (row.platform, row.mode) if part)
            yield f"{what} is left out: {row.reason}; {row.remedy}"
    here = [(row.platform, row.mode, row.cores) for row in own.design.not_run]
    for row in reference.design.not_run:
        if (row.platform, row.mode, row.cores) not in here:
            what = " ".join(str(part) for part in (row.platform, row.mode) if part)
            yield f"it would run {what}, which is left out there: {row.reason}"
    yield f"{len(ours.keys() & theirs.keys())} of {len(theirs)} trials in common"
