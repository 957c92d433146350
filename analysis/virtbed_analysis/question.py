"""The question that `advise` answers: application, bounds and prices."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from virtbed_analysis.errors import AnalysisError
from virtbed_analysis.files import read_csv
from virtbed_contract.counts import count
from virtbed_contract.factors import SCENARIOS
from virtbed_contract.measures import JUDGED_BY, Judged
from virtbed_contract.sweep import MARGIN

WORK = JUDGED_BY[SCENARIOS[0]]
"""The measure of a request's own time, without the queue."""
PRICE_COLUMNS = ("platform", "cores", "processor", "price_per_hour")


@dataclass(frozen=True)
class Question:
    """What an instance is chosen for; see `advise`.

    Attributes:
        application: The name of the application.
        scale: Its scale.
        scenario: LoadGen's scenario.
        slo_ms: Bound on the 99th percentile of an instance's latency, in ms; None without one.
        cores_max: The largest number of cores; None for any.
        platforms: The allowed platforms; empty for all.
        prices: Price per hour by (platform, cores, processor); empty to compare by time.
        margin: The share of time or cost that does not matter; None for the plan's, or 3%.

    Raises:
        AnalysisError: a value is out of range, or a bound on latency is set for offline.

    Example:
        >>> Question("image_classification", slo_ms=50).by_cores
        True
    """

    application: str
    scale: str = "trained"
    scenario: str = "single_stream"
    slo_ms: float | None = None
    cores_max: int | None = None
    platforms: tuple[str, ...] = ()
    prices: dict[tuple[str, int, str], float] = field(default_factory=dict)
    margin: float | None = None

    def __post_init__(self) -> None:
        if self.scenario not in JUDGED_BY:
            raise AnalysisError(
                f"--scenario {self.scenario!r} found, one of {', '.join(JUDGED_BY)} needed"
            )
        bounds = {
            "--slo-ms": (self.slo_ms, "a bound in ms, 0 or more"),
            "--margin": (self.margin, "a share, 0 or more"),
            "--cores-max": (self.cores_max, "a number of cores, 0 or more"),
        }
        for name, (value, needed) in bounds.items():
            if value is not None and not 0 <= value < math.inf:
                raise AnalysisError(f"{name} {value:g} found, {needed}, needed")
        for (platform, cores, processor), price in self.prices.items():
            if not 0 < price < math.inf:
                raise AnalysisError(
                    f"a price of {price:g} found for {platform} with {count(cores, 'core')} on "
                    f"{processor}, a positive one needed: a free instance is the "
                    "cheapest without measuring"
                )
        if self.slo_ms is not None and JUDGED_BY[self.scenario].name == "throughput":
            raise AnalysisError(
                f"a bound of {self.slo_ms:g} ms found for {self.scenario}, which issues all "
                "samples at once and has no latency to bound; leave out --slo-ms, or choose "
                "another --scenario"
            )

    @property
    def tolerance(self) -> float:
        """The margin, or the default if none is set."""
        return MARGIN if self.margin is None else self.margin

    @property
    def by_cores(self) -> bool:
        """Whether the fewest cores are sought: there is a bound, and there are no prices."""
        return self.slo_ms is not None and not self.prices

    @property
    def compared(self) -> Judged:
        """The measure that cells are compared by: that of the scenario.

        With prices, latency is replaced by the e2e time, since waiting in a queue costs nothing.
        """
        measure = JUDGED_BY[self.scenario]
        return WORK if self.prices and measure.name == "latency" else measure


def read_prices(path: Path) -> dict[tuple[str, int, str], float]:
    """Read prices from a CSV file with the columns platform, cores, processor, price_per_hour.

    Returns:
        Prices per hour by (platform, cores, processor).

    Raises:
        AnalysisError: the file cannot be read, lacks a column, or has an invalid or repeated row.

    Example:
        >>> read_prices(Path("prices.csv"))
        {('bm', 1, 'cpu'): 0.2, ('cn', 1, 'cpu'): 0.05}
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
