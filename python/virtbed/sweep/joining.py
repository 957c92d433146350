"""Membership of hosts in a sweep on several hosts: their state, and the checks before they join.

All hosts must run the same cells, so that their replicates belong to one sweep. Otherwise they may
differ: the analysis pools only hosts that are alike.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from virtbed.bench import Bench
from virtbed.plan import Plan
from virtbed.progress import minutes
from virtbed.sweep.admission import Admitted, common_identity
from virtbed.sweep.interruption import SweepError
from virtbed_contract.codec import encode
from virtbed_contract.kernel import machine

CLOCK_APART_S = 60.0
_REMEDIES = {
    "image": "copy the same image to both, or build both from the same sources",
    "accelerator": "call virtbed doctor on each, which states why guests are emulated there",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class UnfitError(SweepError):
    """A host that can never take part in this sweep, so that trying again is useless."""


@dataclass
class Member:
    """One host of several.

    Attributes:
        bench: The host; its `name` is that of the inventory.
        admitted: The admission of the plan to it; None before its examination, or if that failed.
        aside: Why it is set aside; empty if it is not.
        unfit: Whether it is set aside for good.
        takes_part: Whether it gets replicates.
        finished: Whether no replicate was left for it. An error after that means that the host
            could not be restored.
        tries: How often in a row it was set aside.
        began: Whether a block has started on it, so that an instance may exist.
        clock_apart_s: How far its clock was ahead of this machine's at its examination, in seconds.
        held: The claim on the host; closing it frees the host.
        first: The first error, when later ones may have followed from it.
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
    def hostname(self) -> str:
        """Its hostname, by which results distinguish hosts."""
        assert self.admitted
        return self.admitted.report.host

    def work(self, plan: Plan) -> tuple[object, ...]:
        """Return its identity and first replicate, which are equal on hosts of one sweep."""
        assert self.admitted
        first = takewhile(lambda trial: trial.replicate == 1, self.admitted.design.trials)
        trials = ((trial.id, trial.emulated) for trial in first)
        return (*common_identity(plan, self.admitted).values(), *trials)

    @property
    def label(self) -> str:
        """Its name in the inventory and, if it differs, its hostname in parentheses."""
        hostname = self.admitted.report.host if self.admitted else ""
        return f"{self.name} ({hostname})" if hostname not in ("", self.name) else self.name

    @property
    def identity(self) -> Mapping[str, Any]:
        """The identity of its machine from its report; empty if it is not known."""
        identity = self.admitted.report.facts.get("machine") if self.admitted else None
        return identity if isinstance(identity, dict) else {}

    def set_aside(self, error: Exception) -> None:
        """Set the host aside, for good if the error is an UnfitError.

        The reason is the first error, not one that followed from it, such as settings that cannot
        be restored on an unreachable host.
        """
        self.aside = str(self.first or error)
        self.unfit = isinstance(error, UnfitError)
        self.tries += 1
        self.first = None

    @contextmanager
    def kept_reason(self) -> Iterator[None]:
        """Keep an error of the context as the first one: restoring the host may raise another."""
        try:
            yield
        except Exception as error:
            self.first = error
            raise

    def examined(self, admitted: Admitted) -> None:
        """Keep the result of an examination that has just ended, and compare the clocks."""
        self.admitted = admitted
        clock_s = self.identity.get("clock_s")
        self.clock_apart_s = clock_s - time.time() if isinstance(clock_s, float) else 0.0

    @property
    def clock_warning(self) -> str:
        """A warning if its clock differs from this machine's; empty if it does not."""
        if abs(self.clock_apart_s) <= CLOCK_APART_S:
            return ""
        side = "ahead of" if self.clock_apart_s > 0 else "behind"
        return (
            f"its clock is {minutes(abs(self.clock_apart_s))} {side} this machine's, "
            f"{minutes(CLOCK_APART_S)} at most expected: results do not use it, but the times in "
            "the host's own logs will not match; set it (timedatectl set-ntp true)"
        )


