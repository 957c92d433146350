"""Number of trials per cell without usable times, computed from a report's content."""

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
    """Return whether the message of a failure shows that the trial hit a time limit."""
    return bool(_LATE.search(message))


@dataclass
class Lost:
    """Numbers of trials of one cell.

    Attributes:
        measured: Trials with a result.
        failed: Trials that failed.
        late: Those of the failed that hit a time limit.
        rejected: Trials whose result was left out.
        invalid: Measured trials that LoadGen calls INVALID.
    """

    measured: int = 0
    failed: int = 0
    late: int = 0
    rejected: int = 0
    invalid: int = 0

    def in_words(self) -> str:
        """Return the lost trials in words; "" if there are none."""
        of = count(self.measured + self.failed + self.rejected, "trial")
        parts = [
            f"{self.failed} of {of} failed" if self.failed else "",
            f"{self.rejected} of {of} left a result that cannot be trusted"
            if self.rejected
            else "",
            f"LoadGen calls {self.invalid} of {of} INVALID" if self.invalid else "",
        ]
        return ", ".join(filter(None, parts))


def losses(content: Json, cells: Iterable[Json]) -> defaultdict[_Key, Lost]:
    """Return the lost trials of each cell, by the cell's key.

    Args:
        content: The content of a report.
        cells: The cells of the report.
    """
    lost: defaultdict[_Key, Lost] = defaultdict(Lost)
    owners: dict[str, set[_Key]] = {}
    for cell in cells:
        lost[key_of(cell)].measured = cell["replicates"]
        for name in possible_ids({**cell, "replicate": 1}, cell["scenario"]):
            owners.setdefault(_without_replicate(name), set()).add(key_of(cell))

    def those_of(row: Json, trial: str) -> Iterator[Lost]:
        keys = owners.get(_without_replicate(trial), set())
        if row.get("cell"):  # without one, an id that fits two scales counts for both
            keys = {key_of(row["cell"], CELL)}
        yield from (lost[key] for key in keys)

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
        lost[key_of(row)].invalid += not row.get("usable", True)
    return lost


def _without_replicate(trial: str) -> str:
    return trial.rpartition("-r")[0]
