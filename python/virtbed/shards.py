"""Shards of a sweep: equal shares of its replicates, each carried out by a call of its own.

A shard is whole replicates, since ratios are made within one. They are dealt out in turn, so that
more replicates leave those before in the shard where they were. Each shard has a results folder per
host: one that goes on elsewhere leaves what is there, and repeats the replicate that it was in the
middle of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from virtbed.plan import Plan
from virtbed_contract import json_file
from virtbed_contract.codec import DocumentError, decode
from virtbed_contract.sweep import Design

_SHARD = re.compile(r"([1-9][0-9]{0,3})/([1-9][0-9]{0,3})", re.ASCII)
_NO_FOLDER = re.compile(r"[^A-Za-z0-9._-]")
"""What a host's name may have, and the name of a folder should not."""


class ShardError(ValueError):
    """A share that a sweep does not have; the message says what was found and what is needed."""


@dataclass(frozen=True)
class Shard:
    """One of several shares of a sweep's replicates: `number` of 1 to `of`."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "2/3".

        Raises:
            ShardError: it is none.

        Example:
            >>> Shard.parse("2/3")
            Shard(number=2, of=3)
        """
        match = _SHARD.fullmatch(text)
        if match is None or int(match[1]) > int(match[2]):
            raise ShardError(
                f"shard {text[:40]!r} found, NUMBER/OF with a number from 1 to OF needed, such as "
                "2/3"
            )
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def has(self, replicate: int) -> bool:
        """Return whether a replicate, from 1, belongs to it."""
        return (replicate - self.number) % self.of == 0

    def name(self, sweep: str, host: str = "") -> str:
        """Return the name of its results folder on a host: "quick.shard-2-of-3.node07"."""
        where = f".{_NO_FOLDER.sub('_', host)}" if host else ""
        return f"{sweep}.shard-{self.number}-of-{self.of}{where}"


def check_number(shards: int, plan: Plan) -> None:
    """Raise ShardError if a plan has fewer replicates than there are to be shards."""
    if not 1 <= shards <= plan.replicates:
        raise ShardError(
            f"{shards} shards of {plan.replicates} replicates found, from 1 to {plan.replicates} "
            f"needed, since a shard is whole replicates: take fewer, or raise `replicates` of the "
            f"plan {plan.name}"
        )


def whole_elsewhere(folder: Path, shard: Shard, design: Design) -> dict[int, Path]:
    """Return the replicates of which another host has every result, each with that host's folder.

    Args:
        folder: The shard's results folder on this host; those of other hosts lie next to it.
        shard: The shard.
        design: Its design on this host.
    """
    mine = _ids((trial.replicate, trial.id) for trial in design.trials)
    found: dict[int, Path] = {}
    for other in sorted(folder.parent.glob(f"{shard.name(design.sweep)}.*")):
        theirs = _planned(other, design) if other.name != folder.name else {}
        for replicate, ids in mine.items():
            if theirs.get(replicate) == ids and replicate not in found and _all_there(other, ids):
                found[replicate] = other
    return found


def _ids(rows: Iterable[tuple[int, str]]) -> dict[int, set[str]]:
    ids: dict[int, set[str]] = {}
    for replicate, name in rows:
        ids.setdefault(replicate, set()).add(name)
    return ids


def _planned(folder: Path, design: Design) -> dict[int, set[str]]:
    """Return the trials of a folder by replicate; none if it is not of this plan and image."""
    try:
        found = decode(Design, json_file.read(folder / "design.json"), "design.json")
    except DocumentError:
        return {}
    if (found.plan_digest, found.image_digest) != (design.plan_digest, design.image_digest):
        return {}
    return _ids((trial.replicate, trial.id) for trial in found.trials)


def _all_there(folder: Path, ids: Iterable[str]) -> bool:
    return all((folder / "trials" / name / "result.json").is_file() for name in ids)
