"""The statistics engine: logarithms of times, paired, to an effect with its interval.

Every ratio of this package is made here, in three steps:

1. `Logs` has those of one cell as a matrix: a row per unit (a replicate of one host, sweep and
   image), a column per input. `reduction.by_cell` makes them of samples.
2. `contrast` pairs cells by unit and, within one, by input: each unit that all cells share gives
   one weighted sum of logarithms, such as the difference d_r of two cells.
3. `effects` turns these into ratios with intervals: Student's t on the units' values, or Welch's
   where an effect is the sum of several groups that are taken as independent.

The intervals of one question are simultaneous: each of k is made at 1 - (1 - confidence) / k
(Bonferroni), so that none is picked for being extreme. Decisions that show no interval are made by
`intervals.holm`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virtbed_analysis.intervals import CONFIDENCE, NO_SPREAD, simultaneous, t_quantile

Floats = NDArray[np.float64]
Key = tuple[Any, ...]
_MOST = 700.0  # exp of more is no number any more


@dataclass(frozen=True)
class Logs:
    """The logarithms of one cell: `values` has a row per unit, a column per input, both sorted.

    `known` tells which there are; the others are NaN.
    """

    units: tuple[Any, ...]
    inputs: tuple[str, ...]
    values: Floats
    known: NDArray[np.bool_]

    @classmethod
    def of(cls, units: Mapping[Any, tuple[Sequence[str], Sequence[float]]]) -> Logs:
        """Return the matrix of inputs and their logarithms, given by unit."""
        inputs = tuple(sorted({str(name) for names, _ in units.values() for name in names}))
        place = {name: number for number, name in enumerate(inputs)}
        values = np.full((len(units), len(inputs)), np.nan)
        known = np.zeros(values.shape, dtype=np.bool_)
        for row, unit in enumerate(sorted(units)):
            names, logs = units[unit]
            columns = [place[str(name)] for name in names]
            values[row, columns], known[row, columns] = logs, True
        return cls(tuple(sorted(units)), inputs, values, known)

    @cached_property
    def whole(self) -> bool:
        """Whether every unit has every input."""
        return bool(self.known.all())

    @property
    def everywhere(self) -> list[str]:
        """The inputs that every unit has."""
        return [self.inputs[column] for column in np.flatnonzero(self.known.all(axis=0))]

    @cached_property
    def means(self) -> Floats:
        """The logarithm of the mean over a unit's inputs, one per unit."""
        return log_means(self.values, self.known)

    @property
    def with_inputs(self) -> Logs:
        """The part without units that have no input."""
        kept = np.flatnonzero(self.known.any(axis=1))
        return self.at([self.units[row] for row in kept], self.inputs)

    def at(self, units: Sequence[Any], inputs: Sequence[str]) -> Logs:
        """Return the part of some units and inputs, all of which it has."""
        if self.units == tuple(units) and self.inputs == tuple(inputs):
            return self
        rows = {unit: row for row, unit in enumerate(self.units)}
        columns = {name: column for column, name in enumerate(self.inputs)}
        places = np.ix_([rows[unit] for unit in units], [columns[name] for name in inputs])
        return Logs(tuple(units), tuple(inputs), self.values[places], self.known[places])


