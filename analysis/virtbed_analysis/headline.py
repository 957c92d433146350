"""The content of a report's first screen: what to choose, what it costs, and how sure that is.

It is made of a report's content (`document`); nothing is estimated here. The sentences are those of
`choosing`, the warnings those of `warned`. A cell's `answer` follows from the interval of its ratio
to bare metal (of the time that its scenario is judged by) and the margin:

- ``same``: the whole interval is within the margin, so the platform costs nothing that matters
- ``more``, ``less``: the whole interval is above 1, or below, and not within the margin
- ``unknown``: any other interval, or none

A cell is not chosen if its answer has a reservation: trials were lost, its outputs differ from bare
metal's, or the answer changes without suspect trials.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from virtbed_analysis import functional, words
from virtbed_analysis.cells import CELL, SUBJECT, is_plain, key_of
from virtbed_analysis.choosing import OTHER_WORK, Reader, across, gained, sentences, sizes, span
from virtbed_analysis.doubts import caution
from virtbed_analysis.intervals import CONFIDENCE
from virtbed_analysis.losses import Lost, losses
from virtbed_analysis.margin import answer as at_margin
from virtbed_analysis.margin import has_width
from virtbed_analysis.trust import Json
from virtbed_analysis.warned import warnings_of
from virtbed_contract.codec import decode
from virtbed_contract.documents import Platform
from virtbed_contract.sweep import MARGIN

IN_WORDS = {
    "same": "nothing measurable",
    "more": "more",
    "less": "less than bare metal",
    "unknown": "cannot tell",
}
_ANSWERS = {"equivalent": "same", "cannot tell": "unknown"}  # the content's own words for them


def headline(content: Json, margin: float = MARGIN) -> Json:
    """Return the content of the first screen.

    Args:
        content: A report's content. Its `margin`, and the `answer` of its cells ("equivalent",
            "differs", "cannot tell"), take precedence over what is worked out here.
        margin: The margin, as a share, for content without one.

    Returns:
        - `lead`: what to choose, in sentences
        - `applications`: one per subject, with `subject`, `measure` ("e2e", "latency" or
          "throughput"), `time` (what its ratios are of), `choose` (sentences), `sizes`, `options`
          (one per platform and mode, with its `answer` in words and its `cells`, one per size) and
          `caution` (what its intervals may cover, or None)
        - `sure`: how sure the answers are, in sentences
        - `remedy` (a sentence), `command` (a shell command) and `takes` (its duration in words):
          the next step, each None where there is none
        - `warnings`: each with `text`, which has a number, and `next`, the next step
    """
    margin = content.get("margin") or margin
    entries = {row["name"]: decode(Platform, row) for row in content["platforms"]}
    reader = Reader(margin, entries)
    rows = _rows(content, margin)
    resolution = content.get("resolution") or {}
    applications = [
        _application(subject, list(group), reader)
        for subject, group in groupby(rows, key=words.subject)
    ]
    lead = applications[0]["choose"] if len(applications) == 1 else across(rows, reader)
    nothing = words.summary(content["cells"], len(content["emulated"]))
    if (failed := content["counts"]["failed"]) and not content["cells"]:
        nothing = f"Nothing has been measured: {words.count(failed, 'trial')} failed."
    if (aside := functional.sentence(content.get("functional", []))) and not content["cells"]:
        nothing = f"{nothing.replace('measured yet', 'measured')} {aside}"
    return {
        "margin": margin,
        "lead": " ".join(lead) or nothing,
        "applications": applications,
        "sure": _sure(content, rows),
        **{part: resolution.get(part) if rows else None for part in ("remedy", "command", "takes")},
        "warnings": warnings_of(content, rows),
    }


def answer(low: float | None, high: float | None, margin: float) -> str:
    """Return the answer that a ratio's interval gives at a margin: `margin.answer`, with its side.

    Example:
        >>> answer(1.10, 1.20, 0.03), answer(0.99, 1.02, 0.03), answer(None, None, 0.03)
        ('more', 'same', 'unknown')
    """
    verdict = at_margin(low, high, margin)
    return _ANSWERS.get(verdict) or ("more" if low is not None and low > 1 else "less")


def _rows(content: Json, margin: float) -> list[Json]:
    """Return one row per plain cell with a ratio to bare metal: its answer and reservation."""
    plain = [cell for cell in content["cells"] if is_plain(cell)]
    lost = losses(content, plain)
    metal = {key_of(cell, SUBJECT): lost[key_of(cell)] for cell in plain if cell["baseline"]}
    clean = {key_of(row): row for row in content["without_suspects"]}
    wrong = {key_of(row) for row in content["answers_differ"]}
    rows = []
    for cell in plain:
        if cell["baseline"] or cell["ratio"] is None:
            continue
        key = key_of(cell)
        verdict = _answer(cell, margin)
        without = _without_suspects(verdict, clean.get(key), margin)
        row = {
            **{name: cell[name] for name in CELL},
            **{f"ratio{end}": cell[f"ratio{end}"] for end in ("", "_low", "_high", "_replicates")},
            "replicates": cell["replicates"],
            "weights": cell.get("weights"),
            "doubt": cell.get("doubt"),
            "marks": cell.get("marks", []),
            "answer": verdict,
            "failed": lost[key].failed,
            "suspect": bool(without),
        }
        reservation = _reservation(
            key in wrong, lost[key].in_words(), metal.get(key_of(cell, SUBJECT)), without
        ) or _alike(cell)
        rows.append({**row, "reservation": reservation})
    return rows


def _answer(cell: Json, margin: float) -> str:
    verdict = None if cell["ratio_low"] is None or "answer" not in cell else cell["answer"]
    if verdict == "differs":
        return "more" if cell["ratio"] > 1 else "less"
    return _ANSWERS.get(str(verdict)) or answer(cell["ratio_low"], cell["ratio_high"], margin)


def _without_suspects(verdict: str, clean: Json | None, margin: float) -> str:
    """Return how an answer changes without suspect trials; empty if it does not."""
    if clean is None or verdict == "unknown":
        return ""
    without = answer(clean["clean_ratio_low"], clean["clean_ratio_high"], margin)
    if without == verdict:
        return ""
    if clean["clean_ratio_low"] is None:
        return "too few trials that are not suspect"
    return f"without suspect trials: {IN_WORDS[without]}"


def _reservation(wrong: bool, lost: str, metal: Lost | None, without: str) -> str:
    """Return why a row's answer supports no choice; empty if it supports one.

    Args:
        wrong: Whether its outputs differ from bare metal's.
        lost: Which of its trials were lost, in words.
        metal: The lost trials of its bare metal.
        without: How its answer changes without suspect trials.
    """
    if wrong:
        return OTHER_WORK
    if lost:
        return lost
    if metal and (metal.late or metal.invalid):
        return f"for bare metal, {metal.in_words()}"
    return without


def _alike(cell: Json) -> str:
    """Return a reservation if a cell's replicates are all alike; empty if they are not."""
    low, high = cell["ratio_low"], cell["ratio_high"]
    return "" if low is None or has_width(low, high) else "replicates alike to the last digit"


