"""Choice of the results that a joined folder gets, and the reasons that forbid joining.

A replicate is one pass on one host, since ratios are paired within it. If two hosts have results of
one replicate, those of the host with more results are taken: a shard that continued on another
host repeated the replicate that was incomplete. If both have equally many, the first host by name
is taken. A replicate that is complete on two hosts is a conflict. So are two results of one trial
on one host, unless a folder has one of them among its earlier results, which it measured again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from virtbed.merging.sources import Measured, MergeError, Source, identity
from virtbed.platforms import Platforms
from virtbed_contract.kernel import machine
from virtbed_contract.sweep import PlannedTrial

_REMEDIES = {
    "plan": "a sweep has one plan; leave that folder out",
    "image": "measure with one image, or leave that folder out",
    "cells": "its host runs other cells of the plan; leave that folder out",
}
_ALIKE = "joined hosts must be alike; leave that folder out, and use virtbed compare"


@dataclass(frozen=True)
class Chosen:
    """The results that the joined folder gets.

    Attributes:
        results: The result of each trial that has one, by the trial's id.
        superseded: The reason for each result that is left out, by its trial's folder.
    """

    results: Mapping[str, Measured]
    superseded: Mapping[str, str] = field(default_factory=dict)


def unlike(sources: Sequence[Source], platforms: Platforms) -> Iterator[str]:
    """Yield a line per difference that forbids joining the folders."""
    first, *others = sources
    yield from _namesakes(sources)
    ours = identity(first.design, next(iter(first.reports.values())), platforms)
    rows = _rows(first)
    for other in others:
        for report in other.reports.values():
            theirs = identity(other.design, report, platforms)
            for key in [key for key in theirs if theirs[key] != ours.get(key)]:
                yield (
                    f"{other.folder}: {key} {theirs[key]} found, {ours.get(key)} in "
                    f"{first.folder}: {_REMEDIES.get(key, _ALIKE)}"
                )
        yield from _other_cells(first, other, rows)


def _namesakes(sources: Sequence[Source]) -> Iterator[str]:
    """Yield a line per host whose name belongs to another machine in an earlier folder."""
    machines: dict[str, tuple[Mapping[str, Any], Path]] = {}
    for source in sources:
        for host, report in source.reports.items():
            own = report.facts.get("machine") or {}
            known, folder = machines.setdefault(host, (own, source.folder))
            if by := machine.two_by(known, own):
                yield (
                    f"{source.folder}: {host} is another machine than {host} in {folder}, by "
                    f"{by}, and results are distinguished by the host's name: leave that "
                    "folder out; or call hostnamectl hostname NAME on one of them, and measure "
                    "there again"
                )


def _rows(source: Source) -> dict[int, dict[str, PlannedTrial]]:
    """Return the planned trials of a folder by replicate and id."""
    rows: dict[int, dict[str, PlannedTrial]] = defaultdict(dict)
    for row in source.design.trials:
        rows[row.replicate][row.id] = row
    return rows


def _other_cells(
    first: Source, other: Source, rows: dict[int, dict[str, PlannedTrial]]
) -> Iterator[str]:
    """Yield a line if a folder plans another trial than `rows`, to which its trials are added."""
    for replicate, theirs in _rows(other).items():
        ours = rows.get(replicate, theirs)
        apart = sorted({i for i in {*ours, *theirs} if ours.get(i) != theirs.get(i)})
        if apart and first.design.plan_digest == other.design.plan_digest:
            yield (
                f"{other.folder}: {apart[0]} is not planned as in {first.folder} (replicate "
                f"{replicate} has {len(theirs)} trials and {len(ours)}): {_REMEDIES['cells']}"
            )
            return
        rows.setdefault(replicate, theirs)


def choose(sources: Sequence[Source]) -> Chosen:
    """Return the results that the joined folder gets.

    Raises:
        MergeError: Folders have different results of one trial; the message has a line per
            conflict.
    """
    conflicts: list[str] = []
    planned: dict[int, set[str]] = defaultdict(set)
    # By replicate, host and trial.
    measured: dict[int, dict[str, dict[str, Measured]]] = defaultdict(lambda: defaultdict(dict))
    for source in sources:
        for row in source.design.trials:
            planned[row.replicate].add(row.id)
            new = source.results.get(row.id)
            if new is None:
                continue
            trials = measured[row.replicate][new.host]
            trials[row.id] = _one_of(row.id, trials.get(row.id), new, sources, conflicts)
    results: dict[str, Measured] = {}
    superseded: dict[str, str] = {}
    for replicate, hosts in sorted(measured.items()):
        host = _host_of(replicate, hosts, len(planned[replicate]), conflicts)
        results |= hosts[host]
        for other in hosts.keys() - {host}:
            for one in hosts[other].values():
                superseded[str(one.folder)] = (
                    f"replicate {replicate} is taken from {host}, which has "
                    f"{len(hosts[host])} of its {len(planned[replicate])} trials"
                )
    if conflicts:
        raise MergeError("\n".join(conflicts))
    return Chosen(results, superseded)


def _one_of(
    trial: str, old: Measured | None, new: Measured, sources: Sequence[Source],
    conflicts: list[str],
) -> Measured:  # fmt: skip
    """Return the newer of two results of a trial on one host; if unknown, note a conflict."""
    if old is None or old.digests == new.digests:
        return old or new
    if any(source.put_aside(trial, old.digests) for source in sources):
        return new
    if not any(source.put_aside(trial, new.digests) for source in sources):
        conflicts.append(
            f"{trial}: two results of host {new.host}, in {old.folder} (SHA-256 "
            f"{old.digests.result[:12]}) and {new.folder} ({new.digests.result[:12]}); leave one "
            "of the folders out"
        )
    return old


def _host_of(
    replicate: int, hosts: Mapping[str, Mapping[str, Measured]], whole: int, conflicts: list[str]
) -> str:
    """Return the host whose results of a replicate are taken; note a conflict if two have all."""
    most = max(map(len, hosts.values()))
    best = sorted(host for host, own in hosts.items() if len(own) == most)
    if len(best) > 1 and most == whole:
        folders = [next(iter(hosts[host].values())).folder.parents[1] for host in best]
        example = min(hosts[best[0]])
        conflicts.append(
            f"replicate {replicate}: all {whole} of its trials, such as {example}, have results "
            f"from {' and from '.join(best)}, in {' and '.join(map(str, folders))}; leave one of "
            "the folders out"
        )
    return best[0]
