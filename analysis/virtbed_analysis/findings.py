"""The verdicts on the findings of the studies, as plain values, with and without suspect trials.

`claims` has the claims, `answers` the rules that decide, `outlook` the sentences on a verdict's
limits. Used by `document` and `published`.
"""

from __future__ import annotations

from dataclasses import asdict

from virtbed_analysis import outlook, words
from virtbed_analysis.answers import (
    Case,
    Known,
    Verdict,
    decided_by,
    deciding,
    sentence,
    verdicts,
)
from virtbed_analysis.claims import FINDINGS, PENALTY, Finding
from virtbed_analysis.effects import Units
from virtbed_analysis.trust import Json
from virtbed_contract.sweep import MARGIN

__all__ = ["FINDINGS", "PENALTY", "Finding", "Known", "Verdict", "rows", "verdicts"]

_DECIDED = ("supported", "refuted")


def rows(units: Units, known: Known | None = None, margin: float = MARGIN) -> list[Json]:
    """Return the verdicts as in report.json, one row per finding.

    Args:
        units: The measurements.
        known: What else is known about them.
        margin: The smallest effect of interest, as a share.

    Returns:
        Among others: `answer`, the one to read; `with_suspects` and `without_suspects`, the answers
        from all trials and from those that are not suspect; `depends_on_suspects`, whether the two
        differ (`answer` then says so); `decides`, the effect that `because` cites; `confounded`,
        how time may explain that effect; `may_be_drift`, whether drift may be large enough to undo
        the answer (which then says so).
    """
    known = known or Known()
    every = verdicts(units, known, margin)
    clean = every if known.clean is None else verdicts(known.clean, known, margin)
    return [_row(*pair, known, units) for pair in zip(every, clean, strict=True)]


def _row(every: Verdict, clean: Verdict, known: Known, units: Units) -> Json:
    finding, most = every.finding, deciding(every)
    without = _answer_without(every, clean)
    differs = without != every.answer
    because = sentence(every)
    confounded = _confounded(most, known, units.platforms.entries)
    drift = sum(
        known.confounded[cell][1]
        for cell in dict.fromkeys(most.cells if most else ())
        if cell in known.confounded
    )
    may_be_drift = every.answer in _DECIDED and decided_by(every) <= drift and drift > 0
    if confounded:
        because = f"{because} May be drift: {'; '.join(confounded)}."
    if known.clean is not None and (every.cases or clean.cases):
        because = f"{because} {_without_suspects(every, clean, known)}"
    return {
        "id": finding.id,
        "claim": finding.claim,
        "source": finding.source,
        "answer": _read(every.answer, without) + "; drift may explain it" * may_be_drift,
        "with_suspects": every.answer,
        "without_suspects": without,
        "depends_on_suspects": differs,
        "because": because,
        "confounded": confounded,
        "may_be_drift": may_be_drift,
        "decides": most.effect.about if most else None,
        "effect": finding.effect,
        "margin": every.limit,
        "margin_words": outlook.margin(every),
        "would_change": outlook.would_change(every, units.unit),
        "not_seen": outlook.not_seen(every, units.unit),
        "left_out": every.left_out,
        "effects": [{**asdict(case.effect), "speaks": case.side} for case in every.cases],
    }


def _confounded(most: Case | None, known: Known, entries: words.Entries) -> list[str]:
    """Return how time may explain the deciding effect, one line per cell."""
    cells = dict.fromkeys(most.cells if most else ())
    return [
        f"{words.placed(cell.row(), entries)}, {known.confounded[cell][0]}"
        for cell in cells
        if cell in known.confounded
    ]


def _answer_without(every: Verdict, clean: Verdict) -> str:
    """Return the answer without suspect trials; "not tested" if no remaining effect can decide."""
    if every is clean or any(case.effect.low is not None for case in clean.cases):
        return clean.answer
    tells = any(case.effect.low is not None for case in every.cases)
    return "not tested" if tells else clean.answer


def _read(answer: str, without: str) -> str:
    """Return the answers with and without suspect trials as one text."""
    if answer == without:
        return answer
    if answer in _DECIDED and without not in _DECIDED:
        return f"{answer}, but only with suspect trials"
    if without == "not tested":
        return f"{answer}, and not testable without suspect trials"
    return f"{answer} with suspect trials, {without} without"


def _without_suspects(every: Verdict, clean: Verdict, known: Known) -> str:
    """Return a sentence on the answer without the suspect trials."""
    few, total = known.suspects
    head = f"Without the {few} of {total} trials that are suspect:"
    without = _answer_without(every, clean)
    if without == "not tested":
        text = f"{head} not testable."
    elif without == every.answer:
        return f"{head} {without}, too."
    else:
        text = f"{head} {without}. {sentence(clean)}"
    return f"{text} {known.selection}".rstrip() if without != every.answer else text
