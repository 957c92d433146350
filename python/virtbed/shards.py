"""Shards of a sweep: equal shares of its replicates, each carried out by a separate call.

A shard consists of whole replicates, because ratios are computed within a replicate. Replicates are
dealt out in turn, so that more replicates do not move earlier ones to another shard. A shard has
one results folder per host. If it is continued on another host, the finished replicates stay in the
first host's folder, and the unfinished one is repeated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from virtbed.plan import Plan

_SHARD = re.compile(r"([1-9][0-9]{0,3})/([1-9][0-9]{0,3})", re.ASCII)
_NO_FOLDER = re.compile(r"[^A-Za-z0-9._-]")
"""Characters that a host's name may have but the name of a folder should not."""


class ShardError(ValueError):
    """A shard that the sweep does not have; the message says what was found and what is needed."""


@dataclass(frozen=True)
class Shard:
    """One of several shares of a sweep's replicates.

    Attributes:
        number: Its number, from 1 to `of`.
        of: Number of shards.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a shard, such as "2/3".

        Raises:
            ShardError: the text is no shard.

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
        """Return whether a replicate (numbered from 1) belongs to this shard."""
        return (replicate - self.number) % self.of == 0

    def name(self, sweep: str, host: str = "") -> str:
        """Return the name of its results folder on a host, as "quick.shard-2-of-3.node07"."""
        where = f".{_NO_FOLDER.sub('_', host)}" if host else ""
        return f"{sweep}.shard-{self.number}-of-{self.of}{where}"


def check_number(shards: int, plan: Plan) -> None:
    """Raise ShardError if a plan has fewer replicates than shards are requested."""
    if not 1 <= shards <= plan.replicates:
        raise ShardError(
            f"{shards} shards of {plan.replicates} replicates found, from 1 to {plan.replicates} "
            f"needed, since a shard is whole replicates: take fewer, or raise `replicates` of the "
            f"plan {plan.name}"
        )
