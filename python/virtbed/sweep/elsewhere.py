"""Replicates of a shard that another host has measured completely, as after a requeue.

They are not repeated if the hosts are alike, so that `virtbed merge` can join their results.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from virtbed.plan import Plan, PlanError
from virtbed.platforms import Platforms
from virtbed.shards import Shard
from virtbed.sweep.admission import Admitted, identity_from_report
from virtbed.sweep.judging import Judge
from virtbed.sweep.recording import DOCTOR
from virtbed.sweep.standing import BadResultError
from virtbed_contract import json_file
from virtbed_contract.codec import DocumentError, decode
from virtbed_contract.sweep import Design, HostReport, PlannedPlacement


@dataclass(frozen=True)
class Elsewhere:
    """A replicate of which another host's folder has a result of every trial.

    Attributes:
        folder: The folder.
        unlike: What makes that host unlike this one; empty if they are alike.
        bad: Which result is not valid, and why; empty if all are.
    """

    folder: Path
    unlike: str = ""
    bad: str = ""

    @property
    def usable(self) -> bool:
        """Whether the replicate need not be repeated."""
        return not (self.unlike or self.bad)


def whole_elsewhere(
    folder: Path, shard: Shard, plan: Plan, admitted: Admitted, document: Design,
    platforms: Platforms,
) -> dict[int, Elsewhere]:  # fmt: skip
    """Return the replicates with a result of every trial in another host's folder, by number.

    Args:
        folder: The shard's results folder on this host; those of other hosts are next to it.
        shard: The shard.
        plan: The plan.
        admitted: Its admission to this host.
        document: The shard's design on this host.
        platforms: The known platforms.
    """
    mine = _ids((trial.replicate, trial.id) for trial in document.trials)
    ours = _labels(plan, document, admitted.report, document.placements, platforms)
    complete: dict[int, Elsewhere] = {}
    for other in sorted(folder.parent.glob(f"{shard.name(document.sweep)}.*")):
        design = _planned(other, document) if other.name != folder.name else None
        if design is None:
            continue
        theirs = _ids((trial.replicate, trial.id) for trial in design.trials)
        unlike, host = _difference(ours, plan, other, design, platforms)
        judge = Judge(other, design, {host} if host else None)
        for replicate, ids in mine.items():
            known = complete.get(replicate)
            if theirs.get(replicate) != ids or (known and known.usable) or not _all(other, ids):
                continue
            complete[replicate] = Elsewhere(other, unlike, "" if unlike else _bad(judge, ids))
    return complete


def _labels(
    plan: Plan, design: Design, report: HostReport, placements: Iterable[PlannedPlacement],
    platforms: Platforms,
) -> dict[str, str]:  # fmt: skip
    """Return what must be alike on hosts whose results are joined, label and value."""
    return {
        **identity_from_report(plan, report, placements, platforms),
        "accelerator": str(design.accelerator),
        "CPU model": str(report.facts["cpu"].get("model")),
    }


def _difference(
    ours: Mapping[str, str], plan: Plan, folder: Path, design: Design, platforms: Platforms
) -> tuple[str, str]:
    """Return the first difference between this host and that of a folder, and its name.

    The difference is empty if they are alike, the name if the host's report cannot be used.
    """
    try:
        report = decode(HostReport, json_file.read(folder / DOCTOR), "the host's report")
        theirs = _labels(plan, design, report, design.placements, platforms)
    except (DocumentError, PlanError, KeyError, TypeError, AttributeError) as error:
        return f"{DOCTOR} cannot be used: {error}", ""
    for label, value in ours.items():
        if label != "host" and theirs.get(label) != value:
            return f"{label} {theirs.get(label)} there, {value} here", report.host
    return "", report.host


def _ids(rows: Iterable[tuple[int, str]]) -> dict[int, set[str]]:
    """Return the ids of trials by replicate."""
    ids: dict[int, set[str]] = {}
    for replicate, name in rows:
        ids.setdefault(replicate, set()).add(name)
    return ids


def _planned(folder: Path, design: Design) -> Design | None:
    """Return the design of a folder; None if it has none, or another plan or image."""
    try:
        other = decode(Design, json_file.read(folder / "design.json"), "design.json")
    except DocumentError:
        return None
    same = (other.plan_digest, other.image_digest) == (design.plan_digest, design.image_digest)
    return other if same else None


def _all(folder: Path, ids: Iterable[str]) -> bool:
    """Return whether a folder has a file of a result of each of these trials."""
    return all((folder / "trials" / name / "result.json").is_file() for name in ids)


def _bad(judge: Judge, ids: Iterable[str]) -> str:
    """Return the first of these trials whose result is not valid, and why; empty if all are."""
    for name in sorted(ids):
        try:
            judge.check(judge.folder / "trials" / name)
        except BadResultError as error:
            return f"{name}: {error}"
    return ""
