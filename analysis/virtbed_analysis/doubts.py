"""What speaks against the intervals of ratios: of each, and of all with as few replicates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from math import exp, sqrt

import numpy as np
from scipy import stats

from virtbed_analysis.cells import PLAIN, key_of
from virtbed_analysis.intervals import CONFIDENCE
from virtbed_analysis.robust import (
    FEWEST_SKEW,
    FEWEST_WANDERING,
    Floats,
    Signs,
    flagged,
    signs,
    unseen,
)
from virtbed_analysis.trust import Json

_MOST_LOG = 700.0  # exp of more is no number any more
_MOST_CORRELATION = 0.9  # the estimate of a few replicates; beyond, the width is a guess
# Per number of replicates, the coverage of a 95% interval where one side alone has a skewed noise
# (lognormal, sigma 1, and sigma 2: rare and long), and where the ratio wanders with a correlation
# of neighbours of 0.5, 0.8 and 0.9. Simulated: the tests do so.
_COVERAGE = {
    2: (0.91, 0.66, 0.91, 0.85, 0.79), 3: (0.85, 0.54, 0.86, 0.68, 0.54),
    4: (0.83, 0.52, 0.82, 0.59, 0.44), 5: (0.83, 0.53, 0.79, 0.54, 0.39),
    6: (0.83, 0.54, 0.78, 0.51, 0.37), 8: (0.84, 0.55, 0.76, 0.49, 0.34),
    10: (0.84, 0.57, 0.75, 0.47, 0.33), 15: (0.86, 0.60, 0.75, 0.46, 0.32),
    20: (0.87, 0.62, 0.74, 0.46, 0.31), 30: (0.88, 0.66, 0.74, 0.46, 0.31),
}  # fmt: skip


def share_like_it(replicates: int) -> tuple[float, float]:
    """Return the Clopper-Pearson interval of a share of which one replicate is an example."""
    ends = stats.binomtest(1, replicates).proportion_ci(CONFIDENCE)
    return float(ends.low), float(ends.high)


def marked(rows: Iterable[Json]) -> list[Json]:
    """Return rows of ratios with what is to be said against their intervals.

    Each row's `ratio_logs` and `ratio_of` (per-replicate logarithms and their replicates, see
    `estimate`) are replaced by `second_low` and `second_high` (bootstrap-t, null with few
    replicates; an end beyond all numbers is null), `unseen` (see `robust.unseen`; null without
    replicates), `correlation` (of neighbours in time, null with few) and `warnings`: `kind` and
    `text` of each sign that was found.
    """
    return [_marked(row) for row in rows]


def _marked(row: Json) -> Json:
    kept = {key: value for key, value in row.items() if key not in ("ratio_logs", "ratio_of")}
    logs = np.array([row.get("ratio_logs") or []], dtype=np.float64)
    n = logs.shape[1]
    found: Json = {
        "second_low": None, "second_high": None, "correlation": None,
        "unseen": unseen(n) if n else None, "warnings": [],
    }  # fmt: skip
    if n < FEWEST_SKEW or not np.isfinite(logs).all():
        return kept | found
    seen = signs(logs)
    if np.isfinite(seen.low[0]):
        found |= {"second_low": _end(seen.low[0]), "second_high": _end(seen.high[0])}
    if n >= FEWEST_WANDERING and np.isfinite(seen.correlation[0]):
        found["correlation"] = float(seen.correlation[0])
    warnings = _warnings(logs[0], row["ratio_of"], seen)
    found["warnings"] = [{"kind": kind, "text": text} for kind, text in warnings]
    return kept | found


def _end(log: float) -> float | None:
    """Return an end as a ratio; None for one beyond all numbers, as few unlike resamples give."""
    return float(exp(log)) if log < _MOST_LOG else None


def _warnings(logs: Floats, replicates: list[int], seen: Signs) -> Iterator[tuple[str, str]]:
    for kind, which in flagged(seen, len(logs)).items():
        if which[0]:
            yield kind, _SAY[kind](logs, replicates, seen)


def _far_out(logs: Floats, replicates: list[int], seen: Signs) -> str:
    place = int(seen.outlier[0])
    low, high = share_like_it(len(logs))
    return (
        f"Replicate {replicates[place]} has a ratio of {exp(logs[place]):.3g}, the median of the "
        f"others is {exp(np.median(np.delete(logs, place))):.3g}; between {low:.1%} and {high:.0%} "
        "of instances may be like it: look at its trials, and raise replicates to learn how many "
        "are."
    )


def _skewed(logs: Floats, _: list[int], seen: Signs) -> str:
    side = "above" if seen.skewness[0] > 0 else "below"
    return (
        f"The replicates are not alike on both sides: some are far {side} the rest (skewness "
        f"{seen.skewness[0]:.1f}, p = {seen.skewness_p[0]:.2g}); such an interval covers about "
        f"{limit(len(logs)).skewed_covers:.0%} instead of {CONFIDENCE:.0%}: raise replicates."
    )


def _second(_: Floats, __: list[int], seen: Signs) -> str:
    low, high = (_end(log) for log in (seen.low[0], seen.high[0]))
    ends = ("no limit" if end is None else f"{end:.3g}" for end in (low, high))
    return (
        f"A second interval (bootstrap-t), {' to '.join(ends)}, has "
        f"an end {seen.far[0]:.1f} times as far off as this one: act only on what both say."
    )


def _wandering(_: Floats, __: list[int], seen: Signs) -> str:
    near = float(np.clip(seen.correlation[0], 0, _MOST_CORRELATION))
    return (
        "The ratio wanders: replicates that follow each other are alike (lag-1 correlation "
        f"{seen.correlation[0]:.2f}, p = {seen.wandering_p[0]:.2g}); the interval should be about "
        f"{sqrt((1 + near) / (1 - near)):.1f} times as wide: sweep again on other days, and "
        "compare."
    )


_SAY = {
    "far-out": _far_out,
    "skewed": _skewed,
    "second-interval": _second,
    "wandering": _wandering,
}


@dataclass(frozen=True)
class Limit:
    """What as many replicates cannot show.

    Attributes:
        replicates: How many.
        unseen: See `robust.unseen`.
        skewed_covers: What an interval covers where the noise of one side alone is skewed.
        very_skewed_covers: The same where its slow moments are rare and long.
        wandering_covers: What it covers where the ratio wanders, neighbours correlated by 0.5.
        far_wandering_covers: The same by 0.8.
        most_wandering_covers: The same by 0.9.
    """

    replicates: int
    unseen: float
    skewed_covers: float
    very_skewed_covers: float
    wandering_covers: float
    far_wandering_covers: float
    most_wandering_covers: float


def limit(replicates: int) -> Limit:
    """Return what `replicates`, two or more, cannot show; between simulated numbers a mean."""
    covers = zip(*_COVERAGE.values(), strict=True)
    limits = (float(np.interp(replicates, list(_COVERAGE), values)) for values in covers)
    return Limit(replicates, unseen(replicates), *limits)


def caution(replicates: Sequence[int]) -> str:
    """Return in plain words what intervals of so many replicates may cover, the least of them."""
    limits = [limit(n) for n in sorted(set(replicates))]
    few, many = limits[0].replicates, limits[-1].replicates

    def least(of: Callable[[Limit], float]) -> str:
        return f"{min(map(of, limits)):.0%}"

    return (
        f"With {few if few == many else f'{few} to {many}'} replicates such an interval holds the "
        f"truth in {CONFIDENCE:.0%} of sweeps only if noise is alike on both sides and replicates "
        "are independent. If slow moments fall on one side alone, it does in "
        f"{least(lambda one: one.skewed_covers)} of sweeps, or in "
        f"{least(lambda one: one.very_skewed_covers)} where they are rare and long; if the ratio "
        "wanders from replicate to replicate, in "
        f"{least(lambda one: one.wandering_covers)} down to "
        f"{least(lambda one: one.most_wandering_covers)}. Slow instances that no replicate met, up "
        f"to {max(one.unseen for one in limits):.0%} of all, are in no interval."
    )


def share(cells: Iterable[Json], *tables: Iterable[Json], name: str = "doubt") -> None:
    """Give rows that show a cell's ratio, or rest on its replicates, the `doubt` of that cell.

    Args:
        cells: Rows that `numbered` has seen.
        *tables: Rows of these cells.
        name: What it is called there.
    """
    known = {key_of(cell): cell["doubt"] for cell in cells}
    for row in chain(*tables):
        row[name] = known.get(key_of({**PLAIN, **row}))


def numbered(tables: dict[str, list[Json]], cells: list[str]) -> Json:
    """Number the rows that have warnings, and say what is to be said of all.

    Args:
        tables: Rows of `marked`, by what their ratio is of; each gets `doubt`, the number of its
            row here, or None.
        cells: The columns that identify a row.

    Returns:
        `rows`: the cell, `of`, `number` and `warnings`; `limits`: a `Limit` for each number of
        replicates, with `ratios`, how many rest on as many; `caution`: of the first table's ratios,
        None where none has an interval.
    """
    rows: list[Json] = []
    counts: dict[int, int] = {}
    for of, table in tables.items():
        for row in table:
            row["doubt"] = None
            if (n := row["ratio_replicates"] or 0) > 1:
                counts[n] = counts.get(n, 0) + 1
            if row["warnings"]:
                row["doubt"] = len(rows) + 1
                kept = {key: row[key] for key in (*cells, "weights", "warnings") if key in row}
                rows.append({**kept, "of": of, "number": row["doubt"]})
    limits = [{**asdict(limit(n)), "ratios": counts[n]} for n in sorted(counts)]
    replicates = [row["ratio_replicates"] for row in next(iter(tables.values()), [])]
    known = [n for n in replicates if n and n > 1]
    return {"rows": rows, "limits": limits, "caution": caution(known) if known else None}
