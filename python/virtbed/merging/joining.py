"""Joining results folders: files that the joined folder lacks are copied, each one atomically.

The folders that are read are not changed. If a call is killed, the next one completes its work; a
further call changes nothing.
"""

from __future__ import annotations

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
    not_started,
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
    """The outcome of a merge.

    Attributes:
        folder: The joined folder.
        trials: The number of trials that the joined folders plan.
        results: The number of them with a result.
        taken: The number of results that were taken from each folder.
        hosts: The hosts of the results.
        replicates: The plan's replicates that no joined folder plans.
        left_out: The reason for each result that was not taken, by its path.
        bad: The reason for each trial's folder without a valid result, by its path.
        unfinished: How many trials of each folder have no result yet, and why, in words.
        not_started: The folders without a design, whose tasks have not started.
    """

    folder: Path
    trials: int = 0
    results: int = 0
    taken: Counter[str] = field(default_factory=Counter)
    hosts: tuple[str, ...] = ()
    replicates: tuple[int, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)
    unfinished: dict[str, str] = field(default_factory=dict)
    not_started: tuple[Path, ...] = ()


def merge(into: Path, folders: Iterable[Path], platforms: Platforms) -> Merged:
    """Join results folders of one sweep.

    Args:
        into: The joined folder, which gets the results that it lacks; it is made if it does not
            exist.
        folders: The folders to read; one that is named twice is read once.
        platforms: The known platforms.

    Raises:
        MergeError: The folders do not belong to one sweep on hosts that are alike, or have
            different results of one trial. Nothing was written.
        LeaseError: Another process carries `into` out.
        OSError: `into` cannot be written.
    """
    into, others = into.resolve(), list(dict.fromkeys(folder.resolve() for folder in folders))
    if into in others:
        raise MergeError(f"{into} is also among the folders to join; name it once")
    if not others:
        raise MergeError("no folder to join found, at least one needed")
    is_new = not into.exists()
    if not is_new and not _is_ours(into) and any(map(_is_other, into.iterdir())):
        raise MergeError(f"{into} has other files than results; name a folder that is new or empty")
    into.mkdir(parents=True, exist_ok=True)
    with locked(into):
        try:
            joint = _judged(into, others, platforms)
        except MergeError:
            if is_new:
                shutil.rmtree(into)  # it holds only the lock
            raise
        return joint.write()


def _is_ours(folder: Path) -> bool:
    """Return whether a folder is a results folder."""
    return any(os.path.lexists(folder / part) for part in ("design.json", "trials"))


def _is_other(path: Path) -> bool:
    """Return whether a file is not one that a killed merge may have left."""
    return path.name not in {DOCTOR, REPORTS, "plan.yml"} and not path.name.startswith(".")


def _judged(into: Path, others: Iterable[Path], platforms: Platforms) -> _Joint:
    """Read and compare the folders; return what is to be written.

    Raises:
        MergeError: See `merge`.
    """
    if _is_of_several_hosts(into):
        raise MergeError(
            f"{into} was made by a sweep on several hosts, whose ledger knows which host runs "
            "which replicate, and a merge would replace it: name a new folder to merge into, and "
            "this one among the folders to join"
        )
    own = read_source(into) if _is_ours(into) else None
    if own and own.holder:
        raise MergeError(f"{into} is being carried out by {own.holder}; wait for its end")
    if own and own.bad:
        lines = (f"{into}/trials/{id_}: {why}; move it away" for id_, why in own.bad.items())
        raise MergeError("\n".join(lines))
    empty = [folder for folder in others if not_started(folder)]
    started = [folder for folder in others if folder not in empty]
    if not own and not started:
        started = empty  # whose reading is refused, with the reason
    sources = [*([own] if own else []), *map(read_source, started)]
    if reasons := list(unlike(sources, platforms)):
        raise MergeError("\n".join(reasons))
    return _Joint(into, sources, choose(sources), platforms, tuple(empty))


def _is_of_several_hosts(into: Path) -> bool:
    """Return whether a folder has the ledger of a sweep on several hosts."""
    try:
        return (into / NAME).exists() and ledger_view.shared_by_hosts(into / NAME)
    except LedgerError:
        return False