def log_means(logs: Floats, known: NDArray[np.bool_]) -> Floats:
    """Return `reduction.log_mean` of each row, over what is known of it; NaN where nothing is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        sums = np.logaddexp.reduce(np.where(known, logs, -np.inf), axis=1)
        return np.asarray(np.where(known.any(axis=1), sums - np.log(known.sum(axis=1)), np.nan))


def aligned(*sides: Logs) -> list[Logs]:
    """Return the parts of cells that have the same units and inputs: those of all."""
    first = sides[0]
    if all(one.units == first.units and one.inputs == first.inputs for one in sides[1:]):
        return list(sides)
    units, inputs = (
        sorted(set.intersection(*(set(names) for names in each)))
        for each in ([one.units for one in sides], [one.inputs for one in sides])
    )
    return [one.at(units, inputs) for one in sides]


def shared(*sides: Logs) -> tuple[tuple[Any, ...], list[Floats]]:
    """Return the units that sides have in common, and each side's log means over common inputs.

    An input counts in a unit where all sides have it there; a unit without one is left out.
    """
    cut = aligned(*sides)
    if all(one.whole for one in cut) and cut[0].inputs:
        return cut[0].units, [one.means for one in cut]
    known = np.logical_and.reduce([one.known for one in cut])
    kept = known.any(axis=1)
    means = [log_means(one.values[kept], known[kept]) for one in cut]
    return tuple(unit for unit, has in zip(cut[0].units, kept, strict=True) if has), means


def contrast(*terms: tuple[float, Logs | None]) -> Floats | None:
    """Return the sum of weighted logarithms, one per unit that all cells share; None without.

    A unit's is of the mean time over the inputs that all cells have in it: see `reduction`.
    """
    sides = [logs for _, logs in terms if logs is not None]
    if len(sides) < len(terms):
        return None
    units, means = shared(*sides)
    if not units:
        return None
    with np.errstate(invalid="ignore"):
        return np.asarray(sum(w * mean for (w, _), mean in zip(terms, means, strict=True)))


def equal(logs: Floats | None) -> bool:
    """Return whether several logarithms show no spread, see `intervals.NO_SPREAD`."""
    return logs is not None and len(logs) > 1 and float(np.ptp(logs)) < NO_SPREAD


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


def together(
    candidates: Iterable[tuple[str, Sequence[Floats | None]]], *, pooled: bool = False
) -> list[Effect | None]:
    """As `effects`, with None in the place of each candidate without units.

    A candidate without spread has no interval, and does not widen those of the others. `pooled`: a
    group of a single unit is taken to spread as the others (Student's t with a common variance).
    """
    named: list[tuple[str, list[Floats]]] = []
    for about, groups in candidates:
        known = [group for group in groups if group is not None]
        named.append((about, known if len(known) == len(groups) else []))
    fewest = max if pooled else min
    intervals = sum(bool(groups) and fewest(map(len, groups)) > 1 for _, groups in named)
    confidence = simultaneous(intervals)
    return [
        effect(about, groups, confidence, pooled=pooled) if groups else None
        for about, groups in named
    ]


def effect(
    about: str, groups: Sequence[Floats], confidence: float = CONFIDENCE, *, pooled: bool = False
) -> Effect:
    """Return one effect, see `effects`, with an interval at this confidence."""
    mean = float(sum(group.mean() for group in groups))
    n = min(len(group) for group in groups)
    half = half_width(groups, confidence, pooled=pooled)
    if half is None or abs(mean) + half > _MOST:  # as of two replicates: it says nothing
        return Effect(about, float(np.exp(mean)), None, None, n)
    low, high = float(np.exp(mean - half)), float(np.exp(mean + half))
    return Effect(about, float(np.exp(mean)), low, high, n)


def points(
    logs: Sequence[Floats], terms: Mapping[int, float], constant: float = 0.0
) -> tuple[float, Floats]:
    """Return a weighted sum of ratios, plus a constant, and what each unit adds to its spread.

    A ratio is exp of the mean of its logarithms. A difference of two is what a change costs, as a
    share of the time that both are over. Units' parts are weight * ratio * (log - mean of the logs)
    (the delta method), so what sides share in a unit cancels; `half_width` makes an interval of
    them.

    Args:
        logs: Each ratio's logarithms, of the same units.
        terms: The weight of each ratio that has one, by its place in `logs`.
        constant: What is added.

    Example:
        >>> value, parts = points([np.log([1.5, 1.7]), np.log([1.0, 1.0])], {0: 1, 1: -1})
        >>> round(value, 3), parts.round(3).tolist()
        (0.597, [-0.1, 0.1])
    """
    ratios = [float(np.exp(own.mean())) for own in logs]
    value = constant + sum(weight * ratios[place] for place, weight in terms.items())
    parts = [w * ratios[n] * (logs[n] - logs[n].mean()) for n, w in terms.items()]
    return value, np.asarray(sum(parts))


def half_width(
    groups: Sequence[Floats], confidence: float = CONFIDENCE, *, pooled: bool = False
) -> float | None:
    """Return half the interval of a sum of means; None where nothing tells of a spread.

    Student's t for one group, Welch's with Satterthwaite's degrees of freedom for several.
    """
    sizes = [len(group) for group in groups]
    if min(sizes) > 1:
        parts = [float(group.var(ddof=1)) / len(group) for group in groups]
        total = sum(parts)
        weights = sum(part**2 / (size - 1) for part, size in zip(parts, sizes, strict=True))
        freedom = total**2 / weights if weights else float(min(sizes) - 1)
    elif pooled and max(sizes) > 1:
        freedom = float(sum(size - 1 for size in sizes))
        squares = sum(float(group.var()) * len(group) for group in groups)
        total = squares / freedom * sum(1 / size for size in sizes)
    else:
        return None
    return float(t_quantile(confidence, freedom) * total**0.5)
