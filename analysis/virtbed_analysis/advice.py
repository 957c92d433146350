"""A sweep as a choice: which platform, size and settings, how sure, at what cost.

A choice rests on measured cells alone. What cannot be told is said: which cells may be the best,
what their trials cannot have seen, which gave no result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy import stats

from virtbed_analysis.best import Ranking, ranking
from virtbed_analysis.candidates import Candidate, Spread, candidates_of, excluded
from virtbed_analysis.cells import CELL
from virtbed_analysis.frames import Sweep
from virtbed_analysis.intervals import CONFIDENCE, holm
from virtbed_analysis.per_trial import answers_differ
from virtbed_analysis.platforms import Platforms
from virtbed_analysis.question import Question as Question
from virtbed_analysis.question import read_prices as read_prices
from virtbed_analysis.reasons import (
    because,
    bound_kept,
    flattered,
    lost,
    named,
    notes,
    nothing_measured,
    sure,
)  # fmt: skip
from virtbed_analysis.trust import Json
from virtbed_contract import identifiers


def advise(sweep: Sweep, question: Question) -> Json:
    """Return the choice, the runner-up, the evidence, how sure.

    Of the cells that meet the question, the choice is the cheapest where there are prices, else the
    one of fewest cores where there is a bound to be kept, else the fastest; of those that are
    equal within the margin, or cannot be told apart, the cheapest or smallest. `answer` says which:
    "best" (of all), "equivalent", "cannot tell" (`may_be_best` has those that may be; `choice` is
    where to begin, and `more_replicates` what would tell), "none" (`choice` is None). Times in ms;
    `cost` per million requests, in the prices' currency, one request after another.
    """
    found, without = candidates_of(sweep, question)
    fit, unknown, left_out = _sorted_out(sweep, question, found)
    fit, spoken_against = set_aside(fit)
    ranked = ranking(fit, unknown, question)
    left_out += spoken_against
    for key, ends in without.items():
        cell = dict(zip(CELL, key, strict=True))
        left_out.append((cell, excluded(cell, question) or nothing_measured(ends)))
    say, choice = _Rows(sweep.platforms, ranked), ranked.choice
    candidates = sorted(
        fit,
        key=lambda c: (
            c is not choice,
            c.cores if c.key not in ranked.over else 0,
            say.over(c),
            c.cores,
        ),
    )
    return {
        "schema": identifiers.ADVICE,
        "sweep": sweep.name,
        "question": {
            **{key: value for key, value in asdict(question).items() if key != "prices"},
            "platforms": list(question.platforms),
            "prices": bool(question.prices),
            "compared": "latency" if question.by_latency else "e2e",
        },
        "confidence": CONFIDENCE,
        "answer": ranked.answer,
        "choice": say.row(choice) if choice else None,
        "may_be_best": [say.row(cell) for cell in ranked.may_be_best],
        "equivalent": [say.row(cell) for cell in ranked.equivalent],
        "runner_up": say.row(ranked.runner_up) if ranked.runner_up else None,
        "because": because(question, ranked, len(fit), len(found)),
        "sure": sure(question, ranked),
        "notes": notes(question, choice) if choice else [],
        "more_replicates": ranked.more,
        "candidates": [say.row(cell) for cell in candidates],
        "left_out": [
            {
                "cell": say.row(cell) if isinstance(cell, Candidate) else say.cell(cell),
                "reason": why,
            }
            for cell, why in left_out
        ],
    }


_LeftOut = list[tuple[Candidate | Mapping[str, Any], str]]


def _sorted_out(
    sweep: Sweep, question: Question, found: Sequence[Candidate]
) -> tuple[list[Candidate], list[Candidate], _LeftOut]:
    """Return the cells that answer the question, those that may, and why others do not."""
    wrong = set(answers_differ(sweep.trials).select(CELL).iter_rows())
    fit: list[Candidate] = []
    unknown: list[Candidate] = []
    left_out: _LeftOut = []
    for cell in found:
        reason = excluded(cell.cell, question)
        if not reason and cell.key in wrong:
            reason = "its answers are not those of bare metal"
        if not reason and cell.slo is not None and question.slo_ms is not None:
            if cell.slo.verdict == "broken":
                reason = bound_kept(cell.slo, question.slo_ms)
            elif cell.slo.verdict == "cannot tell":
                reason = cell.slo.reason
                unknown.append(cell)
        if reason:
            left_out.append((cell, reason))
        else:
            fit.append(cell)
    return fit, unknown, left_out


def set_aside(fit: Sequence[Candidate]) -> tuple[list[Candidate], _LeftOut]:
    """Part the cells that failures speak against from the others, if there are others.

    Times of a cell whose slow trials may be missing are too short, and are no reason to take it. A
    cell that loses trials more often than the one that loses the fewest (Fisher's exact test, Holm)
    is not taken either.
    """
    whole = [cell for cell in fit if not cell.flattered]
    if not whole:
        return list(fit), []
    left_out: _LeftOut = [(c, flattered(c)) for c in fit if c.flattered]
    safest = min(
        whole, key=lambda c: (c.ends.lost / (c.ends.measured + c.ends.lost), c.ends.lost_high)
    )
    losing = [cell for cell in whole if cell.ends.lost and cell is not safest]
    p_values = [_fails_more(cell, safest) for cell in losing]
    out = [cell for cell, more in zip(losing, holm(p_values), strict=True) if more]
    of = f"{safest.ends.lost} of {safest.ends.measured + safest.ends.lost}"
    left_out += [(c, f"{lost(c.ends)}: more than the {of} of another candidate") for c in out]
    return [cell for cell in whole if cell not in out], left_out


def _fails_more(cell: Candidate, other: Candidate) -> float:
    """Return the p value of losing no more trials than another cell."""
    table = np.array([[c.ends.lost, c.ends.measured] for c in (cell, other)])
    return float(stats.fisher_exact(table, "greater").pvalue)


class _Rows:
    """Rows of a document, one per cell, beside what the choice is."""

    def __init__(self, platforms: Platforms, ranked: Ranking) -> None:
        self._platforms, self._over = platforms, ranked.over

    def over(self, cell: Candidate) -> float:
        """Return a cell's time or cost over the choice's, for sorting; infinity if unknown."""
        pair = self._over.get(cell.key)
        return pair.value if pair and pair.n else float("inf")

    def cell(self, cell: Mapping[str, Any]) -> Json:
        """Return what a cell is, and its name in plain words."""
        return {**cell, "name": named(cell, self._platforms)}

    def row(self, cell: Candidate) -> Json:
        """Return a cell with its numbers; `over` is its time or cost over the choice's."""
        ends, pair = cell.ends, self._over.get(cell.key)
        over = (
            {"value": pair.value, "low": pair.low, "high": pair.high, "n": pair.n}
            if pair and pair.n
            else None
        )
        return {
            **self.cell(cell.cell),
            "replicates": ends.measured,
            "samples": cell.requests,
            "memory_mib": cell.memory_mib,
            **_ends("e2e", "_ms", cell.e2e),
            **_ends("latency", "_ms", cell.latency),
            "p99_ms": cell.p99[0],
            "p99_worst_ms": cell.p99[1],
            **_ends("cost", "", cell.money()),
            "over": over,
            "slo": asdict(cell.slo) if cell.slo else None,
            "suspect": ends.suspect,
            "failed": ends.failed,
            "failed_late": ends.late,
            "invalid": ends.invalid,
            "rejected": ends.rejected,
            "retried": ends.retried,
            "lost_high": ends.lost_high,
            "survivors_only": cell.flattered,
        }


def _ends(name: str, unit: str, spread: Spread | None) -> Json:
    values = spread or (None, None, None)
    return {f"{name}{end}{unit}": v for end, v in zip(("", "_least", "_most"), values, strict=True)}
