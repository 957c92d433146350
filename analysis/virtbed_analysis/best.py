"""The ranking behind advice: the best cell, those that may be the best, and the one to choose.

Each cell is compared with all others, pair by pair over the replicates (of a host) and inputs that
both have. A cell is excluded if its interval shows it worse than another (subset selection: Gupta,
"On Some Multiple Decision (Selection and Ranking) Rules", Technometrics 7, 1965; Hsu, "Multiple
Comparisons", 1996, ch. 4). The best cell can be wrongly found worse than each of k - 1 others, so
with intervals at 1 - 0.05 / (k - 1) it is among the remaining cells in at least 95% of sweeps,
whichever cell it is: a cell that remains alone is the best of all, not only better than the second.
A cell whose intervals end below 1 + margin over every cell that may be the best is as good as the
best.

Among equally good cells, the smallest is chosen: by cost with prices, else by cores, then memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from virtbed_analysis.candidates import Candidate
from virtbed_analysis.engine import Floats, shared
from virtbed_analysis.intervals import (
    NO_SPREAD,
    paired_spread,
    pairs_needed,
    ratio_interval,
    simultaneous,
)
from virtbed_analysis.question import Question
from virtbed_analysis.typical import typical_logs
from virtbed_contract.sweep import MOST_REPLICATES

Answer = Literal["best", "equivalent", "cannot tell", "none"]


@dataclass(frozen=True)
class Contrast:
    """The ratio of one cell's cost to another's.

    Attributes:
        value: Ratio of the arithmetic means over the shared replicates.
        low: Lower end of its interval; None if the replicates give no interval.
        high: Upper end; likewise.
        n: Number of shared replicates; with 0, all values are unknown.
        spread: The contribution of a replicate to the interval: `paired_spread`.
        typical: Median of the ratio over replicates, which one bad instance does not change.
        typical_error: Its standard error, as a share (from the median absolute deviation).
    """

    value: float
    low: float | None
    high: float | None
    n: int
    spread: float = math.nan
    typical: float = math.nan
    typical_error: float = math.nan

    def turned(self) -> Contrast:
        """Return the inverse ratio: the second cell's cost over the first's."""
        if not self.n:
            return self
        low, high = (None if end is None else 1 / end for end in (self.high, self.low))
        return replace(self, value=1 / self.value, low=low, high=high, typical=1 / self.typical)

    @property
    def worse(self) -> bool:
        """Whether the first cell is shown to cost more."""
        return self.low is not None and self.low > 1

    def within(self, margin: float) -> bool:
        """Whether the first cell is shown to cost at most a margin more."""
        return self.high is not None and self.high <= 1 + margin


@dataclass(frozen=True)
class Ranking:
    """The result of comparing all cells.

    Attributes:
        answer: "best", "equivalent", "cannot tell", or "none" without a suitable cell.
        choice: The cell to choose, or to start with while the answer is "cannot tell".
        runner_up: The next one.
        may_be_best: Cells than which no other is shown to be better.
        equivalent: Cells that cost at most the margin more than the best, whichever that is.
        over: By cell, its contrast to the choice.
        more: Number of additional replicates that would decide; None if none are needed, or if the
            number is unknown.
    """

    answer: Answer
    choice: Candidate | None
    runner_up: Candidate | None
    may_be_best: list[Candidate]
    equivalent: list[Candidate]
    over: dict[tuple[object, ...], Contrast]
    more: int | None


def shared_times(above: Candidate, below: Candidate) -> tuple[Floats, Floats]:
    """Return both cells' mean times in ms, one per shared replicate, over the shared inputs."""
    _, (ours, theirs) = shared(above.times, below.times)
    return np.exp(ours), np.exp(theirs)


def contrast(above: Candidate, below: Candidate, confidence: float) -> Contrast:
    """Return the ratio of two cells' costs, with its interval."""
    return contrast_of(*shared_times(above, below), above.weight / below.weight, confidence)


def contrast_of(above: Floats, below: Floats, weight: float, confidence: float) -> Contrast:
    """Return the ratio of paired times as a `Contrast`; `weight` is the ratio of prices."""
    n = len(above)
    if not n:
        return Contrast(math.nan, None, None, 0)
    value = weight * float(above.mean() / below.mean())
    spread = paired_spread(above, below)
    low, high = ratio_interval(above, below, confidence)
    if not spread > NO_SPREAD:  # copies, or a coarse clock: the noise is unknown
        low = high = None
    low, high = (None if end is None else weight * end for end in (low, high))
    logs = np.log(above / below)
    middle = float(np.median(logs))
    # 1.4826 converts the median absolute deviation into a standard deviation of normal noise;
    # sqrt(pi / 2) is the standard error of a median relative to that of a mean.
    error = 1.4826 * float(np.median(np.abs(logs - middle))) * math.sqrt(math.pi / 2 / n)
    return Contrast(value, low, high, n, spread, weight * math.exp(middle), error)