def check(plan: Plan, member: Member, reference: Member, others: list[Member]) -> None:
    """Raise UnfitError if a host cannot take part.

    Args:
        plan: The plan.
        member: The host, which was admitted.
        reference: The host whose cells define the sweep.
        others: The hosts that take part already.
    """
    assert member.admitted and reference.admitted
    if not _NAME.fullmatch(member.hostname):
        raise UnfitError(
            f"its hostname is {member.hostname!r}, letters, digits, '.', '_' and '-' needed, since "
            "files are named after it; call hostnamectl hostname NAME there"
        )
    for other in others:
        if by := machine.one_by(member.identity, other.identity):
            raise UnfitError(
                f"it is the same machine as {other.label}, by {by}; name it once, or change that "
                "on one of them if they are two machines"
            )
        if member.hostname == other.hostname:
            raise UnfitError(
                f"its hostname is {member.hostname}, as is that of {other.name}: results are "
                "distinguished by it; call hostnamectl hostname NAME on one of them"
            )
    needed = common_identity(plan, reference.admitted)
    for key, value in common_identity(plan, member.admitted).items():
        if value != needed[key]:
            remedy = _REMEDIES.get(key, "set both up again")
            raise UnfitError(
                f"{key} {value} found, {needed[key]} needed, as on {reference.label}; {remedy}, or "
                "leave one out (--limit)"
            )
    if difference := next(_other_cells(member.admitted, reference.admitted), ""):
        raise UnfitError(
            f"it would not run the cells of {reference.label}: {difference}; resolve that, or "
            "leave one out (--limit)"
        )


def clones_warning(member: Member, others: Iterable[Member]) -> str:
    """Return a warning about hosts whose installed system is a copy of this one's; else empty."""
    cloned = [one.label for one in others if machine.are_cloned(member.identity, one.identity)]
    return (
        f"it is cloned: {' and '.join(cloned)} {'has' if len(cloned) == 1 else 'have'} its "
        "machine-id, on another machine. Sweeps tell them apart by boot id and the firmware's "
        "UUID; DHCP and logs may not (systemd-machine-id-setup makes a new one)"
        if cloned
        else ""
    )


def check_apart(member: Member) -> None:
    """Raise UnfitError if a host is this machine, whose work as a controller would be measured."""
    assert member.admitted
    mine = {**machine.identity(Path("/")), "host": os.uname().nodename}
    theirs = {**member.identity, "host": member.hostname}
    if machine.one_by(theirs, mine) and theirs["host"] == mine["host"]:
        raise UnfitError(
            "it is this machine, which is the controller of the sweep on the other hosts: that "
            "work would be measured along with it; call virtbed on another machine, or measure "
            "this one alone (--limit)"
        )


def _other_cells(own: Admitted, reference: Admitted) -> Iterator[str]:
    """Yield each difference between the cells of a host and those of another, in words."""
    if own.design.trials is reference.design.trials:
        return
    ours, theirs = (
        {trial.id: encode(trial.planned()) for trial in one.design.trials}
        for one in (own, reference)
    )
    if ours == theirs:
        return
    rows = [(row.platform, row.mode, row.cores, row.reason) for row in reference.design.not_run]
    for row in own.design.not_run:
        if (row.platform, row.mode, row.cores, row.reason) not in rows:
            cells = " ".join(str(part) for part in (row.platform, row.mode) if part)
            yield f"{cells} is left out: {row.reason}; {row.remedy}"
    own_rows = [(row.platform, row.mode, row.cores) for row in own.design.not_run]
    for row in reference.design.not_run:
        if (row.platform, row.mode, row.cores) not in own_rows:
            cells = " ".join(str(part) for part in (row.platform, row.mode) if part)
            yield f"it would run {cells}, which is left out there: {row.reason}"
    yield f"{len(ours.keys() & theirs.keys())} of {len(theirs)} trials in common"
