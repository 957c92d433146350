"""Advice from a sweep: which platform, size and settings to choose, how sure that is, at what cost.

Only measured cells are chosen. The document also states what is undecided: the cells that may be
the best, what their trials cannot have seen, and the cells without a result. `virtbed advise` and
notebooks use `advise`; `best` ranks the cells, `reasons` has the sentences.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from scipy import stats

from virtbed_analysis import drift, marks
from virtbed_analysis.best import Ranking, ranking
from virtbed_analysis.candidates import Candidate, Spread, candidates_of, excluded
from virtbed_analysis.cells import CELL, key_of
from virtbed_analysis.frames import Sweep
from virtbed_analysis.intervals import CONFIDENCE, holm
from virtbed_analysis.per_trial import answers_differ
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
from virtbed_analysis.words import count
from virtbed_contract import identifiers


def advise(sweep: Sweep, question: Question) -> Json:
    """Return the choice, the runner-up, the evidence, and how sure the choice is.

    Among the cells that meet the question, the choice is the cheapest if there are prices; else the
    one with the fewest cores if there is a latency bound; else the fastest. Among cells that are
    equal within the margin, or indistinguishable, it is the cheapest or smallest.

    Args:
        sweep: The sweep.
        question: The application, and the limits on the choice.

    Returns:
        `answer`: "best" (of all), "equivalent", "cannot tell" (then `may_be_best` lists the cells
        that may be the best, `choice` is the one to start with, and `more_replicates` the number
        that would decide), or "none" (`choice` is None). Times are in ms; `cost` is per million
        requests, one after another, in the currency of the prices. Cells are compared by the
        measure of their scenario (`compared`); `over` is a ratio of times (for throughput, of times
        per sample: above 1 is less throughput).

    Example:
        >>> from pathlib import Path
        >>> from virtbed_analysis import Question, read_sweep
        >>> advice = advise(read_sweep(Path("results/quick")), Question("image_classification"))
        >>> advice["answer"], advice["choice"]["platform"], advice["choice"]["mode"]
        ('best', 'bm', 'pinned')
    """
    if question.margin is None:
        question = replace(question, margin=sweep.margin)
    decided = _decided(sweep, question)
    ranked, choice, rows = (
        decided.ranked,
        decided.ranked.choice,
        _Rows(sweep, decided.ranked),
    )
    clean = _without_suspects(sweep, question) if choice else None
    others = clean and clean.ranked
    return {
        "schema": identifiers.ADVICE,
        "sweep": sweep.name,
        "question": {
            **{key: value for key, value in asdict(question).items() if key != "prices"},
            "platforms": list(question.platforms),
            "prices": bool(question.prices),
            "compared": question.compared.name,
        },
        "confidence": CONFIDENCE,
        "answer": ranked.answer,
        "choice": rows.row(choice) if choice else None,
        "may_be_best": [rows.row(cell) for cell in ranked.may_be_best],
        "equivalent": [rows.row(cell) for cell in ranked.equivalent],
        "runner_up": rows.row(ranked.runner_up) if ranked.runner_up else None,
        "because": because(question, ranked, len(decided.fit), decided.measured),
        "sure": sure(question, ranked),
        "notes": [
            *(notes(question, choice) if choice else []),
            *_asides(sweep, choice, others),
            *_none_left(sweep, decided, clean),
            *_drifted(sweep, ranked),
            *_other_inputs(sweep, question),
        ],
        "more_replicates": ranked.more,
        "without_suspects": others
        and {
            "answer": others.answer,
            "choice": rows.cell(others.choice.cell) if others.choice else None,
        },
        "candidates": [rows.row(cell) for cell in sorted(decided.fit, key=rows.place)],
        "left_out": [
            {
                "cell": rows.row(cell) if isinstance(cell, Candidate) else rows.cell(cell),
                "reason": why,
            }
            for cell, why in decided.left_out
        ],
    }


_LeftOut = list[tuple[Candidate | Mapping[str, Any], str]]


class _Decided(NamedTuple):
    ranked: Ranking
    fit: list[Candidate]
    left_out: _LeftOut
    measured: int

    @property
    def cells_out(self) -> Iterator[tuple[Mapping[str, Any], str]]:
        """The cells that have results and are left out, each with the reason."""
        for cell, why in self.left_out:
            if isinstance(cell, Candidate):
                yield cell.cell, why


def _decided(sweep: Sweep, question: Question) -> _Decided:
    candidates, without = candidates_of(sweep, question)
    fit, unknown, left_out = _sorted_out(sweep, question, candidates)
    fit, spoken_against = set_aside(fit)
    ranked = ranking(fit, unknown, question)
    if len(fit) > 1 and ranked.choice and ranked.choice.flattered:  # and so is every other
        ranked = replace(ranked, answer="cannot tell", may_be_best=fit, more=None)
    for key, ends in without.items():
        cell = dict(zip(CELL, key, strict=True))
        spoken_against.append((cell, excluded(cell, question) or nothing_measured(ends)))
    return _Decided(ranked, fit, left_out + spoken_against, len(candidates) + len(without))


def _without_suspects(sweep: Sweep, question: Question) -> _Decided | None:
    """Return the decision without the suspect trials; None if there are none.

    It is shown next to the advice and does not replace it, because the platform itself may be what
    makes a trial suspect.
    """
    clean = pl.col("suspicions").list.len() == 0
    trials = sweep.trials.filter(clean)
    mine = sweep.trials.filter(~clean, application=question.application, emulated=False)
    if not mine.height:
        return None
    rest = replace(sweep, trials=trials, samples=sweep.samples.filter(clean))
    return _decided(rest, question)


def _none_left(sweep: Sweep, decided: _Decided, clean: _Decided | None) -> Iterator[str]:
    """Yield a sentence on cells of which all trials are suspect."""
    if clean is None:
        return
    left = {cell.key for cell in clean.fit} | {key_of(cell) for cell, _ in clean.cells_out}
    gone = [named(cell.cell, sweep.platforms) for cell in decided.fit if cell.key not in left]
    if gone:
        yield (
            f"All trials of {'; '.join(gone)} are suspect: without them, nothing is compared with "
            f"{'it' if len(gone) == 1 else 'these'}."
        )


def _drifted(sweep: Sweep, ranked: Ranking) -> Iterator[str]:
    """Yield sentences on drift in the ratios of the choice and the runner-up, as in the report."""
    shown = [cell for cell in (ranked.choice, ranked.runner_up) if cell]
    if not shown:
        return
    warned = drift.warnings(drift.order(sweep.trials, sweep.samples, sweep.margin))
    for cell in shown:
        if warning := warned.get(cell.key):
            yield f"The result of {named(cell.cell, sweep.platforms)} may be drift: it {warning}."


def _asides(sweep: Sweep, choice: Candidate | None, others: Ranking | None) -> list[str]:
    """Return sentences on suspect trials, and on failures that belong to no known cell."""
    sentences = []
    if others is not None and choice is not None:
        if others.choice is None:
            outcome = "there would be no choice"
        elif others.choice.key == choice.key:
            outcome = "the choice is the same"
        else:
            outcome = f"it would be {named(others.choice.cell, sweep.platforms)}"
        doubt = " (cannot tell)" if others.answer == "cannot tell" else ""
        sentences.append(f"Without the suspect trials, {outcome}{doubt}.")
    if sweep.failures and sweep.design is None:
        sentences.append(
            f"Failures that count against no cell: {len(sweep.failures)}. Their cells are unknown, "
            "because design.json is missing."
        )
    return sentences


def _other_inputs(sweep: Sweep, question: Question) -> list[str]:
    """Return a sentence on trials that measured other inputs than most; no sentence without any.

    Their times and costs are of other work. Comparisons use the inputs that both cells have.
    """
    mine = sweep.trials.filter(
        application=question.application, scale=question.scale, scenario=question.scenario,
        emulated=False,
    ).sort("position")  # fmt: skip
    counts = Counter(mine["inputs"]).most_common()
    if len(counts) < 2:
        return []
    odd = mine.filter(pl.col("inputs") != counts[0][0])["trial"]
    return [
        f"{count(len(odd), 'trial')} measured other inputs than most, first {odd[0]}: such times "
        "and costs are of other work; comparisons are over the inputs that both sides have."
    ]


def _sorted_out(
    sweep: Sweep, question: Question, candidates: Sequence[Candidate]
) -> tuple[list[Candidate], list[Candidate], _LeftOut]:
    """Return the suitable cells, those that may be suitable, and the others with their reasons."""
    wrong = set(answers_differ(sweep.trials).select(CELL).iter_rows())
    fit: list[Candidate] = []
    unknown: list[Candidate] = []
    left_out: _LeftOut = []
    for cell in candidates:
        reason = excluded(cell.cell, question)
        if not reason and cell.key in wrong:
            reason = "its answers differ from bare metal's"
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
    """Separate cells with too many lost trials from the others, unless all of them have.

    The times of a cell whose slow trials may be missing may be too short, so it is not chosen for
    them. Neither is a cell that loses trials more often than the one that loses the fewest
    (Fisher's exact test, Holm's adjustment).

    Returns:
        The cells that remain, and those set aside with the reasons.
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
    """Return the p value of the hypothesis that a cell loses no more trials than another."""
    table = np.array([[c.ends.lost, c.ends.measured] for c in (cell, other)])
    return float(stats.fisher_exact(table, "greater").pvalue)


