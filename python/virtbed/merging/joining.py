"""Folders joined into one: what is missing there is copied, whole or not at all; nothing is moved.

A call that is killed is finished by the next, and one more changes nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from virtbed import ledger_view, records, yaml_file
from virtbed.lease import locked
from virtbed.ledger import NAME, PARTS, Digests, Ledger, LedgerError
from virtbed.merging.choosing import Chosen, choose, unlike
from virtbed.merging.sources import (
    Measured,
    MergeError,
    Source,
    identity,
    placements,
    read_source,
)  # fmt: skip
from virtbed.platforms import Platforms
from virtbed.sweep.recording import DOCTOR
from virtbed.sweep.several import REPORTS, is_of_several, report_of
from virtbed.sweep.standing import ASIDE
from virtbed_contract.codec import encode
from virtbed_contract.kernel.files import write_whole
from virtbed_contract.sweep import Design, Failure, HostReport, PlannedHost

_Row = tuple[str, str, int, str, Digests | None]


@dataclass
class Merged:
    """What a merge did.

    Attributes:
        folder: The joined folder.
        trials: How many trials are planned in what was joined so far.
        results: How many of them have a result.
        taken: How many results were taken from each folder.
        hosts: The hosts of the results.
        replicates: The plan's replicates of which no folder has a plan for a trial.
        left_out: Results that were not taken, with the reason, by their place.
        bad: What is no good result, with the reason, by its place.
        running: Who carries a folder out that was joined so far, by the folder.
    """

    folder: Path
    trials: int = 0
    results: int = 0
    taken: Counter[str] = field(default_factory=Counter)
    hosts: tuple[str, ...] = ()
    replicates: tuple[int, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)
    running: dict[str, str] = field(default_factory=dict)


def merge(into: Path, folders: Iterable[Path], platforms: Platforms) -> Merged:
    """Join results folders of one sweep.

    Args:
        into: The folder that gets what it lacks; it is made if it is not there.
        folders: Those that are read; a folder that is named twice is read once.
        platforms: The platforms that there are.

    Raises:
        MergeError: the folders are not of one sweep on hosts that are alike, or have different
            results of one trial. Nothing was written.
        LeaseError: `into` is being carried out.
        OSError: `into` cannot be written.
    """
    into, others = into.resolve(), list(dict.fromkeys(folder.resolve() for folder in folders))
    if into in others:
        raise MergeError(f"{into} is among the folders that it is to be made of; name it once")
    if not others:
        raise MergeError("no folder found that is to be joined, one needed")
    made = not into.exists()
    if not made and not _is_ours(into) and any(map(_is_other, into.iterdir())):
        raise MergeError(f"{into} has other files than results; name a folder that is new or empty")
    into.mkdir(parents=True, exist_ok=True)
    with locked(into):
        try:
            joint = _judged(into, others, platforms)
        except MergeError:
            if made:
                shutil.rmtree(into)  # there is nothing but the lock
            raise
        return joint.write()


def _is_ours(folder: Path) -> bool:
    return any(os.path.lexists(folder / part) for part in ("design.json", "trials"))


def _is_other(path: Path) -> bool:
    """Return whether something is not what a merge that was killed may have left."""
    return path.name not in {DOCTOR, REPORTS, "plan.yml"} and not path.name.startswith(".")


def _judged(into: Path, others: Iterable[Path], platforms: Platforms) -> _Joint:
    """Return what is to be written, unless something speaks against it.

    Raises:
        MergeError: see `merge`.
    """
    own = read_source(into) if _is_ours(into) else None
    if own and own.holder:
        raise MergeError(f"{into} is being carried out by {own.holder}; wait for its end")
    if own and own.bad:
        lines = (f"{into}/trials/{name}: {why}; move it away" for name, why in own.bad.items())
        raise MergeError("\n".join(lines))
    sources = [*([own] if own else []), *map(read_source, others)]
    if reasons := list(unlike(sources, platforms)):
        raise MergeError("\n".join(reasons))
    return _Joint(into, sources, choose(sources), platforms)


@dataclass
class _Joint:
    """Folders that can be joined, and what is taken of each."""

    into: Path
    sources: Sequence[Source]
    chosen: Chosen
    platforms: Platforms

    def write(self) -> Merged:
        """Copy what is missing, then write the documents and the ledger."""
        done = Merged(self.into)
        reports = self._reports()
        self._plan()
        design = self._design(reports)
        _write_json(self.into / "design.json", encode(design))  # which makes it a results folder
        for place in map(Path, self.chosen.superseded):
            if place.parents[1] == self.into:
                self._forget()
                _aside(self.into, place)
                for other in self.into.glob(f"earlier/*/{place.name}"):
                    _aside(self.into, other)
        for trial, one in sorted(self.chosen.results.items()):
            if self._take(trial, one):
                done.taken[str(one.folder.parents[1])] += 1
        self._earlier()
        failures = self._failures()
        self._ledger(design, reports, failures)
        return self._said(done, design)

    def _design(self, reports: Mapping[str, HostReport]) -> Design:
        """Return the design of all that the folders plan, with its hosts if they are several."""
        rows = {row.id: row for source in self.sources for row in source.design.trials}
        commits = dict.fromkeys(c for source in self.sources for c in source.design.commits)
        trials = tuple(sorted(rows.values(), key=lambda row: row.position))
        whole = replace(self.sources[0].design, trials=trials, commits=tuple(commits))
        own = {h: placements(s.design, h) for s in reversed(self.sources) for h in s.reports}
        if is_of_several(self.into):
            hosts = tuple(PlannedHost(host, own[host]) for host in sorted(reports))
            return replace(whole, placements=(), hosts=hosts)
        return replace(whole, placements=own[next(iter(reports))], hosts=())

    def _reports(self) -> dict[str, HostReport]:
        """Write the report of each host: of one where a sweep has it, of several in a folder."""
        every: dict[str, HostReport] = {}
        for source in self.sources:
            every = {**source.reports, **every}
        having = {one.host for one in self.chosen.results.values()}
        found = {host: report for host, report in every.items() if host in having or not having}
        several = len(found) > 1 or is_of_several(self.into)
        for host, report in found.items():
            _write_json(self.into / (report_of(host) if several else DOCTOR), encode(report))
        if several:
            (self.into / DOCTOR).unlink(missing_ok=True)
        return found

    def _plan(self) -> None:
        """Write the plan with the most replicates; what else it says is the same in all."""
        plans = [source.folder / "plan.yml" for source in self.sources]
        found = [plan for plan in plans if plan.is_file()]
        if found:
            most = max(found, key=_replicates)  # the first of several: that of the folder itself
            _write(self.into / "plan.yml", most.read_bytes())

    def _take(self, trial: str, one: Measured) -> bool:
        """Copy a trial's files, its result last; return whether it was not there before."""
        folder = self.into / "trials" / trial
        if one.folder == folder:
            return False
        if (folder / "result.json").exists():  # the other folder has it, put aside
            self._forget()
            (folder / "result.json").unlink()
        _copy(one.folder, folder, one.digests)
        (folder / "failure.json").unlink(missing_ok=True)
        return True

    def _earlier(self) -> None:
        """Copy the results that were put aside of trials whose result was taken of that host."""
        for source in self.sources:
            for (trial, attempt), before in source.earlier.items():
                one = self.chosen.results.get(trial)
                to = self.into / "earlier" / str(attempt) / trial
                if one and one.host == before.host and not (to / "result.json").exists():
                    _copy(before.folder, to, before.digests)

    def _failures(self) -> dict[str, Failure]:
        """Copy the last failure of each trial without a result; return all of them."""
        found: dict[str, tuple[Failure, Path]] = {}
        for source in self.sources:
            for trial, failure in source.failures.items():
                last = found.get(trial)
                newer = last is None or failure.attempt > last[0].attempt
                if trial not in self.chosen.results and newer:
                    found[trial] = failure, source.folder / "trials" / trial
        for trial, (_, place) in found.items():
            _copy(place, self.into / "trials" / trial)
        return {trial: failure for trial, (failure, _) in found.items()}

    def _ledger(
        self, design: Design, reports: Mapping[str, HostReport], failures: Mapping[str, Failure]
    ) -> None:
        """Write a ledger of what is there, unless the one there says the same."""
        rows: list[_Row] = []
        for row in design.trials:
            one, failure = self.chosen.results.get(row.id), failures.get(row.id)
            if one:
                rows.append((row.id, "done", one.attempt, "", one.digests))
            elif failure:
                rows.append((row.id, "failed", failure.attempt, failure.message, None))
            else:
                rows.append((row.id, "todo", 0, "", None))
        path = self.into / NAME
        if _says(path) == {(trial, status) for trial, status, *_ in rows}:
            return
        same = identity(design, next(iter(reports.values())), self.platforms)
        same["host"] = ", ".join(sorted(reports))  # of several none can go on
        new = path.with_name(f".{NAME}.new")
        _remove(new)
        with Ledger(new) as ledger:
            ledger.begin(same, [(row.id, row.position, row.platform) for row in design.trials])
            ledger.fill(rows)
        self._forget()
        new.replace(path)

    def _forget(self) -> None:
        """Remove the ledger, which knows files by their digests: without one each is judged."""
        _remove(self.into / NAME)

    def _said(self, done: Merged, design: Design) -> Merged:
        done.trials, done.results = len(design.trials), len(self.chosen.results)
        done.hosts = tuple(sorted({one.host for one in self.chosen.results.values()}))
        done.left_out = dict(self.chosen.superseded)
        for source in self.sources:
            for trial, why in source.bad.items():
                done.bad[str(source.folder / "trials" / trial)] = why
            if source.holder:
                done.running[str(source.folder)] = source.holder
        planned = {row.replicate for row in design.trials}
        every = range(1, _replicates(self.into / "plan.yml") + 1)
        done.replicates = tuple(number for number in every if number not in planned)
        return done