def _application(subject: str, rows: list[Json], reader: Reader) -> Json:
    options: dict[tuple[str, str], list[Json]] = {}
    for row in rows:
        options.setdefault((row["platform"], row["mode"]), []).append(row)
    pairs = [n for row in rows if (n := row["ratio_replicates"] or 0) > 1]
    return {
        "subject": subject,
        "measure": words.judged(rows[0]).name,
        "time": words.judged(rows[0]).time,
        "sizes": sorted({row["cores"] for row in rows}),
        "choose": sentences(rows, reader),
        "caution": caution(pairs) if pairs else None,
        "options": [
            {"platform": platform, "mode": mode, "answer": _cost(cells), "cells": cells}
            for (platform, mode), cells in options.items()
        ],
    }


def _cost(cells: Sequence[Json]) -> str:
    """Return the answers of one platform and mode in words, by size where they differ."""
    by_answer: dict[str, list[Json]] = {}
    for row in cells:
        by_answer.setdefault(row["answer"], []).append(row)
    parts = []
    for verdict, rows in by_answer.items():
        where = f" at {sizes(rows)}" if len(by_answer) > 1 else ""
        parts.append(f"{_answer_words(verdict, rows)}{where}")
    reasons = {row["reservation"]: row for row in cells if row["reservation"]}
    return "; ".join(
        [*parts, *(f"but {reason} (at {sizes([reasons[reason]])})" for reason in reasons)]
    )


def _answer_words(verdict: str, rows: Sequence[Json]) -> str:
    """Return an answer in words, with the range that the rows' intervals span together."""
    if verdict not in ("more", "less"):
        return IN_WORDS[verdict]
    if words.judged(rows[0]).better == "lower":
        return f"{span(rows)} {IN_WORDS[verdict]}"
    than = " than bare metal" if verdict == "less" else ""
    return f"{span(rows)} {verdict} time per sample{than} ({gained(rows)})"


def _sure(content: Json, rows: Sequence[Json]) -> list[str]:
    """Return how sure the answers are, in sentences: replicates, intervals, and their limits."""
    if not rows:
        return []
    pairs = sorted({row["ratio_replicates"] for row in rows})
    spread = (
        words.count(pairs[0], "pair") if len(pairs) == 1 else f"{pairs[0]} to {pairs[-1]} pairs"
    )
    parts = [f"Each ratio rests on {spread} of replicates, each on fresh instances."]
    if of := words.times_of(row["scenario"] for row in rows):
        parts.append(f"Ratios are of {of}.")
    halves = [
        math.sqrt(row["ratio_high"] / row["ratio_low"]) - 1
        for row in rows
        if row["ratio_low"] is not None and has_width(row["ratio_low"], row["ratio_high"])
    ]
    if halves:
        parts.append(
            f"The median interval extends {statistics.median(halves):.1%} to either side, the "
            f"widest {max(halves):.1%}. Each is a {CONFIDENCE:.0%} interval on its own: about 1 in "
            f"{round(1 / (1 - CONFIDENCE))} misses the true ratio by chance."
        )
    if several := content.get("hosts"):
        parts.append(several["sentence"])
    seen = [resolution["sentence"]] if (resolution := content.get("resolution")) else []
    return [*parts, *seen, *_unseen(rows, content["cells"])]


def _unseen(rows: Sequence[Json], cells: Iterable[Json]) -> Iterator[str]:
    """Yield a sentence on the share of slow instances that replicates may have missed."""
    compared = {key_of(row) for row in rows}
    shares = [share for cell in cells if key_of(cell) in compared and (share := cell.get("unseen"))]
    if shares:
        yield (
            f"Up to {max(shares):.0%} of instances could be slow for a reason of their own, and "
            "this sweep need not have seen one."
        )
