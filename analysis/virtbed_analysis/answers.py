"""The rules by which measurements answer the claims of the studies.

`claims` gives the claims and their effects, `effects` the logarithms; here the effects get
intervals that are simultaneous for each finding, and a rule turns them into an answer. A point
estimate alone decides nothing. `findings` puts the answers into words, with and without suspect
trials.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Literal

from virtbed_analysis import words
from virtbed_analysis.cells import Cell
from virtbed_analysis.claims import FINDINGS, Candidate, Finding, Measured
from virtbed_analysis.effects import Units
from virtbed_analysis.engine import Effect, equal, together
from virtbed_contract.sweep import MARGIN

Answer = Literal["supported", "refuted", "inconclusive", "not tested"]
Side = Literal["for", "against", "neither"]


@dataclass(frozen=True)
class Known:
    """Knowledge about measurements besides their times.

    Attributes:
        differing: Cells whose answers differ from bare metal's: they did other work.
        serial: Why an application cannot use a second core, by cell.
        clean: The units without suspect trials; None if no trial is suspect.
        suspects: Number of suspect trials, and number of all trials.
        selection: A sentence if suspicion depends on the platform; empty if nothing shows that.
        confounded: How a cell's ratio to bare metal is confounded with time, by cell: a text, and
            the part of the ratio's logarithm that may be drift.
        flattered: Why the times of a cell may be too short (slow trials are missing), by cell.
    """

    differing: AbstractSet[Cell] = frozenset()
    serial: Mapping[Cell, str] = field(default_factory=dict)
    clean: Units | None = None
    suspects: tuple[int, int] = (0, 0)
    selection: str = ""
    confounded: Mapping[Cell, tuple[str, float]] = field(default_factory=dict)
    flattered: Mapping[Cell, str] = field(default_factory=dict)

    @property
    def out(self) -> dict[Cell, str]:
        """The cells that are no evidence, each with the reason."""
        return {
            **self.flattered,
            **dict.fromkeys(self.differing, "its answers differ from bare metal's"),
        }


@dataclass(frozen=True)
class Case:
    """An effect of a finding, and whether it supports the claim.

    `curve`, `whole` and `cells` are those of its candidate. `no_spread` is true if its replicates
    are all equal.
    """

    effect: Effect
    side: Side
    curve: str = ""
    whole: bool = True
    no_spread: bool = False
    cells: tuple[Cell, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """A finding's answer, with every effect it is based on, and the cells left out of it."""

    finding: Finding
    limit: float
    answer: Answer
    cases: list[Case]
    left_out: list[str]

    @property
    def effects(self) -> list[Effect]:
        """The effects alone."""
        return [case.effect for case in self.cases]


def verdicts(units: Units, known: Known | None = None, margin: float = MARGIN) -> list[Verdict]:
    """Answer every finding from one set of measurements.

    Args:
        units: The measurements.
        known: What else is known about them; `clean` is not used.
        margin: The smallest effect of interest, as a share.
    """
    known = known or Known()
    alike = {cell: logs for cell, logs in units.logs.items() if cell not in known.out}
    every, agreeing = (Measured(each, known.serial) for each in (units, replace(units, logs=alike)))
    return [_verdict(finding, every, agreeing, known, margin) for finding in FINDINGS]


def _verdict(
    finding: Finding, every: Measured, agreeing: Measured, known: Known, margin: float
) -> Verdict:
    limit = limit_of(finding, margin)
    candidates = list(finding.candidates(agreeing))
    cases = judged(finding, candidates, limit)
    left_out = [f"{c.about}: {c.left_out}" for c in candidates if c.left_out]
    if out := known.out:
        entries = every.units.platforms.entries
        touched = {cell for c in finding.candidates(every) for cell in c.cells}
        left_out += [
            f"{words.placed(cell.row(), entries)}: {out[cell]}"
            for cell in sorted(touched & out.keys(), key=every.units.order)
        ]
    return Verdict(finding, limit, answer(finding, cases, limit), cases, left_out)


def limit_of(finding: Finding, margin: float = MARGIN) -> float:
    """Return the ratio that an effect must clear: the finding's own, or the one of the margin."""
    if finding.margin is not None:
        return finding.margin
    return 1 / (1 + margin) if finding.side == "below" else 1 + margin


def judged(finding: Finding, candidates: Iterable[Candidate], limit: float) -> list[Case]:
    """Return the effects of a finding with simultaneous intervals, and the side of each.

    Replicates that are all equal get no interval: equality comes from a coarse clock, a copy or an
    invention, not from precision.
    """
    listed = list(candidates)
    effects = together((candidate.about, candidate.groups) for candidate in listed)
    cases = []
    for candidate, effect in zip(listed, effects, strict=True):
        if effect is None:
            continue
        no_spread = any(equal(group) for group in candidate.groups)
        # The interval of two very different replicates may have an end that underflows to 0.
        if no_spread or effect.low == 0:
            effect = replace(effect, low=None, high=None)
        step = finding.rule == "falls" and not candidate.whole
        side = side_of(finding, effect, limit, step=step)
        cases.append(Case(effect, side, candidate.curve, not step, no_spread, candidate.cells))
    return cases