class _Rows:
    """Makes the rows of the advice document, one per cell."""

    def __init__(self, sweep: Sweep, ranked: Ranking) -> None:
        self._platforms, self._over, self._choice = sweep.platforms, ranked.over, ranked.choice
        self._marks = marks.of_sweep(sweep)

    def place(self, cell: Candidate) -> tuple[bool, float, int, float]:
        """Return the sort key of a cell: first the choice, then compared cells, then the rest."""
        pair = self._over.get(cell.key)
        over = pair.value if pair and pair.n else float("inf")
        return cell is not self._choice, over, cell.cores, cell.cost

    def cell(self, cell: Mapping[str, Any]) -> Json:
        """Return a cell's factors, and its name in plain words."""
        return {**cell, "name": named(cell, self._platforms)}

    def row(self, cell: Candidate) -> Json:
        """Return a cell with its numbers.

        `over` is its time or cost divided by that of the choice; `marks` are the warnings about
        comparing it with bare metal.
        """
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
            **_ends("throughput", "_per_s", cell.throughput()),
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
            "marks": self._marks.pair.get(key_of(cell.cell), []),
        }


def _ends(name: str, unit: str, spread: Spread | None) -> Json:
    values = spread or (None, None, None)
    return {f"{name}{end}{unit}": v for end, v in zip(("", "_least", "_most"), values, strict=True)}
