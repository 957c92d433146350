"""Warnings about the intervals of ratios: signs in the replicates, and limits of their number.

The signs are those of `robust`; `document` numbers them, and tables link to them by number.
"""

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

_MOST_LOG = 700.0  # exp of a larger number overflows
_MOST_CORRELATION = 0.9  # few replicates cannot distinguish larger ones; the width would be a guess
# By number of replicates, the coverage of a 95% interval if one side alone has skewed noise
# (lognormal, sigma 1, and sigma 2: rare and long), and if the ratio wanders with a correlation of
# consecutive replicates of 0.5, 0.8 and 0.9. Simulated; the tests repeat the simulation.
_COVERAGE = {
    2: (0.91, 0.66, 0.91, 0.85, 0.79), 3: (0.85, 0.54, 0.86, 0.68, 0.54),
    4: (0.83, 0.52, 0.82, 0.59, 0.44), 5: (0.83, 0.53, 0.79, 0.54, 0.39),
    6: (0.83, 0.54, 0.78, 0.51, 0.37), 8: (0.84, 0.55, 0.76, 0.49, 0.34),
    10: (0.84, 0.57, 0.75, 0.47, 0.33), 15: (0.86, 0.60, 0.75, 0.46, 0.32),
    20: (0.87, 0.62, 0.74, 0.46, 0.31), 30: (0.88, 0.66, 0.74, 0.46, 0.31),
}  # fmt: skip


def share_like_it(replicates: int) -> tuple[float, float]:
    """Return the Clopper-Pearson interval of a share that one of the replicates belongs to.

    Example:
        >>> [round(end, 3) for end in share_like_it(10)]
        [0.003, 0.445]
    """
    ends = stats.binomtest(1, replicates).proportion_ci(CONFIDENCE)
    return float(ends.low), float(ends.high)


def marked(rows: Iterable[Json]) -> list[Json]:
    """Return rows of ratios with the warnings about their intervals.

    Args:
        rows: One per ratio, with `ratio_logs` and `ratio_of` (per-replicate logarithms and their
            replicates, see `estimate`).

    Returns:
        The rows, in which these two are replaced by `second_low` and `second_high` (bootstrap-t;
        null with few replicates, or for an end that overflows), `unseen` (see `robust.unseen`;
        null without replicates), `correlation` (of consecutive replicates; null with few) and
        `warnings`, each with `kind` and `text`.
    """
    return [_marked(row) for row in rows]


def _marked(row: Json) -> Json:
    kept = {key: value for key, value in row.items() if key not in ("ratio_logs", "ratio_of")}
    logs = np.array([row.get("ratio_logs") or []], dtype=np.float64)
    n = logs.shape[1]
    added: Json = {
        "second_low": None, "second_high": None, "correlation": None,
        "unseen": unseen(n) if n else None, "warnings": [],
    }  # fmt: skip
    if n < FEWEST_SKEW or not np.isfinite(logs).all():
        return kept | added
    seen = signs(logs)
    if np.isfinite(seen.low[0]):
        added |= {"second_low": _end(seen.low[0]), "second_high": _end(seen.high[0])}
    if n >= FEWEST_WANDERING and np.isfinite(seen.correlation[0]):
        added["correlation"] = float(seen.correlation[0])
    warnings = _warnings(logs[0], row["ratio_of"], seen)
    added["warnings"] = [{"kind": kind, "text": text} for kind, text in warnings]
    return kept | added


def _end(log: float) -> float | None:
    """Return an interval's end as a ratio; None if it overflows, as with few unlike resamples."""
    return float(exp(log)) if log < _MOST_LOG else None


def _warnings(logs: Floats, replicates: list[int], seen: Signs) -> Iterator[tuple[str, str]]:
    for kind, which in flagged(seen, len(logs)).items():
        if which[0]:
            yield kind, _SENTENCES[kind](logs, replicates, seen)


def _far_out(logs: Floats, replicates: list[int], seen: Signs) -> str:
    place = int(seen.outlier[0])
    low, high = share_like_it(len(logs))
    return (
        f"Replicate {replicates[place]} has a ratio of {exp(logs[place]):.3g}, the median of the "
        f"others is {exp(np.median(np.delete(logs, place))):.3g}. Between {low:.1%} and {high:.0%} "
        "of instances may be like it: look at its trials, and raise replicates to estimate how "
        "many are."
    )