@dataclass
class _Joint:
    """Folders that can be joined, and the results that are taken from them."""

    into: Path
    sources: Sequence[Source]
    chosen: Chosen
    platforms: Platforms
    not_started: tuple[Path, ...]

    def write(self) -> Merged:
        """Write the documents, copy the missing files, and then write the ledger."""
        merged = Merged(self.into)
        reports = self._reports()
        self._plan()
        design = self._design(reports)
        # From now on the folder counts as a results folder; see `_is_ours`.
        _write_json(self.into / "design.json", encode(design))
        for place in map(Path, self.chosen.superseded):
            if place.parents[1] == self.into:
                self._forget()
                _aside(self.into, place)
                for other in self.into.glob(f"earlier/*/{place.name}"):
                    _aside(self.into, other)
        for trial, one in sorted(self.chosen.results.items()):
            if self._take(trial, one):
                merged.taken[str(one.folder.parents[1])] += 1
        self._earlier()
        failures = self._failures()
        self._ledger(design, reports, failures)
        return self._completed(merged, design)

    def _design(self, reports: Mapping[str, HostReport]) -> Design:
        """Return a design with the planned trials of all folders, and its hosts if several."""
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
        """Write the report of each host with results: of one into a file, of several into a folder.

        Without any result, the reports of all hosts are written. The first folder's report of a
        host is taken.
        """
        every: dict[str, HostReport] = {}
        for source in self.sources:
            every = {**source.reports, **every}
        measured = {one.host for one in self.chosen.results.values()}
        kept = {host: report for host, report in every.items() if host in measured or not measured}
        several = len(kept) > 1 or is_of_several(self.into)
        for host, report in kept.items():
            _write_json(self.into / (report_of(host) if several else DOCTOR), encode(report))
        if several:
            (self.into / DOCTOR).unlink(missing_ok=True)
        return kept

    def _plan(self) -> None:
        """Write the plan with the most replicates; the plans differ in nothing else."""
        plans = [source.folder / "plan.yml" for source in self.sources]
        existing = [plan for plan in plans if plan.is_file()]
        if existing:
            # Of several with equally many, the first, so that the joined folder's own plan stays.
            most = max(existing, key=_replicates)
            _copy_file(most, self.into / "plan.yml")

    def _take(self, trial: str, one: Measured) -> bool:
        """Copy a trial's files, its result last; return whether the joined folder lacked them."""
        folder = self.into / "trials" / trial
        if one.folder == folder:
            return False
        if (folder / "result.json").exists():  # the other folder has it among its earlier results
            self._forget()
            (folder / "result.json").unlink()
        _copy(one.folder, folder, one.digests)
        (folder / "failure.json").unlink(missing_ok=True)
        return True

    def _earlier(self) -> None:
        """Copy the earlier results of each trial that are from the same host as its result."""
        for source in self.sources:
            for (trial, attempt), before in source.earlier.items():
                one = self.chosen.results.get(trial)
                to = self.into / "earlier" / str(attempt) / trial
                if one and one.host == before.host and not (to / "result.json").exists():
                    _copy(before.folder, to, before.digests)

    def _failures(self) -> dict[str, Failure]:
        """Copy the last failure of each trial without a result; return all of them by trial."""
        latest: dict[str, tuple[Failure, Path]] = {}
        for source in self.sources:
            for trial, failure in source.failures.items():
                known = latest.get(trial)
                newer = known is None or failure.attempt > known[0].attempt
                if trial not in self.chosen.results and newer:
                    latest[trial] = failure, source.folder / "trials" / trial
        for trial, (_, place) in latest.items():
            _copy(place, self.into / "trials" / trial)
        return {trial: failure for trial, (failure, _) in latest.items()}

    def _ledger(
        self, design: Design, reports: Mapping[str, HostReport], failures: Mapping[str, Failure]
    ) -> None:
        """Write a ledger of the joined trials, unless the existing one has the same states."""
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
        if _states(path) == {(trial, status) for trial, status, *_ in rows}:
            return
        shared = identity(design, next(iter(reports.values())), self.platforms)
        # The joined names of several hosts match none of them, so that no sweep continues here.
        shared["host"] = ", ".join(sorted(reports))
        new = path.with_name(f".{NAME}.new")
        _remove(new)
        with Ledger(new) as ledger:
            ledger.begin(shared, [(row.id, row.position, row.platform) for row in design.trials])
            ledger.fill(rows)
        self._forget()
        new.replace(path)

    def _forget(self) -> None:
        """Remove the ledger before files change whose digests it knows.

        If this call is killed, the next one then checks each file itself.
        """
        _remove(self.into / NAME)

    def _completed(self, merged: Merged, design: Design) -> Merged:
        """Fill in the outcome."""
        merged.trials, merged.results = len(design.trials), len(self.chosen.results)
        merged.hosts = tuple(sorted({one.host for one in self.chosen.results.values()}))
        merged.left_out = dict(self.chosen.superseded)
        for source in self.sources:
            for trial, why in source.bad.items():
                merged.bad[str(source.folder / "trials" / trial)] = why
            if source.folder != self.into and (why := self._unfinished(source)):
                merged.unfinished[str(source.folder)] = why
        merged.not_started = self.not_started
        planned = {row.replicate for row in design.trials}
        every = range(1, _replicates(self.into / "plan.yml") + 1)
        merged.replicates = tuple(number for number in every if number not in planned)
        return merged

    def _unfinished(self, source: Source) -> str:
        """Return how many trials of a folder no folder has a result of; empty if none."""
        trials = {row.id for row in source.design.trials}
        missing = trials - self.chosen.results.keys()
        failed = len(missing & source.failures.keys())
        words = [f"{len(missing)} of {len(trials)} trials have no result yet"] if missing else []
        words += [f"{failed} of them failed"] if failed else []
        words += [f"it is being carried out by {source.holder}"] if source.holder else []
        return ", ".join(words)


