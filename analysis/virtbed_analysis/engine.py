"""The statistics engine: from logarithms of times to ratios with intervals.

Every ratio of this package is estimated here, in three steps:

1. `Logs` holds the logarithms of one cell as a matrix: one row per unit (a replicate of one host,
   sweep and image), one column per input. `reduction.by_cell` makes it from samples.
2. `contrast` pairs cells by unit and, within a unit, by input: each unit that all cells share gives
   one weighted sum of logarithms, such as the difference d_r of two cells.
3. `effects` turns these into ratios, exp(mean of d_r), with intervals: Student's t on the units'
   values, or Welch's t with Satterthwaite's degrees of freedom if an effect is the sum of means of
   several groups that are assumed independent.

Assumptions: units are independent, and the logarithms are near enough to normal for Student's t;
`robust` looks for signs against both. The k intervals of one question are simultaneous: each is
made at 1 - (1 - confidence) / k (Bonferroni), so that selecting the most extreme one is covered.
Decisions that show no interval use `intervals.holm`; bounds on latency in several cells use
Hochberg's procedure (`slo`).
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
_MOST = 700.0  # exp of more overflows


@dataclass(frozen=True)
class Logs:
    """The logarithms of one cell, by unit and input.

    Attributes:
        units: The units, sorted.
        inputs: The names of the inputs, sorted.
        values: Shape (units, inputs): logarithms of mean times; NaN where there is none.
        known: Same shape: whether there is a value.
    """

    units: tuple[Any, ...]
    inputs: tuple[str, ...]
    values: Floats
    known: NDArray[np.bool_]

    @classmethod
    def of(cls, units: Mapping[Any, tuple[Sequence[str], Sequence[float]]]) -> Logs:
        """Return the matrix of a mapping from units to (names of inputs, their logarithms)."""
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
        """The names of the inputs that every unit has."""
        return [self.inputs[column] for column in np.flatnonzero(self.known.all(axis=0))]

    @cached_property
    def means(self) -> Floats:
        """The logarithm of the arithmetic mean over a unit's inputs, shape (units,)."""
        return log_means(self.values, self.known)

    @property
    def with_inputs(self) -> Logs:
        """A copy without the units that have no input."""
        kept = np.flatnonzero(self.known.any(axis=1))
        return self.at([self.units[row] for row in kept], self.inputs)

    def at(self, units: Sequence[Any], inputs: Sequence[str]) -> Logs:
        """Return the submatrix of units and inputs, all of which must exist."""
        if self.units == tuple(units) and self.inputs == tuple(inputs):
            return self
        rows = {unit: row for row, unit in enumerate(self.units)}
        columns = {name: column for column, name in enumerate(self.inputs)}
        places = np.ix_([rows[unit] for unit in units], [columns[name] for name in inputs])
        return Logs(tuple(units), tuple(inputs), self.values[places], self.known[places])


def log_means(logs: Floats, known: NDArray[np.bool_]) -> Floats:
    """Return `reduction.log_mean` of the known values of each row; NaN for a row without any.

    Args:
        logs: Shape (units, inputs).
        known: Same shape: which values to use.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        sums = np.logaddexp.reduce(np.where(known, logs, -np.inf), axis=1)
        return np.asarray(np.where(known.any(axis=1), sums - np.log(known.sum(axis=1)), np.nan))


def aligned(*sides: Logs) -> list[Logs]:
    """Return the submatrices of cells at the units and inputs that all of them have."""
    first = sides[0]
    if all(one.units == first.units and one.inputs == first.inputs for one in sides[1:]):
        return list(sides)
    units, inputs = (
        sorted(set.intersection(*(set(names) for names in each)))
        for each in ([one.units for one in sides], [one.inputs for one in sides])
    )
    return [one.at(units, inputs) for one in sides]


def shared(*sides: Logs) -> tuple[tuple[Any, ...], list[Floats]]:
    """Return the common units of several cells, and each cell's log means over common inputs.

    Inputs are matched within each unit: an input is used in a unit if all cells have it there. A
    unit without a common input is left out.

    Returns:
        The units, and one array of shape (units,) per cell.
    """
    cut = aligned(*sides)
    if all(one.whole for one in cut) and cut[0].inputs:
        return cut[0].units, [one.means for one in cut]
    known = np.logical_and.reduce([one.known for one in cut])
    kept = known.any(axis=1)
    means = [log_means(one.values[kept], known[kept]) for one in cut]
    return tuple(unit for unit, has in zip(cut[0].units, kept, strict=True) if has), means


def contrast(*terms: tuple[float, Logs | None]) -> Floats | None:
    """Return the weighted sum of cells' logarithms, one value per unit that all cells share.

    The logarithm of a unit is that of its mean time over the inputs that all cells have in it, see
    `reduction`.

    Args:
        *terms: Weights with the `Logs` of cells; (1, above), (-1, below) gives log ratios.

    Returns:
        Shape (shared units,); None if a cell is missing or no unit is shared.
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
    """Return whether two or more logarithms have a range below `intervals.NO_SPREAD`."""
    return logs is not None and len(logs) > 1 and float(np.ptp(logs)) < NO_SPREAD


