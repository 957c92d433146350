"""Answers about a ratio at a margin: "differs", "equivalent" or "cannot tell".

The margin m is the smallest cost worth knowing. The equivalence range is symmetric on the
logarithmic scale: ratios from 1 / (1 + m) to 1 + m.

- Equivalent: the whole interval is within the range. With a 95% interval these are the two
  one-sided tests of Schuirmann (TOST, Journal of Pharmacokinetics and Biopharmaceutics 15, 1987,
  doi:10.1007/BF01068419), each at 2.5%; 5% each, with a 90% interval, is customary. The interval
  that is shown decides, and a true ratio beyond the margin is called equivalent in at most 2.5% of
  sweeps.
- Differs: otherwise, if the interval excludes 1.
- Cannot tell: otherwise, or without an interval. Absence of evidence for a difference is no
  evidence of equivalence.

An interval that excludes 1 and is within the range shows a difference too small to matter: the
answer is "equivalent", and the note says so. An interval whose half-width is at most half the
margin always gives an answer other than "cannot tell".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from virtbed_analysis.intervals import NO_SPREAD
from virtbed_contract.sweep import MARGIN

Answer = Literal["differs", "equivalent", "cannot tell"]
DIFFERS: Answer = "differs"
EQUIVALENT: Answer = "equivalent"
CANNOT_TELL: Answer = "cannot tell"


def answer(low: float | None, high: float | None, margin: float = MARGIN) -> Answer:
    """Return the answer that a ratio's interval gives at a margin.

    Args:
        low: Lower end of the ratio's interval; None without an interval.
        high: Upper end.
        margin: The smallest cost worth knowing, as a share.

    Example:
        >>> answer(0.99, 1.01, 0.03), answer(1.02, 1.06, 0.03), answer(0.97, 1.05, 0.03)
        ('equivalent', 'differs', 'cannot tell')

    Example:
        >>> answer(1.05, 1.40), answer(0.99, 1.01), answer(0.99, 1.20), answer(None, None)
        ('differs', 'equivalent', 'cannot tell', 'cannot tell')
    """
    if low is None or high is None or not has_width(low, high):
        return CANNOT_TELL
    if 1 / (1 + margin) < low and high < 1 + margin:
        return EQUIVALENT
    return DIFFERS if low > 1 or high < 1 else CANNOT_TELL


def note(low: float | None, high: float | None, margin: float = MARGIN) -> str | None:
    """Return an addition to the answer, in words; None if there is none, or no interval.

    Args:
        low: Lower end of the ratio's interval; None without an interval.
        high: Upper end.
        margin: The smallest cost worth knowing, as a share.

    Example:
        >>> note(0.97, 1.05)
        'anything from 3% less to 5% more is possible'
    """
    if low is None or high is None:
        return None
    if not has_width(low, high):
        return "the replicates are alike to the last digit, which shows no precision"
    kind, excludes_1 = answer(low, high, margin), low > 1 or high < 1
    if kind == EQUIVALENT:
        return f"a difference is seen, smaller than {percent(margin)}" if excludes_1 else None
    if kind == CANNOT_TELL:
        return f"anything from {change(low)} to {change(high)} is possible"
    beyond = low >= 1 + margin or high <= 1 / (1 + margin)
    return None if beyond else f"whether by {percent(margin)} or more is undecided"


def with_answers(rows: Iterable[Mapping[str, Any]], margin: float) -> list[dict[str, Any]]:
    """Return rows with `answer` and `answer_note`; both None in a row without a ratio.

    Args:
        rows: Each with `ratio`, `ratio_low` and `ratio_high`.
        margin: The smallest cost worth knowing, as a share.
    """
    return [
        {
            **row,
            "answer": answer(*ends, margin) if row["ratio"] is not None else None,
            "answer_note": note(*ends, margin) if row["ratio"] is not None else None,
        }
        for row in rows
        for ends in [(row["ratio_low"], row["ratio_high"])]
    ]


def percent(share: float) -> str:
    """Return a share in percent with three significant digits.

    Example:
        >>> percent(0.03)
        '3%'
    """
    return f"{100 * share:.3g}%"


def change(ratio: float) -> str:
    """Return a ratio in words: "2% less", "no more", "5% more"; "3 times as much" from 2 on.

    Example:
        >>> change(1.25)
        '25% more'
    """
    if ratio >= 2:
        return f"{ratio:.3g} times as much"
    moved = round(100 * (ratio - 1), 1)
    return f"{abs(moved):.3g}% {'more' if moved > 0 else 'less'}" if moved else "no more"


def has_width(low: float, high: float) -> bool:
    """Return whether two ends are a valid interval of a ratio wider than `NO_SPREAD`."""
    return low >= 0 and high > 0 and (low == 0 or math.log(high / low) > NO_SPREAD)
