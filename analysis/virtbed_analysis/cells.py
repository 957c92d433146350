"""Cells: the columns that identify one, and which cell is another's baseline.

The columns come from the registry of factors (`virtbed_contract.factors`), so a new factor needs no
change here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from virtbed_contract import factors
from virtbed_contract.factors import FACTORS

MATCHED = tuple(factor for factor in FACTORS if factor.baseline == "same")
"""Factors whose value the bare-metal baseline shares with the cell that is compared with it."""
DEFAULTED = tuple(factor for factor in FACTORS if factor.baseline == "default")
"""Factors whose default the bare-metal baseline has, whatever the value of the compared cell."""

# SUBJECT: the columns that both sides of a ratio to bare metal share. CELL: all that identify one.
SUBJECT = ["cores", "application", "scale", "scenario", *(factor.name for factor in MATCHED)]
CELL = ["platform", "mode", *(factor.name for factor in DEFAULTED), *SUBJECT]
PLAIN = {factor.name: factor.default for factor in DEFAULTED}
BASELINE_MODE = factors.BASELINE_MODE


def key_of(row: Mapping[str, Any], columns: list[str] = CELL) -> tuple[Any, ...]:
    """Return a row's values of `columns`: its cell by default, or its subject with `SUBJECT`."""
    return tuple(row[column] for column in columns)


def is_plain(row: Mapping[str, Any]) -> bool:
    """Return whether a row has the default of every factor of `DEFAULTED`."""
    return all(row[name] == default for name, default in PLAIN.items())


class Cell(NamedTuple):
    """A plain cell (see `is_plain`), identified by its values.

    Attributes:
        application: Its name.
        scale: Its scale; empty if the measurements do not state it, as the published ones.
        scenario: LoadGen's scenario; empty likewise.
        weights: Its weights, "trained" or "seeded"; empty likewise.
        factors: The value of each of `MATCHED`, in order.
        cores: CPUs of the instance.
        platform: Name of the platform.
        mode: How the share of CPUs is enforced, "vanilla" or "pinned".
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
        """All but cores, platform and mode: the part that cells of one curve share."""
        return self[:5]

    @property
    def settings(self) -> tuple[Any, ...]:
        """The subject without the application: the part that comparable applications share."""
        return self[1:5]

    def value(self, part: str) -> Any:
        """Return the value of a field, or of a factor of `MATCHED`, by its name."""
        return self.factors[_PLACES[part]] if part in _PLACES else getattr(self, part)

    def having(self, **parts: Any) -> Cell:
        """Return a copy with other values of fields or of factors of `MATCHED`."""
        return cell_of(self.row() | parts)

    def row(self) -> dict[str, Any]:
        """Return the cell as a flat dictionary, one key per field or factor, as in documents."""
        row = self._asdict()
        values = zip((factor.name for factor in MATCHED), row.pop("factors"), strict=True)
        return {**row, **dict(values)}


_PLACES = {factor.name: place for place, factor in enumerate(MATCHED)}
_PARTS = [part for part in Cell._fields if part != "factors"]
CURVE = [*_PARTS[:4], *(factor.name for factor in MATCHED), "platform", "mode"]
"""The columns that identify a curve over cores: one subject on one platform in one mode."""


def cell_of(row: Mapping[str, Any]) -> Cell:
    """Return the `Cell` of a flat row."""
    values = tuple(str(row[factor.name]) for factor in MATCHED)
    return Cell(**{part: row[part] for part in _PARTS}, factors=values)


def rank(cell: Cell) -> tuple[Any, ...]:
    """Return a sort key of a cell by subject and cores, without platform and mode."""
    places = zip(MATCHED, cell.factors, strict=True)
    return (*cell[:4], *(factor.values.index(value) for factor, value in places), cell.cores)
