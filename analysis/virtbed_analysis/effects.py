"""The cost of one cell over another as an effect with an interval.

A unit is a sweep's replicate, or, where each input was run once, the input. Cells are paired by
unit and, within one, by input; each unit gives one difference of logarithms. The interval is
Student's t on the units' differences (Welch's, with Satterthwaite's degrees of freedom, where an
effect is a sum of several that are taken as independent), and the intervals of one question are
simultaneous: each of k is made at 1 - (1 - confidence) / k (Bonferroni), so that none is picked for
being extreme.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from virtbed_analysis.cells import BASELINE_MODE, MATCHED, PLAIN, Cell, cell_of, rank
from virtbed_analysis.estimate import judged, steady
from virtbed_analysis.intervals import CONFIDENCE, mean_interval
from virtbed_analysis.platforms import Parts, Platforms
from virtbed_analysis.reduction import log_mean

Floats = NDArray[np.float64]
_MOST = 700.0  # exp of more is no number any more


@dataclass(frozen=True)
class Units:
    """Logarithms of seconds by cell and unit: an array of inputs, sorted, and one of their values.

    `pre_post` is the share of pre- and post-processing in a request's time, by cell, as far as it
    was measured. `unit` says in words what a unit is. Costs are against bare metal of
    `metal_mode`, at every size.
    """

    logs: Mapping[Cell, Mapping[str, tuple[NDArray[np.str_], Floats]]]
    unit: str
    pre_post: Mapping[Cell, float]
    platforms: Platforms
    metal_mode: str = BASELINE_MODE

    def cells(self, parts: Parts | None = None, **wanted: str | int) -> list[Cell]:
        """Return the measured cells that have these parts or factors, as a report lists them.

        Args:
            parts: Machine and enclosure; None for every platform.
            **wanted: Parts of a `Cell`, or values of factors.
        """
        found = (
            cell
            for cell in self.logs
            if parts in (None, self.platforms.parts(cell.platform))
            and all(cell.value(key) == value for key, value in wanted.items())
        )
        return sorted(found, key=self.order)

    def order(self, cell: Cell) -> tuple[object, ...]:
        """Return where a report lists a cell."""
        return (*rank(cell), *self.platforms.order(cell.platform, cell.mode))

    def is_bare(self, cell: Cell) -> bool:
        """Return whether a cell is of bare metal, in either mode."""
        return cell.platform == self.platforms.bare

    def baseline(self, cell: Cell) -> Cell:
        """Return bare metal at a cell's size; a cell without logarithms if there is none."""
        return cell._replace(platform=self.platforms.bare or "", mode=self.metal_mode)

    def elsewhere(self, cell: Cell, parts: Parts) -> list[Cell]:
        """Return a cell's like on each platform that has this machine and enclosure."""
        names = (name for name in self.platforms.names if self.platforms.parts(name) == parts)
        return [cell._replace(platform=name) for name in names]

    def contrast(self, *terms: tuple[float, Cell]) -> Floats | None:
        """Return the sum of weighted logarithms, one per unit that all cells share; None without.

        A unit's is of the mean time over the inputs that all cells have in it: see `reduction`.
        """
        sides = [self.logs.get(cell, {}) for _, cell in terms]
        weights = np.array([weight for weight, _ in terms])
        common = sorted(set.intersection(*(set(side) for side in sides)))
        means = [_mean(weights, [side[unit] for side in sides]) for unit in common]
        kept = [mean for mean in means if mean is not None]
        return np.array(kept) if kept else None

    def over(self, above: Cell, below: Cell) -> Floats | None:
        """Return the logarithms of one cell's time over another's, one per shared unit."""
        return self.contrast((1.0, above), (-1.0, below))

    def cost(self, cell: Cell) -> Floats | None:
        """Return the logarithms of a cell's time over bare metal's at its size."""
        return self.over(cell, self.baseline(cell))


def _mean(weights: Floats, sides: list[tuple[NDArray[np.str_], Floats]]) -> float | None:
    inputs = sides[0][0]
    if all(np.array_equal(inputs, other) for other, _ in sides[1:]):
        return float(weights @ [log_mean(values) for _, values in sides])
    for other, _ in sides[1:]:
        inputs = np.intersect1d(inputs, other)
    if not len(inputs):
        return None
    return float(weights @ [log_mean(values[np.isin(own, inputs)]) for own, values in sides])


