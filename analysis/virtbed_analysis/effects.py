"""Knows how the cost of one cell over another becomes an effect with an interval.

A unit is a sweep's replicate, or, where each input was run once, the input. Cells are paired by
unit and, within one, by input; each unit gives one difference of logarithms. The interval is
Student's t on the units' differences (Welch's, with Satterthwaite's degrees of freedom, where an
effect is a sum of several that are taken as independent), and the intervals of one question hold
together: each of k is made at 1 - (1 - confidence) / k (Bonferroni), so that none is picked for
being extreme.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from virtbed_analysis.estimate import CONFIDENCE, MODES, PLATFORMS, input_logs, mean_interval

Floats = NDArray[np.float64]
_MOST = 700.0  # exp of more is no number any more


class Cell(NamedTuple):
    """What was measured; `work` is the application, with all else that makes it another one."""

    work: str
    processor: str
    cores: int
    platform: str
    mode: str

    @property
    def application(self) -> str:
        """The application alone, of `work`."""
        return self.work.partition(", ")[0]

    @property
    def settings(self) -> str:
        """The scale and whatever else makes it another `work`: what comparable ones share."""
        return self.work.partition(", ")[2]


def order(platform: str, mode: str) -> tuple[int, int]:
    """Return where a report lists a platform and a mode."""
    return PLATFORMS.index(platform), MODES.index(mode)


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
    metal_mode: str = "pinned"

    def cells(self, **wanted: str | int) -> list[Cell]:
        """Return the measured cells that have these parts, as a report lists them."""
        found = (
            cell
            for cell in self.logs
            if all(getattr(cell, key) == value for key, value in wanted.items())
        )
        return sorted(found, key=lambda cell: (*cell[:3], *order(cell.platform, cell.mode)))

    def baseline(self, cell: Cell) -> Cell:
        """Return bare metal at a cell's size."""
        return cell._replace(platform="bm", mode=self.metal_mode)

    def contrast(self, *terms: tuple[float, Cell]) -> Floats | None:
        """Return the sum of weighted logarithms, one a unit that all cells share; None without.

        A unit's is the mean over the inputs that all cells have in it.
        """
        sides = [self.logs.get(cell, {}) for _, cell in terms]
        weights = np.array([weight for weight, _ in terms])
        common = sorted(set.intersection(*(set(side) for side in sides)))
        means = [_mean(weights, [side[unit] for side in sides]) for unit in common]
        kept = [mean for mean in means if mean is not None]
        return np.array(kept) if kept else None

    def over(self, above: Cell, below: Cell) -> Floats | None:
        """Return the logarithms of one cell's time over another's, one a shared unit."""
        return self.contrast((1.0, above), (-1.0, below))

    def cost(self, cell: Cell) -> Floats | None:
        """Return the logarithms of a cell's time over bare metal's at its size."""
        return self.over(cell, self.baseline(cell))


def _mean(weights: Floats, sides: list[tuple[NDArray[np.str_], Floats]]) -> float | None:
    inputs = sides[0][0]
    if all(np.array_equal(inputs, other) for other, _ in sides[1:]):
        return float(weights @ [values.mean() for _, values in sides])
    for other, _ in sides[1:]:
        inputs = np.intersect1d(inputs, other)
    if not len(inputs):
        return None
    return float(weights @ [values[np.isin(own, inputs)].mean() for own, values in sides])


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
    """Return the effects of one question, whose intervals hold together.

    Each candidate has its name and one or more groups of logarithms. Several are taken as
    independent, and their means are added: where they drift together in a replicate, the interval
    of a difference is wider than it need be. A candidate without units is left out.
    """
    return [effect for effect in together(candidates) if effect]


def together(candidates: Iterable[tuple[str, Sequence[Floats | None]]]) -> list[Effect | None]:
    """As `effects`, with None in the place of each candidate without units."""
    told: list[tuple[str, list[Floats]]] = []
    for about, groups in candidates:
        known = [group for group in groups if group is not None]
        told.append((about, known if len(known) == len(groups) else []))
    confidence = 1 - (1 - CONFIDENCE) / max(1, sum(bool(groups) for _, groups in told))
    return [_effect(about, groups, confidence) if groups else None for about, groups in told]


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


def of_sweep(samples: pl.DataFrame) -> Units:
    """Return the units of a sweep's real cells, one a replicate; `samples` as `load` gives them."""
    steady = samples.filter(~pl.col("warmup"), ~pl.col("emulated"), pl.col("variant") == "plain")
    weights = steady.select("application", "scale", "weights").unique()
    together = (
        input_logs(steady)
        .join(weights, on=["application", "scale"], maintain_order="left")
        .group_by(*_PARTS, "replicate", maintain_order=True)
        .agg("input", pl.col("log") - np.log(1e9))
    )
    logs: dict[Cell, dict[str, tuple[NDArray[np.str_], Floats]]] = {}
    for row in together.iter_rows(named=True):
        values = np.array(row["input"], dtype=np.str_), np.array(row["log"])
        logs.setdefault(cell_of(row), {})[str(row["replicate"])] = values
    shares = steady.group_by(*_PARTS).agg(
        ((pl.col("pre_ns") + pl.col("post_ns")).sum() / pl.col("e2e_ns").sum()).alias("share")
    )
    pre_post = {cell_of(row): float(row["share"]) for row in shares.iter_rows(named=True)}
    return Units(logs, "replicate", pre_post)


_PARTS = (
    "application", "scale", "scenario", "thread_policy", "weights",
    "processor", "cores", "platform", "mode",
)  # fmt: skip


def cell_of(row: Mapping[str, object]) -> Cell:
    """Return what a row of a cell or a sample measures."""
    work = [str(row["application"]), str(row["scale"])]
    work += [str(row["scenario"])] if row["scenario"] != "single_stream" else []
    work += [f"{row['thread_policy']} threads"] if row["thread_policy"] != "default" else []
    # Seeded weights do a model's work without its answers: said wherever their times appear.
    work += ["seeded weights"] if row["weights"] == "seeded" else []
    cores = row["cores"]
    assert isinstance(cores, int)
    return Cell(
        ", ".join(work), str(row["processor"]), cores, str(row["platform"]), str(row["mode"])
    )
