"""Three answers about a ratio at a margin: differs, equivalent, cannot tell."""

from __future__ import annotations

import math

MARGIN = 0.03
"""The smallest cost worth knowing, as a share, where nobody says another."""
DIFFERS, EQUIVALENT, CANNOT_TELL = "differs", "equivalent", "cannot tell"
_NO_SPREAD = 1e-7  # of logarithms: a clock's last digit shows no precision


def answer(low: float | None, high: float | None, margin: float = MARGIN) -> str:
    """Return what the interval of a ratio says at a margin.

    Equivalent: the whole interval is between 1 / (1 + margin) and 1 + margin (two one-sided tests,
    Schuirmann 1987, doi:10.1007/BF01068419). Differs: otherwise, and without 1 in it. Cannot tell:
    otherwise, or without an interval: absence of evidence is no evidence of absence.

    Example:
        >>> answer(0.99, 1.01), answer(1.02, 1.06), answer(0.97, 1.05)
        ('equivalent', 'differs', 'cannot tell')
    """
    if low is None or high is None or not has_width(low, high):
        return CANNOT_TELL
    if 1 / (1 + margin) < low and high < 1 + margin:
        return EQUIVALENT
    return DIFFERS if low > 1 or high < 1 else CANNOT_TELL


def has_width(low: float, high: float) -> bool:
    """Return whether ends are an interval of a ratio, and no single point."""
    return low >= 0 and high > 0 and (low == 0 or math.log(high / low) > _NO_SPREAD)