@dataclass(frozen=True)
class Effect:
    """A ratio, or another exponential of logarithms, with its interval.

    `low` and `high` are None where fewer than two units tell of the spread, or where they tell
    nothing; `n` counts the units.
    """

    about: str
    value: float
    low: float | None
    high: float | None
    n: int


def effects(candidates: Iterable[tuple[str, Sequence[Floats | None]]]) -> list[Effect]:
    """Return the effects of one question, with simultaneous intervals.

    Each candidate has its name and one or more groups of logarithms. Several are taken as
    independent, and their means are added: where they drift together in a replicate, the interval
    of a difference is wider than it need be. A candidate without units is left out.
    """
    return [effect for effect in together(candidates) if effect]


def together(candidates: Iterable[tuple[str, Sequence[Floats | None]]]) -> list[Effect | None]:
    """As `effects`, with None in the place of each candidate without units.

    A candidate with a single unit has no interval, and does not widen those of the others.
    """
    named: list[tuple[str, list[Floats]]] = []
    for about, groups in candidates:
        known = [group for group in groups if group is not None]
        named.append((about, known if len(known) == len(groups) else []))
    told = sum(bool(groups) and min(map(len, groups)) > 1 for _, groups in named)
    confidence = 1 - (1 - CONFIDENCE) / max(1, told)
    return [_effect(about, groups, confidence) if groups else None for about, groups in named]


def _effect(about: str, groups: list[Floats], confidence: float) -> Effect:
    mean = float(sum(group.mean() for group in groups))
    n = min(len(group) for group in groups)
    if n < 2:
        return Effect(about, float(np.exp(mean)), None, None, n)
    if len(groups) == 1:
        deviation = groups[0].std(ddof=1)
        low, high = mean_interval(
            np.array([mean]), np.array([deviation]), np.array([n]), confidence
        )
        return _exponential(about, mean, float(low[0]), float(high[0]), n)
    variances = np.array([group.var(ddof=1) / len(group) for group in groups])
    total = float(variances.sum())
    if total == 0:
        return _exponential(about, mean, mean, mean, n)
    freedom = total**2 / sum(
        float(v) ** 2 / (len(g) - 1) for v, g in zip(variances, groups, strict=True)
    )
    half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * total**0.5
    return _exponential(about, mean, mean - half, mean + half, n)


def _exponential(about: str, mean: float, low: float, high: float, n: int) -> Effect:
    if high > _MOST:  # of two or three replicates at a high confidence: it says nothing
        return Effect(about, float(np.exp(mean)), None, None, n)
    return Effect(about, float(np.exp(mean)), float(np.exp(low)), float(np.exp(high)), n)


def of_sweep(samples: pl.DataFrame, platforms: Platforms) -> Units:
    """Return the units of a sweep's real plain cells, one per replicate.

    Times are those that their scenario is judged by: see `estimate.judged`.

    Args:
        samples: As `load` gives them.
        platforms: The sweep's.
    """
    plain = pl.all_horizontal(pl.col(name) == value for name, value in PLAIN.items())
    measured = steady(samples).filter(plain)
    by_replicate = (
        judged(measured)
        .group_by(*_PARTS, "replicate", maintain_order=True)
        .agg("input", pl.col("log") - np.log(1e9))
    )
    logs: dict[Cell, dict[str, tuple[NDArray[np.str_], Floats]]] = {}
    for row in by_replicate.iter_rows(named=True):
        values = np.array(row["input"], dtype=np.str_), np.array(row["log"])
        logs.setdefault(cell_of(row), {})[str(row["replicate"])] = values
    shares = measured.group_by(*_PARTS).agg(
        # As numbers that do not overflow, whatever a file claims a request took.
        (
            (pl.col("pre_ns") + pl.col("post_ns")).cast(pl.Float64).sum()
            / pl.col("e2e_ns").cast(pl.Float64).sum()
        ).alias("share")
    )
    pre_post = {cell_of(row): float(row["share"]) for row in shares.iter_rows(named=True)}
    return Units(logs, "replicate", pre_post, platforms)


_PARTS = (
    "application", "scale", "scenario", "weights", *(factor.name for factor in MATCHED),
    "cores", "platform", "mode",
)  # fmt: skip