def ranking(fit: Sequence[Candidate], unknown: Sequence[Candidate], question: Question) -> Ranking:
    """Return the ranking of cells.

    Args:
        fit: The suitable cells.
        unknown: Cells that may be suitable; none is chosen, and each may be better than the choice.
        question: The limits on the choice.
    """
    if not fit:
        answer: Answer = "cannot tell" if unknown else "none"
        return Ranking(answer, None, None, [], [], {}, None)
    field = _field(fit, unknown, question)
    chosen_from = [cell for cell in field if cell in fit]
    confidence = simultaneous(len(field) - 1)
    places = range(len(field))
    over = _pairs(field, confidence)
    fits = [i for i in places if field[i] in chosen_from]
    left = [
        i for i in places if not any(j != i and _beaten(i, j, over, field, question) for j in fits)
    ]
    same = [
        i for i in fits
        if all(over[i, g].within(question.tolerance) for g in left if g != i)
    ]  # fmt: skip
    fewer = [i for i in left if i not in fits]
    if same and not fewer:
        choice = min(same, key=lambda i: _least(field[i], _worst(over, i, places), question))
        answer = "best" if left == [choice] else "equivalent"
    else:
        answer = "cannot tell"
        choice = _leaning([i for i in left if i in fits] or fits, over, field, question)
    rivals = [i for i in fits if i != choice]
    others = [i for i in rivals if i in left] or rivals  # cells that may be better come first
    second = min(others, key=lambda i: _or_last(over[i, choice].value), default=None)
    return Ranking(
        answer,
        field[choice],
        _second(fit, field, choice, second),
        [field[i] for i in left],
        [field[i] for i in same],
        {field[i].key: over[i, choice] for i in places if i != choice},
        _more(choice, [i for i in left if i in fits], over, confidence, question)
        if answer == "cannot tell"
        else None,
    )


def _pairs(field: Sequence[Candidate], confidence: float) -> dict[tuple[int, int], Contrast]:
    over = {}
    for i, above in enumerate(field):
        for j, below in enumerate(field[:i]):
            over[i, j] = contrast(above, below, confidence)
            over[j, i] = over[i, j].turned()
    return over


def _beaten(
    i: int,
    j: int,
    over: dict[tuple[int, int], Contrast],
    field: Sequence[Candidate],
    question: Question,
) -> bool:
    """Return whether cell i is shown to be worse than cell j."""
    if question.by_cores and field[i].cores < field[j].cores:
        return False
    return over[i, j].worse


def _field(
    fit: Sequence[Candidate], unknown: Sequence[Candidate], question: Question
) -> list[Candidate]:
    """Return the cells to compare: with a bound and no prices, those with the fewest cores."""
    if not question.by_cores:
        return [*fit, *unknown]
    fewest = min(cell.cores for cell in fit)
    return [
        *(cell for cell in fit if cell.cores == fewest),
        *(cell for cell in unknown if cell.cores <= fewest),
    ]


def _second(
    fit: Sequence[Candidate], field: Sequence[Candidate], choice: int, second: int | None
) -> Candidate | None:
    """Return the runner-up: the next compared cell, else one with the next number of cores."""
    if second is not None:
        return field[second]
    rest = [cell for cell in fit if cell is not field[choice]]
    return min(rest, key=lambda cell: (cell.cores, cell.time_ms), default=None)


def _least(cell: Candidate, worst: float, question: Question) -> tuple[float, ...]:
    if question.prices:
        return worst, cell.cores, cell.memory_mib
    return cell.cores, cell.memory_mib, worst


def _worst(over: dict[tuple[int, int], Contrast], i: int, places: Iterable[int]) -> float:
    """Return a cell's cost relative to the best of the others."""
    return max((_or_last(over[i, j].value) for j in places if j != i), default=1.0)


def _or_last(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _leaning(
    left: list[int],
    over: dict[tuple[int, int], Contrast],
    field: Sequence[Candidate],
    question: Question,
) -> int:
    """Return the cell to start with, of those that may be the best.

    With prices, it is the one of least mean cost, if all share replicates. Else it is the smallest
    of those that are typically as fast as the fastest, within the margin or one standard error
    (`typical`): if one bad instance dominates the means, the medians still compare the rest.
    """
    worst = {i: _worst(over, i, left) for i in left}
    if question.prices and all(map(math.isfinite, worst.values())):
        return min(left, key=lambda i: _least(field[i], worst[i], question))
    typical: list[float] = typical_logs(field).tolist()  # of all cells, which connect the pairs
    leader = min(left, key=lambda i: (typical[i], field[i].cores))

    def near(i: int) -> bool:
        error = over[i, leader].typical_error if i != leader and over[i, leader].n else 0.0
        return bool(typical[i] - typical[leader] <= math.log1p(max(question.tolerance, error)))

    return min(filter(near, left), key=lambda i: _least(field[i], typical[i], question))


def _more(
    choice: int,
    left: Iterable[int],
    over: dict[tuple[int, int], Contrast],
    confidence: float,
    question: Question,
) -> int | None:
    """Return how many more replicates would show each pair to be different or equivalent.

    None if that is unknown, or if no pair is undecided.
    """
    wanted = []
    for i in left:
        pair = over[i, choice] if i != choice else None
        if pair is None or pair.worse or pair.turned().within(question.tolerance):
            continue  # this pair is decided
        if not pair.spread > NO_SPREAD:  # unknown noise (NaN, too): no number is known
            return None
        apart = abs(math.log(pair.value))
        # The ends of an interval are ratio * (1 - half): see `ratio_interval`.
        gap = -math.expm1(-max(apart, math.log1p(question.tolerance) - apart))
        needed = pairs_needed(pair.spread, gap, confidence, MOST_REPLICATES)
        if needed is None:
            return None
        wanted.append(max(1, needed - pair.n))
    return max(wanted, default=None)