def side_of(finding: Finding, effect: Effect, limit: float, *, step: bool = False) -> Side:
    """Return whether the whole interval supports the claim, contradicts it, or neither.

    A `step` of a curve contradicts a fall if it rises. A flat step does not, since the curve may
    fall elsewhere.
    """
    if _clears(finding, effect, limit) > 0:
        return "for"
    return "against" if _misses(finding, effect, limit, step=step) > 0 else "neither"


def _clears(finding: Finding, effect: Effect, limit: float) -> float:
    """Return the distance of the whole interval beyond the limit on the claim's side, as a log."""
    if effect.low is None or effect.high is None:
        return -math.inf
    above, below = math.log(effect.low / limit), -math.log(effect.high)
    if finding.side == "apart":
        return max(above, below - math.log(limit))
    return above if finding.side == "above" else below + math.log(limit)


def _misses(finding: Finding, effect: Effect, limit: float, *, step: bool) -> float:
    """Return the distance of the whole interval beyond the limit on the other side, as a log."""
    if effect.low is None or effect.high is None:
        return -math.inf
    if step:
        return -math.log(effect.high * limit)
    under, over = -math.log(effect.high / limit), math.log(effect.low)
    if finding.side == "apart":
        return min(under, over + math.log(limit))
    return under if finding.side == "above" else over - math.log(limit)


def answer(finding: Finding, cases: Sequence[Case], limit: float) -> Answer:
    """Return a finding's answer from its effects, by its rule."""
    if not cases:
        return "not tested"
    sides = [case.side for case in cases]
    if finding.rule == "somewhere":
        return _settled("for" in sides, set(sides) == {"against"})
    if finding.rule == "everywhere":
        return _settled(set(sides) == {"for"}, "against" in sides)
    if finding.rule == "falls":
        curves = _curves(cases)
        falls = all(any(case.side == "for" for case in curve) for curve in curves)
        rises = any(_may_rise(case, limit) for case in cases)
        return _settled(falls and not rises, "against" in sides)
    ends = [curve[-1].side for curve in _curves(cases)]
    return _settled("for" in ends, set(ends) == {"against"})


def _curves(cases: Sequence[Case]) -> list[list[Case]]:
    return [list(group) for _, group in groupby(cases, key=lambda case: case.curve)]


def weighing(verdict: Verdict) -> list[Case]:
    """Return the cases that decide an answer: for the rule "stops", the last of each curve."""
    if verdict.finding.rule != "stops":
        return verdict.cases
    return [curve[-1] for curve in _curves(verdict.cases)]


def _settled(supported: bool, refuted: bool) -> Answer:
    return "refuted" if refuted else "supported" if supported else "inconclusive"


def _may_rise(case: Case, limit: float) -> bool:
    """Return whether a step may rise, as far as its interval shows."""
    low = case.effect.low
    return low is None or low < 1 / limit


def deciding(verdict: Verdict) -> Case | None:
    """Return the case whose interval decides the finding, or leaves it undecided."""
    finding, cases = verdict.finding, weighing(verdict)
    if not cases:
        return None

    def clears(case: Case) -> float:
        return _clears(finding, case.effect, verdict.limit)

    def misses(case: Case) -> float:
        return _misses(finding, case.effect, verdict.limit, step=not case.whole)

    one_proves = finding.rule in ("somewhere", "stops")
    if verdict.answer == "supported":
        holding = [case for case in cases if case.side == "for"]
        return (min if finding.rule == "everywhere" else max)(holding, key=clears)
    if verdict.answer == "refuted":
        failing = [case for case in cases if case.side == "against"]
        return min(failing, key=misses) if one_proves else max(failing, key=misses)
    if finding.rule == "falls":
        rising = [case for case in cases if _may_rise(case, verdict.limit)]
        return min(rising, key=clears) if rising else max(cases, key=clears)
    undecided = [case for case in cases if case.side == "neither"] or list(cases)
    known = [case for case in undecided if case.effect.low is not None] or undecided
    return max(known, key=clears) if one_proves else min(known, key=clears)


def decided_by(verdict: Verdict) -> float:
    """Return the distance of the deciding interval beyond the limit, as a log; 0 if undecided."""
    most = deciding(verdict)
    if most is None or most.side == "neither":
        return 0.0
    if most.side == "for":
        return _clears(verdict.finding, most.effect, verdict.limit)
    return _misses(verdict.finding, most.effect, verdict.limit, step=not most.whole)


def sentence(verdict: Verdict) -> str:
    """Return the evidence of a verdict: the deciding effect, and the number of effects."""
    cases, most = verdict.cases, deciding(verdict)
    if most is None:
        return f"Needs {verdict.finding.needs}."
    text = f"{most.effect.about}: {most.effect.value:.3f} ({_span(most)})."
    if len(cases) == 1:
        return text
    by_side = {side: sum(case.side == side for case in cases) for side in ("for", "against")}
    rest = len(cases) - sum(by_side.values())
    return (
        f"{text} Of {len(cases)} effects, {by_side['for']} support the claim, "
        f"{by_side['against']} contradict it, {rest} do neither."
    )


def _span(case: Case) -> str:
    if case.no_spread:
        return f"no interval: {case.effect.n} equal values show no spread"
    if case.effect.low is None:
        return "no interval"
    return f"{case.effect.low:.3f} to {case.effect.high:.3f}"
