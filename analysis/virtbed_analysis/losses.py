"""How many trials of each cell gave no times to choose by, as a report's content tells."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from virtbed_analysis.cells import CELL, key_of
from virtbed_analysis.trust import Json
from virtbed_analysis.words import count
from virtbed_contract.factors import possible_ids

_Key = tuple[object, ...]
_LATE = re.compile(
    r"still running|tim(?:ed|e)[ -]?out|time limit|deadline|\bhung\b|no end within"
    r"|too (?:long|slow)",
    re.IGNORECASE,
)


def is_late(message: str) -> bool:
    """Return whether the message of a failure says that a trial was ended for being slow."""
    return bool(_LATE.search(message))


@dataclass
class Lost:
    """A cell's `measured` trials, and those that were lost: `late` of the `failed` for being slow.

    `invalid` ones were measured, and LoadGen calls them so.
    """

    measured: int = 0
    failed: int = 0
    late: int = 0
    rejected: int = 0
    invalid: int = 0

    def said(self) -> str:
        """Return what was lost, in words; empty if nothing was."""
        of = count(self.measured + self.failed + self.rejected, "trial")
        parts = [
            f"{self.failed} of {of} failed" if self.failed else "",
            f"{self.rejected} of {of} left a result not to be trusted" if self.rejected else "",
            f"LoadGen calls {self.invalid} of {of} INVALID" if self.invalid else "",
        ]
        return ", ".join(filter(None, parts))


def losses(content: Json, cells: Iterable[Json]) -> defaultdict[_Key, Lost]:
    """Return what each cell lost.

    Args:
        content: A report's content.
        cells: Its cells.
    """
    found: defaultdict[_Key, Lost] = defaultdict(Lost)
    owners: dict[str, set[_Key]] = {}
    for cell in cells:
        found[key_of(cell)].measured = cell["replicates"]
        for name in possible_ids({**cell, "replicate": 1}, cell["scenario"]):
            owners.setdefault(_without_replicate(name), set()).add(key_of(cell))

    def those_of(row: Json, trial: str) -> Iterator[Lost]:
        keys = owners.get(_without_replicate(trial), set())
        if row.get("cell"):  # else an id that could be of two scales counts for both
            keys = {key_of(row["cell"], CELL)}
        yield from (found[key] for key in keys)

    for row in content["failed"]:
        for own in those_of(row, row["trial"]):
            own.failed += 1
            own.late += is_late(row.get("message", ""))
    for row in content.get("rejected", []):
        parts = row["file"].split("/")
        if parts[0] == "trials" and parts[-1] == "result.json":
            for own in those_of(row, parts[1]):
                own.rejected += 1
    for row in content.get("loadgen", {}).get("trials", []):
        found[key_of(row)].invalid += not row.get("usable", True)
    return found


def _without_replicate(trial: str) -> str:
    return trial.rpartition("-r")[0]
