"""Kinds of core of a machine: which CPUs are alike, and which kind is the fastest.

Pure: what hwloc, the kernel and the processor report of CPUs in, `Kind`s out. `virtbed.hwloc` reads
it from hwloc's XML.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from virtbed_contract.kernel.topology import MONITORS

ALIKE = 0.9
"""Cores are of one kind if their clock rates and capacities differ by at most a tenth: some cores
may boost a little higher than others of the same kind."""


@dataclass(frozen=True)
class Kind:
    """One kind of core: all CPUs of that kind, and its description in words."""

    cpus: frozenset[int]
    words: str


@dataclass(frozen=True)
class Seen:
    """Some CPUs with the same properties, as hwloc and the processor report them.

    `level` is that of their last cache: a low-power core may lack the one that others share.
    """

    cpus: frozenset[int]
    type: str
    part: str
    level: str
    capacity: int
    max_mhz: int
    base_mhz: int

    def like(self, other: Seen) -> bool:
        """Return whether both are one kind of core."""
        rates = (
            (self.capacity, other.capacity),
            (self.max_mhz, other.max_mhz),
            (self.base_mhz, other.base_mhz),
        )
        own, others = ((each.type, each.part, each.level) for each in (self, other))
        return own == others and all(min(pair) >= ALIKE * max(pair) for pair in rates if all(pair))


def split(
    cpus: Iterable[int],
    reported: Mapping[int, tuple[str, str]],
    kind: str, capacity: int, top: int, base: int,
) -> Iterator[Seen]:  # fmt: skip
    """Split CPUs by what is `reported` of each: its part, and the level of its last cache."""
    of: dict[tuple[str, str], set[int]] = {}
    for cpu in sorted(cpus):
        of.setdefault(reported[cpu], set()).add(cpu)
    for (part, level), same in of.items():
        names = (part, "") if part in MONITORS.values() else (kind, part)
        yield Seen(frozenset(same), *names, level, capacity, top, base)


def order(seen: Sequence[Seen]) -> tuple[Kind, ...]:
    """Group CPUs into kinds of core.

    Args:
        seen: All CPUs, those with the same properties together.

    Returns:
        The kinds, the fastest first.
    """
    groups: list[list[Seen]] = []
    for one in seen:
        alike = [group for group in groups if any(one.like(other) for other in group)]
        groups = [group for group in groups if group not in alike]
        groups.append([one, *(other for group in alike for other in group)])
    # The core's type counts more than its clock rate: an efficient core may have a high limit.
    groups.sort(key=lambda group: min(min(each.cpus) for each in group))
    groups.sort(key=_speed, reverse=True)
    return tuple(
        Kind(frozenset().union(*(each.cpus for each in group)), _words(group)) for group in groups
    )


def _speed(group: list[Seen]) -> tuple[float, ...]:
    """Return the sort key of a kind of core; the greatest is the fastest."""
    return (
        math.inf if group[0].type == MONITORS["cpu_core"] else 0,
        max(each.capacity for each in group),
        max(each.max_mhz for each in group),
        max(each.base_mhz for each in group),
        int(group[0].level[1:] or 0),
    )


def _words(group: list[Seen]) -> str:
    """Return a kind of core in words: type, part number, capacity, clock rate."""
    first = group[0]
    parts = [first.type] if first.type else []
    parts += [f"part {first.part}"] if first.part else []
    for value, words in (
        (max(each.capacity for each in group), "capacity {}"),
        (max(each.max_mhz for each in group), "up to {} MHz"),
    ):
        parts += [words.format(value)] if value else []
    return ", ".join(parts)
