"""What a sweep could have seen, and how many replicates its margin needs.

Both rest on the spread of d_r, the per-replicate logarithms of a cell's ratio to bare metal. Few
replicates know it badly: of five, one in ten shows less than half of it. So every number here uses
the upper limit of the spread, at 80% confidence (Browne, "On the Use of a Pilot Sample for Sample
Size Determination", Statistics in Medicine 14, 1995, doi:10.1002/sim.4780141709).
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq
from scipy.special import ndtr

from virtbed_analysis import hours, words
from virtbed_analysis.cells import Cell
from virtbed_analysis.effects import Units
from virtbed_analysis.intervals import CONFIDENCE, NO_SPREAD, t_quantile
from virtbed_analysis.margin import percent
from virtbed_contract.sweep import MARGIN, MOST_REPLICATES, Design, answering_precision

Json = dict[str, Any]
Floats = NDArray[np.float64]
POWER = 0.8
"""How often a difference of the size named is detected, were the sweep repeated."""
ASSURANCE = 0.8
"""Confidence of the upper limit of a spread."""
FIRST = 5
"""Replicates to begin with, where none or one was measured."""


def upper_spread(deviation: float, n: int) -> float:
    """Return the upper limit of a standard deviation that n observations show, at `ASSURANCE`.

    Example:
        >>> round(upper_spread(0.01, 5), 4), round(upper_spread(0.01, 30), 4)
        (0.0156, 0.0114)
    """
    return deviation * math.sqrt((n - 1) / float(stats.chi2.ppf(1 - ASSURANCE, n - 1)))


@cache
def _critical(n: int) -> Floats:
    """Return the half width of an interval in standard errors, over the spreads that n show.

    Of 400 equally likely sample spreads, in place of an integral over their distribution: with it
    a power is a mean of normal probabilities. (A noncentral t is the same integral; SciPy's has no
    value at the far ends that two replicates ask for.)
    """
    shares = (np.arange(400) + 0.5) / 400
    spreads = np.sqrt(stats.chi2.ppf(shares, n - 1) / (n - 1))
    return np.asarray(t_quantile(CONFIDENCE, n - 1) * spreads)


@cache
def detectable_shift(n: int) -> float:
    """Return the smallest shift of a mean, in standard deviations, that n observations detect.

    The two-sided t test at 1 - `CONFIDENCE` finds it with probability `POWER`.
    """
    critical = _critical(n)

    def lacking(errors: float) -> float:
        power = ndtr(errors - critical) + ndtr(-errors - critical)
        return float(power.mean()) - POWER

    return float(brentq(lacking, 0.1, 100.0)) / math.sqrt(n)


def equivalence_power(deviation: float, n: int, margin: float) -> float:
    """Return how often n replicates of equal cells are found equivalent.

    That is how often the interval of `intervals.mean_interval` lies within the margin.
    """
    room = math.log1p(margin) * math.sqrt(n) / deviation - _critical(n)
    return float(np.clip(2 * ndtr(room) - 1, 0, None).mean())


def replicates_needed(deviation: float, margin: float, most: int = MOST_REPLICATES) -> int | None:
    """Return the replicates at which a margin gives answers, with `POWER`; None above `most`.

    A cell that costs nothing is then found equivalent, one that costs the margin to differ.
    """

    def enough(n: int) -> bool:
        detected = detectable_shift(n) * deviation <= math.log1p(margin)
        return detected and equivalence_power(deviation, n, margin) >= POWER

    if not enough(most):
        return None
    low, high = 1, most  # of which `high` is enough, and `low` is not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def of_units(
    units: Units,
    design: Design | None,
    name: str,
    margin: float = MARGIN,
    trials: pl.DataFrame | None = None,
) -> Json:
    """Return the report's part on resolution: a row per compared cell, sentence and command.

    Args:
        units: Of the sweep.
        design: Its design, if it has one.
        name: Its name, which commands take.
        margin: The smallest cost worth knowing, as a share.
        trials: Those of the sweep, whose starts tell how long more replicates take.

    Returns:
        `rows`: the cell, `replicates` (pairs), `spread` (standard deviation of d_r),
        `detectable` (the smallest ratio above 1 that is detected), `needed` (replicates of
        the margin; None for more than a plan can have) and `more` than measured; all None where no
        spread is seen.
        `sentence`; `command` to type, or None; `takes`, how long that is in
        words, or None, and `takes_s`; `remedy`: what else to change, or None.
    """
    rows = []
    for cell in units.cells():
        logs = units.cost(cell) if cell != units.baseline(cell) else None
        if logs is not None:
            deviation = float(logs.std(ddof=1)) if len(logs) > 1 else None
            rows.append(_row(cell, len(logs), deviation, margin))
    return {
        "margin": margin,
        "power": POWER,
        "assurance": ASSURANCE,
        "rows": rows,
        "sentence": _sentence(rows, margin),
        **_with_hours(_next_step(rows, design, name, margin), design, trials),
    }


def _planned(design: Design | None) -> int:
    return max((t.replicate for t in design.trials), default=0) if design else 0


def _with_hours(step: Json, design: Design | None, trials: pl.DataFrame | None) -> Json:
    """Return the next step with how long its command takes, where it asks for more replicates."""
    target = step.pop("target", 0)
    takes: Json = {"takes": None, "takes_s": None}
    if step["command"] and trials is not None and (more := target - _planned(design)) > 0:
        seconds = hours.needed_s(trials, more)
        takes = {"takes": hours.in_words(seconds, more), "takes_s": seconds}
    return step | takes


def _row(cell: Cell, n: int, deviation: float | None, margin: float) -> Json:
    row = {
        **cell.row(),
        "replicates": n,
        "spread": None,
        "detectable": None,
        "needed": None,
        "more": None,
    }
    if deviation is None or deviation <= NO_SPREAD:
        return row
    cautious = upper_spread(deviation, n)
    needed = replicates_needed(cautious, margin)
    return row | {
        "spread": deviation,
        "detectable": math.exp(min(detectable_shift(n) * cautious, 700.0)),
        "needed": needed,
        "more": None if needed is None else max(0, needed - n),
    }


def _sentence(rows: list[Json], margin: float) -> str:
    """Return which overhead the sweep could have shown, and whether its margin is within reach."""
    known = sorted(row["detectable"] for row in rows if row["detectable"] is not None)
    if not known:
        return (
            "What this sweep could have shown is not known: no cell has two replicates that are "
            "paired with bare metal and differ."
        )
    least, most = (_overhead(ratio) for ratio in (known[0], known[-1]))
    span = (
        least if least == most else f"{least} in the steadiest cell and {most} in the least steady"
    )
    able = sum(row["more"] == 0 for row in rows)
    return (
        f"The smallest overhead that {POWER:.0%} of sweeps like this show is about {span}. An "
        f"answer at the margin of {percent(margin)} could be expected in {able} of "
        f"{words.count(len(rows), 'cell')}."
    )


def _overhead(ratio: float) -> str:
    share = ratio - 1
    return f"{100 * share:.2g}%" if share < 1 else f"{ratio:.2g} times"


def _next_step(rows: list[Json], design: Design | None, name: str, margin: float) -> Json:
    """Return the command to type, and what else would help."""
    unknown = [row for row in rows if row["detectable"] is None and row["replicates"] < 2]
    flat = sum(row["detectable"] is None for row in rows) - len(unknown)
    reached = [row["needed"] for row in rows if row["more"]]
    beyond = sum(row["detectable"] is not None and row["needed"] is None for row in rows)
    planned = _planned(design)
    target = max([*reached, *([FIRST] if unknown else [])], default=0)
    remedies = []
    precise = answering_precision(margin)
    if design and design.precision is not None and design.precision > precise and reached:
        return {
            "command": None,
            "remedy": (
                f"The plan lets a cell stop once its ratio is known within "
                f"{percent(design.precision)}, which the margin of {percent(margin)} cannot always "
                f"answer by: precision: {math.floor(1000 * precise) / 10:.1f}% in the plan, under "
                "another name, always gives an answer."
            ),
        }
    if flat:
        remedies.append(
            f"{words.count(flat, 'cell')} with replicates alike to the last digit: more of them "
            "show no more; look for copies, or a clock that is too coarse."
        )
    if beyond:
        remedies.append(
            f"Make the host quiet: at its noise {words.count(beyond, 'cell')} would need more than "
            f"{MOST_REPLICATES} replicates, the most that a plan takes. Or change the plan, under "
            "another name: tuning: true, more samples, a wider margin."
        )
    if 0 < target <= planned:
        remedies.append(
            f"The plan's {planned} replicates are enough, but not all have a result: finish or "
            "repeat what is missing."
        )
    command = f"virtbed sweep {name}"
    if target > planned:
        command += f" --replicates {target}"
    return {
        "command": command if target else None,
        "remedy": " ".join(remedies) or None,
        "target": target,
    }
