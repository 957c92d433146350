"""Cells: what was measured, and which cell is the baseline of another.

The columns that make a cell come from the registry of factors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from virtbed_contract import factors
from virtbed_contract.factors import FACTORS

MATCHED = tuple(factor for factor in FACTORS if factor.baseline == "same")
"""Factors that bare metal has alike where another platform is compared with it."""
DEFAULTED = tuple(factor for factor in FACTORS if factor.baseline == "default")
"""Factors whose default bare metal has, whatever the other platform has."""

# What both sides of a ratio to bare metal have in common; with the rest it makes a cell.
SUBJECT = ["cores", "application", "scale", "scenario", *(factor.name for factor in MATCHED)]
CELL = ["platform", "mode", *(factor.name for factor in DEFAULTED), *SUBJECT]
PLAIN = {factor.name: factor.default for factor in DEFAULTED}
BASELINE_MODE = factors.BASELINE_MODE


def key_of(row: Mapping[str, Any], columns: list[str] = CELL) -> tuple[Any, ...]:
    """Return the values of the columns that identify a row's cell, or its subject."""
    return tuple(row[column] for column in columns)


def is_plain(row: Mapping[str, Any]) -> bool:
    """Return whether a row has the default of every factor that is compared with its default."""
    return all(row[name] == default for name, default in PLAIN.items())


class Cell(NamedTuple):
    """A plain cell: what was measured, where, and in which mode.

    Attributes:
        application: Its name.
        scale: Its scale; empty where measurements do not tell, as the published ones.
        scenario: LoadGen's scenario; empty in the same way.
        weights: Its weights; empty in the same way.
        factors: The value of each of `MATCHED`, in order.
        cores: CPUs of the instance.
        platform: Name of the platform.
        mode: How the share of CPUs is enforced.
    """

    application: str
    scale: str
    scenario: str
    weights: str
    factors: tuple[str, ...]
    cores: int
    platform: str
    mode: str

    @property
    def subject(self) -> tuple[Any, ...]:
        """All but size, platform and mode: what one curve has in common."""
        return self[:5]

    @property
    def settings(self) -> tuple[Any, ...]:
        """What comparable applications share: the subject without the application."""
        return self[1:5]

    def value(self, part: str) -> Any:
        """Return a part, or the value of a factor, by its name."""
        return self.factors[_PLACES[part]] if part in _PLACES else getattr(self, part)

    def having(self, **parts: Any) -> Cell:
        """Return the cell with other parts, or other values of factors."""
        return cell_of(self.row() | parts)

    def row(self) -> dict[str, Any]:
        """Return the cell as a flat row, as documents have it."""
        row = self._asdict()
        values = zip((factor.name for factor in MATCHED), row.pop("factors"), strict=True)
        return {**row, **dict(values)}


_PLACES = {factor.name: place for place, factor in enumerate(MATCHED)}
_PARTS = [part for part in Cell._fields if part != "factors"]
CURVE = [*_PARTS[:4], *(factor.name for factor in MATCHED), "platform", "mode"]
"""The columns of a row that make a curve: one subject on one platform in one mode."""


def cell_of(row: Mapping[str, Any]) -> Cell:
    """Return the plain cell of a row that has its parts flat."""
    values = tuple(str(row[factor.name]) for factor in MATCHED)
    return Cell(**{part: row[part] for part in _PARTS}, factors=values)


def rank(cell: Cell) -> tuple[Any, ...]:
    """Return where a list has a cell, apart from its platform and mode."""
    places = zip(MATCHED, cell.factors, strict=True)
    return (*cell[:4], *(factor.values.index(value) for factor, value in places), cell.cores)
