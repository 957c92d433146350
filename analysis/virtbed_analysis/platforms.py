"""The platforms of a sweep: their order, their words and their marks, from its design."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import cycle

from virtbed_contract.documents import BARE, Platform
from virtbed_contract.factors import MODES

METAL, PROCESS = BARE
# What a design does not describe: hues of Okabe and Ito's that all eyes can tell apart.
_COLOURS = ("#8a8a8a", "#e69f00", "#56b4e9", "#cc79a7", "#0072b2", "#d55e00", "#009e73")
_MARKS = ("s", "o", "D", "^", "v", "P", "X")
Parts = tuple[str, str]
"""A machine and an enclosure."""


@dataclass(frozen=True)
class Platforms:
    """Platforms by name, as reports list them."""

    entries: Mapping[str, Platform]

    @property
    def names(self) -> list[str]:
        """The names, in order."""
        return list(self.entries)

    @property
    def bare(self) -> str | None:
        """The platform that is metal x process: what the others are compared with."""
        return next((name for name, entry in self.entries.items() if _is_bare(entry)), None)

    def parts(self, name: str) -> Parts:
        """Return a platform's machine and enclosure."""
        return self.entries[name].machine, self.entries[name].enclosure

    def order(self, platform: str, mode: str) -> tuple[int, int]:
        """Return where a report lists a platform and a mode."""
        return self.names.index(platform), MODES.index(mode)

    def __or__(self, other: Platforms) -> Platforms:
        """Return these platforms, and after them those that only the other one has."""
        added = {name: entry for name, entry in other.entries.items() if name not in self.entries}
        return Platforms({**self.entries, **added})


def platforms_of(described: Iterable[Platform], found: Mapping[str, Parts]) -> Platforms:
    """Return the platforms of a sweep.

    Args:
        described: What its design says of platforms, in order.
        found: Machine and enclosure of each platform that has a result. Those that the design does
            not describe come after the others: bare metal first, then as they appear.
    """
    entries = {entry.name: entry for entry in described}
    rest = {name: parts for name, parts in found.items() if name not in entries}
    order = sorted(rest, key=lambda name: rest[name] != (METAL, PROCESS))
    for name, colour, mark in zip(order, cycle(_COLOURS), cycle(_MARKS), strict=False):
        machine, enclosure = rest[name]
        words = f"{enclosure} on {machine}"
        entries[name] = Platform(name, machine, enclosure, words, "not described", colour, mark)
    return Platforms(entries)


def _is_bare(entry: Platform) -> bool:
    return (entry.machine, entry.enclosure) == (METAL, PROCESS)
