"""What advice is asked: the application, the bounds, the prices."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from virtbed_analysis.errors import AnalysisError
from virtbed_analysis.files import read_csv
from virtbed_analysis.latency import LOADED
from virtbed_contract.sweep import MARGIN

PRICE_COLUMNS = ("platform", "cores", "processor", "price_per_hour")


@dataclass(frozen=True)
class Question:
    """What an instance is chosen for.

    `slo_ms` bounds the 99th percentile of an instance's latency; `prices` maps platform, cores and
    processor to the price of an hour. Empty `platforms` allows every one. `margin` is the share of
    time, or cost, that does not matter; None takes the plan's, or 3%.
    """

    application: str
    scale: str = "trained"
    scenario: str = "single_stream"
    slo_ms: float | None = None
    cores_max: int | None = None
    platforms: tuple[str, ...] = ()
    prices: dict[tuple[str, int, str], float] = field(default_factory=dict)
    margin: float | None = None

    @property
    def tolerance(self) -> float:
        """The margin, the default if none is asked."""
        return MARGIN if self.margin is None else self.margin

    @property
    def by_cores(self) -> bool:
        """Whether the fewest cores are sought: a bound is to be kept, and nothing has a price."""
        return self.slo_ms is not None and not self.prices

    @property
    def by_latency(self) -> bool:
        """Whether what is compared is the wait of a user, queue included, not the work done."""
        return self.scenario in LOADED and not self.prices


def read_prices(path: Path) -> dict[tuple[str, int, str], float]:
    """Return the prices of a CSV with the columns platform, cores, processor, price_per_hour.

    Raises:
        AnalysisError: it cannot be read, lacks a column, holds no positive price, or one twice.
    """
    table = read_csv(path, PRICE_COLUMNS)
    prices: dict[tuple[str, int, str], float] = {}
    for line, row in enumerate(table.iter_rows(named=True), start=2):
        try:
            key = row["platform"].strip(), int(row["cores"]), row["processor"].strip()
            price = float(row["price_per_hour"])
            if not 0 < price < float("inf"):
                raise ValueError
        except (AttributeError, TypeError, ValueError):
            found = ", ".join(str(row[name]) for name in PRICE_COLUMNS)
            raise AnalysisError(
                f"{path}: line {line} has {found}; a platform, a whole number of cores, a "
                "processor and a positive price needed"
            ) from None
        if key in prices:
            raise AnalysisError(f"{path}: line {line} gives {' '.join(map(str, key))} again")
        prices[key] = price
    return prices