def _replicates(plan: Path) -> int:
    """Return a plan's number of replicates; 0 if it cannot be read."""
    try:
        number = yaml_file.read(plan).get("replicates")
    except yaml_file.YamlError:
        return 0
    return number if type(number) is int else 0


def _remove(ledger: Path) -> None:
    """Remove a ledger with SQLite's files next to it."""
    for part in PARTS:
        ledger.with_name(ledger.name + part).unlink(missing_ok=True)


def _states(path: Path) -> set[tuple[str, str]]:
    """Return id and status of each trial in a ledger; empty if it cannot be read."""
    try:
        return {(row.id, row.status) for row in ledger_view.look(path).rows}
    except LedgerError:
        return set()


def _aside(sweep: Path, left: Path) -> None:
    """Move a trial's folder to aside/ID-N, as a sweep does before it repeats the trial."""
    number = 1
    while os.path.lexists(to := sweep / ASIDE / f"{left.name}-{number}"):
        number += 1
    to.parent.mkdir(exist_ok=True)
    left.rename(to)


def _copy(source: Path, target: Path, digests: Digests | None = None) -> None:
    """Copy a trial's files, result.json or failure.json last, since that one makes it count.

    Args:
        source: The trial's folder to read.
        target: The trial's folder to write.
        digests: The digests of the result's files; without them the trial's failure is copied.

    Raises:
        MergeError: A file was changed after it was checked.
    """
    if source == target:
        return
    needed = {"result.json": digests.result, "evidence.json": digests.evidence} if digests else {}
    files = [path for path in source.iterdir() if path.is_file() and not path.is_symlink()]
    skipped = "failure.json" if digests else "result.json"
    for path in sorted(
        files, key=lambda path: (path.name in ("result.json", "failure.json"), path)
    ):
        if path.name == skipped or path.name.startswith("."):
            continue
        target.mkdir(parents=True, exist_ok=True)
        _copy_file(path, target / path.name, needed.get(path.name))


def _copy_file(source: Path, target: Path, needed: str | None = None) -> None:
    """Copy a regular file atomically, in parts, unless the target has its content.

    Args:
        source: The file to read.
        target: The file to write.
        needed: The digest that it must have; None for any.

    Raises:
        MergeError: It has another digest, or is changed meanwhile.
        OSError: It is no regular file, or a file cannot be read or written.
    """
    found = records.digest(source)
    changed = MergeError(f"{source} was changed while it was merged; call again")
    if needed not in (None, found):
        raise changed

    def copy(temporary: Path) -> None:
        shutil.copyfile(source, temporary, follow_symlinks=False)
        if records.digest(temporary) != found:
            raise changed

    if not (target.is_file() and records.digest(target) == found):
        write_whole(target, copy)


def _write(path: Path, content: bytes) -> None:
    """Write a file atomically, unless it has this content."""
    if path.is_file() and path.read_bytes() == content:
        return
    write_whole(path, lambda temporary: temporary.write_bytes(content))


def _write_json(path: Path, document: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, "".join(records.lines(document)).encode())