@dataclass(frozen=True)
class Effect:
    """A ratio, exp of a mean of logarithms, with its interval.

    Attributes:
        about: The name of the effect.
        value: The ratio.
        low: Lower end of the interval; None with fewer than two units, or if exp overflows.
        high: Upper end, likewise.
        n: The number of units, of the smallest group.
    """

    about: str
    value: float
    low: float | None
    high: float | None
    n: int


def effects(candidates: Iterable[tuple[str, Sequence[Floats | None]]]) -> list[Effect]:
    """Return the effects of one question, with simultaneous intervals.

    Args:
        candidates: Names with one or more groups of logarithms, each of shape (units,). The means
            of several groups are added, and the groups are assumed independent; if they share
            drift within a replicate, the interval of a difference is too wide (conservative).

    Returns:
        One effect per candidate; candidates without units are left out.
    """
    return [effect for effect in together(candidates) if effect]


def together(
    candidates: Iterable[tuple[str, Sequence[Floats | None]]], *, pooled: bool = False
) -> list[Effect | None]:
    """Return the effects of one question as `effects`, with None for candidates without units.

    Only candidates with an interval count towards the Bonferroni correction.

    Args:
        candidates: See `effects`.
        pooled: If a group has a single unit, assume one variance for all groups of its candidate
            (Student's t with the pooled variance) instead of giving no interval.
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
    """Return one effect (see `effects`) with an interval at the given confidence."""
    mean = float(sum(group.mean() for group in groups))
    n = min(len(group) for group in groups)
    half = half_width(groups, confidence, pooled=pooled)
    if half is None or abs(mean) + half > _MOST:  # as two replicates may give: no information
        return Effect(about, float(np.exp(mean)), None, None, n)
    low, high = float(np.exp(mean - half)), float(np.exp(mean + half))
    return Effect(about, float(np.exp(mean)), low, high, n)


def points(
    logs: Sequence[Floats], terms: Mapping[int, float], constant: float = 0.0
) -> tuple[float, Floats]:
    """Return a weighted sum of ratios and the contribution of each unit to it (delta method).

    A ratio is exp of the mean of its logarithms. The difference of two ratios to one baseline is
    the cost of a change as a share of the baseline's time. The contribution of a unit is the sum
    over ratios of weight * ratio * (log - mean log), so noise that both share in a unit cancels;
    `half_width` of the contributions is the half-width of the sum's interval.

    Args:
        logs: The logarithms of each ratio, each of shape (units,), of the same units.
        terms: Weights by the index of the ratio in `logs`.
        constant: A constant that is added to the sum.

    Returns:
        The sum, and the contributions, shape (units,).

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
    """Return the half-width of the interval of a sum of means; None if no spread can be estimated.

    Student's t for one group. For several independent groups Welch's t with Satterthwaite's degrees
    of freedom ("An Approximate Distribution of Estimates of Variance Components", Biometrics
    Bulletin 2, 1946); with `pooled`, if a group has a single unit, Student's t with one variance
    for all groups.

    Args:
        groups: The values of each group, shape (units,).
        confidence: Of the two-sided interval.
        pooled: See `together`.
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