def _skewed(logs: Floats, _: list[int], seen: Signs) -> str:
    side = "above" if seen.skewness[0] > 0 else "below"
    return (
        f"The replicates are skewed: some are far {side} the rest (skewness "
        f"{seen.skewness[0]:.1f}, p = {seen.skewness_p[0]:.2g}). Such an interval covers about "
        f"{limit(len(logs)).skewed_covers:.0%} instead of {CONFIDENCE:.0%}: raise replicates."
    )


def _second(_: Floats, __: list[int], seen: Signs) -> str:
    low, high = (_end(log) for log in (seen.low[0], seen.high[0]))
    ends = ("no limit" if end is None else f"{end:.3g}" for end in (low, high))
    return (
        f"A second interval (bootstrap-t), {' to '.join(ends)}, has an end {seen.far[0]:.1f} times "
        "as far off as this one: act only on a conclusion that both intervals support."
    )


def _wandering(_: Floats, __: list[int], seen: Signs) -> str:
    near = float(np.clip(seen.correlation[0], 0, _MOST_CORRELATION))
    return (
        "The ratio wanders: consecutive replicates are similar (lag-1 correlation "
        f"{seen.correlation[0]:.2f}, p = {seen.wandering_p[0]:.2g}). The interval should be about "
        f"{sqrt((1 + near) / (1 - near)):.1f} times as wide: sweep again on other days, and "
        "compare."
    )


_SENTENCES = {
    "far-out": _far_out,
    "skewed": _skewed,
    "second-interval": _second,
    "wandering": _wandering,
}


@dataclass(frozen=True)
class Limit:
    """What a number of replicates cannot show.

    Attributes:
        replicates: The number.
        unseen: Largest share of slow instances that may be unseen: `robust.unseen`.
        skewed_covers: Coverage of a 95% interval if one side alone has skewed noise.
        very_skewed_covers: The same if its slow moments are rare and long.
        wandering_covers: Coverage if the ratio wanders, with a lag-1 correlation of 0.5.
        far_wandering_covers: The same with 0.8.
        most_wandering_covers: The same with 0.9.
    """

    replicates: int
    unseen: float
    skewed_covers: float
    very_skewed_covers: float
    wandering_covers: float
    far_wandering_covers: float
    most_wandering_covers: float


def limit(replicates: int) -> Limit:
    """Return the limits of two or more replicates, interpolated between the simulated numbers."""
    covers = zip(*_COVERAGE.values(), strict=True)
    limits = (float(np.interp(replicates, list(_COVERAGE), values)) for values in covers)
    return Limit(replicates, unseen(replicates), *limits)


def caution(replicates: Sequence[int]) -> str:
    """Return a sentence on the least coverage of intervals with these numbers of replicates."""
    limits = [limit(n) for n in sorted(set(replicates))]
    few, many = limits[0].replicates, limits[-1].replicates

    def least(of: Callable[[Limit], float]) -> str:
        return f"{min(map(of, limits)):.0%}"

    return (
        f"With {few if few == many else f'{few} to {many}'} replicates, such an interval contains "
        f"the true ratio in {CONFIDENCE:.0%} of sweeps only if both sides have the same kind of "
        "noise and replicates are independent. If slow moments hit one side alone, it does so in "
        f"{least(lambda one: one.skewed_covers)} of sweeps, or in "
        f"{least(lambda one: one.very_skewed_covers)} if they are rare and long; if the ratio "
        "wanders from replicate to replicate, in "
        f"{least(lambda one: one.wandering_covers)} down to "
        f"{least(lambda one: one.most_wandering_covers)}. No interval accounts for slow instances "
        f"that no replicate met, which may be up to {max(one.unseen for one in limits):.0%} of all."
    )


def share(cells: Iterable[Json], *tables: Iterable[Json], name: str = "doubt") -> None:
    """Add the `doubt` of a cell to other rows that show its ratio or use its replicates.

    Args:
        cells: Rows that `numbered` has numbered.
        *tables: Rows of these cells, changed in place.
        name: The key that is added.
    """
    known = {key_of(cell): cell["doubt"] for cell in cells}
    for row in chain(*tables):
        row[name] = known.get(key_of({**PLAIN, **row}))


def numbered(tables: dict[str, list[Json]], cells: list[str]) -> Json:
    """Number the rows that have warnings, and return the warnings with the limits of all ratios.

    Args:
        tables: Rows of `marked`, by the name of their ratio. Each row gets `doubt`: its number, or
            None without a warning.
        cells: The columns that identify a row.

    Returns:
        - `rows`: the cell, `of` (the name of the ratio), `number` and `warnings`
        - `limits`: a `Limit` per number of replicates, with `ratios`, the number of ratios with it
        - `caution`: of the first table's ratios; None if none has an interval
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
