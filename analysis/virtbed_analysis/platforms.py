"""The platforms of a sweep, from its design: order, wording, colours and marks in figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import cycle

from virtbed_contract.documents import BARE, Platform
from virtbed_contract.factors import MODES

METAL, PROCESS = BARE
# For platforms without a design: Okabe and Ito's palette, safe for colour-blind readers.
_COLOURS = ("#8a8a8a", "#e69f00", "#56b4e9", "#cc79a7", "#0072b2", "#d55e00", "#009e73")
_MARKS = ("s", "o", "D", "^", "v", "P", "X")
Parts = tuple[str, str]
"""Machine and enclosure of a platform."""


@dataclass(frozen=True)
class Platforms:
    """Platforms by name, in the order of reports."""

    entries: Mapping[str, Platform]

    @property
    def names(self) -> list[str]:
        """The names, in order."""
        return list(self.entries)

    @property
    def bare(self) -> str | None:
        """The name of the platform metal x process, the baseline; None without one."""
        return next((name for name, entry in self.entries.items() if _is_bare(entry)), None)

    def parts(self, name: str) -> Parts:
        """Return a platform's machine and enclosure."""
        return self.entries[name].machine, self.entries[name].enclosure

    def order(self, platform: str, mode: str) -> tuple[int, int]:
        """Return the sort key of a platform and mode in a report."""
        return self.names.index(platform), MODES.index(mode)

    def __or__(self, other: Platforms) -> Platforms:
        """Return these platforms, followed by those that only `other` has."""
        added = {name: entry for name, entry in other.entries.items() if name not in self.entries}
        return Platforms({**self.entries, **added})


def platforms_of(described: Iterable[Platform], found: Mapping[str, Parts]) -> Platforms:
    """Return the platforms of a sweep.

    Args:
        described: The platforms of its design, in order.
        found: Machine and enclosure of each platform that has a result. Those that the design does
            not describe follow the others: bare metal first, then in the given order.
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