def _replicates(plan: Path) -> int:
    try:
        found = yaml_file.read(plan).get("replicates")
    except yaml_file.YamlError:
        return 0
    return found if type(found) is int else 0


def _remove(ledger: Path) -> None:
    for part in PARTS:
        ledger.with_name(ledger.name + part).unlink(missing_ok=True)


def _says(path: Path) -> set[tuple[str, str]]:
    try:
        return {(row.id, row.status) for row in ledger_view.look(path).rows}
    except LedgerError:
        return set()


def _aside(sweep: Path, left: Path) -> None:
    """Move what a trial left aside, as a sweep does with what it repeats."""
    number = 1
    while os.path.lexists(to := sweep / ASIDE / f"{left.name}-{number}"):
        number += 1
    to.parent.mkdir(exist_ok=True)
    left.rename(to)


def _copy(there: Path, here: Path, digests: Digests | None = None) -> None:
    """Copy a trial's files, the one whose presence counts last.

    Raises:
        MergeError: a file is not what was judged: it was changed meanwhile.
    """
    if there == here:
        return
    needed = {"result.json": digests.result, "evidence.json": digests.evidence} if digests else {}
    files = [path for path in there.iterdir() if path.is_file() and not path.is_symlink()]
    skipped = "failure.json" if digests else "result.json"
    for path in sorted(
        files, key=lambda path: (path.name in ("result.json", "failure.json"), path)
    ):
        if path.name == skipped or path.name.startswith("."):
            continue
        content = path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != needed.get(path.name, found):
            raise MergeError(f"{path} was changed meanwhile; call again")
        here.mkdir(parents=True, exist_ok=True)
        _write(here / path.name, content)


def _write(path: Path, content: bytes) -> None:
    """Write a file whole, unless it has this content."""
    if path.is_file() and path.read_bytes() == content:
        return
    write_whole(path, lambda temporary: temporary.write_bytes(content))


def _write_json(path: Path, document: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, "".join(records.lines(document)).encode())
