"""Power of a sweep: the smallest overhead it could detect, and the replicates its margin needs.

Both depend on the standard deviation of d_r, the per-replicate log ratios of a cell to bare metal.
A few replicates estimate it badly: of samples of five, one in ten shows less than half of it. All
numbers here therefore use its upper confidence limit at 80% (Browne, "On the Use of a Pilot Sample
for Sample Size Determination", Statistics in Medicine 14, 1995, doi:10.1002/sim.4780141709).
Assumption: the d_r are independent and normal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
from virtbed_analysis.samples_per_trial import longer
from virtbed_contract.sweep import MARGIN, Design, answering_precision

Json = dict[str, Any]
Floats = NDArray[np.float64]
POWER = 0.8
"""Probability of detecting a difference of the stated size."""
ASSURANCE = 0.8
"""Confidence of the upper limit of a standard deviation."""
FIRST = 5
"""Recommended number of replicates if a cell has fewer than two."""
MOST_RECOMMENDED = 99
"""Largest number of replicates that is recommended: beyond it, less noise is needed."""


def upper_spread(deviation: float, n: int) -> float:
    """Return the one-sided upper confidence limit of a standard deviation, at `ASSURANCE`.

    deviation * sqrt((n - 1) / chi2(1 - ASSURANCE; n - 1)), for normal observations.

    Args:
        deviation: Sample standard deviation of n observations.
        n: Their number, at least 2.

    Example:
        >>> round(upper_spread(0.01, 5), 4), round(upper_spread(0.01, 30), 4)
        (0.0156, 0.0114)
    """
    return deviation * math.sqrt((n - 1) / float(stats.chi2.ppf(1 - ASSURANCE, n - 1)))


@cache
def _critical(n: int) -> Floats:
    """Return the half-width of a t interval in true standard errors, for 400 sample spreads.

    The 400 values are equally likely quantiles of the sample standard deviation's distribution
    (chi with n - 1 degrees of freedom). Averaging normal probabilities over them replaces the
    integral of the noncentral t distribution, whose implementation in SciPy fails at the extreme
    arguments that two replicates need.
    """
    shares = (np.arange(400) + 0.5) / 400
    spreads = np.sqrt(stats.chi2.ppf(shares, n - 1) / (n - 1))
    return np.asarray(t_quantile(CONFIDENCE, n - 1) * spreads)


@cache
def detectable_shift(n: int) -> float:
    """Return the minimal detectable shift of a mean, in standard deviations.

    The two-sided t test of n observations at level 1 - `CONFIDENCE` detects it with probability
    `POWER`.
    """
    critical = _critical(n)

    def lacking(errors: float) -> float:
        power = ndtr(errors - critical) + ndtr(-errors - critical)
        return float(power.mean()) - POWER

    return float(brentq(lacking, 0.1, 100.0)) / math.sqrt(n)


def equivalence_power(deviation: float, n: int, margin: float) -> float:
    """Return the power of the equivalence test (`margin`) if the true ratio is 1.

    It is the probability that the whole interval of `intervals.mean_interval` is within the margin.

    Args:
        deviation: True standard deviation of the per-replicate log ratios.
        n: Number of replicates.
        margin: The margin, as a share.
    """
    room = math.log1p(margin) * math.sqrt(n) / deviation - _critical(n)
    return float(np.clip(2 * ndtr(room) - 1, 0, None).mean())


def replicates_needed(deviation: float, margin: float, most: int = MOST_RECOMMENDED) -> int | None:
    """Return the least number of replicates at which a margin gives answers, with `POWER`.

    A cell with a true ratio of 1 is then found equivalent, and one with a ratio of 1 + margin is
    found to differ, each with that probability.

    Args:
        deviation: True standard deviation of the per-replicate log ratios.
        margin: The margin, as a share.
        most: The largest number to consider.

    Returns:
        The number, or None if it is above `most`.
    """

    def enough(n: int) -> bool:
        detected = detectable_shift(n) * deviation <= math.log1p(margin)
        return detected and equivalence_power(deviation, n, margin) >= POWER

    if not enough(most):
        return None
    low, high = 1, most  # bisection: `high` is enough, `low` is not
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
    samples: Sequence[Json] = (),
) -> Json:
    """Return the report's part on resolution.

    Args:
        units: The units of the sweep.
        design: Its design, if it has one.
        name: The sweep's name, as commands take it.
        margin: The smallest cost worth knowing, as a share.
        trials: `Sweep.trials`, whose starts give the duration of more replicates.
        samples: The result of `samples_per_trial.rows`.

    Returns:
        `rows`, one per compared cell: the cell, `replicates` (pairs), `spread` (standard deviation
        of d_r), `detectable` (the smallest ratio above 1 that is detected with `power`), `needed`
        (replicates for the margin; None if more than a plan can have) and `more` (needed minus
        measured, at least 0); all None without a spread. Besides `margin`, `power`, `assurance`:
        `sentence`; `command` (the next one to type, or None); `takes` and `takes_s` (its duration
        in words and seconds, or None); `remedy` (what else to change, or None).
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
        **_with_hours(_next_step(rows, design, name, margin, samples), design, trials),
    }


def _planned(design: Design | None) -> int:
    return max((t.replicate for t in design.trials), default=0) if design else 0


def _with_hours(step: Json, design: Design | None, trials: pl.DataFrame | None) -> Json:
    """Return the next step with the duration of its command, if it measures more replicates."""
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
    needed = replicates_needed(cautious, margin, max(n, MOST_RECOMMENDED))
    return row | {
        "spread": deviation,
        "detectable": math.exp(min(detectable_shift(n) * cautious, 700.0)),
        "needed": needed,
        "more": None if needed is None else max(0, needed - n),
    }


def _sentence(rows: list[Json], margin: float) -> str:
    """Return a sentence on the detectable overhead, and on how many cells reach the margin."""
    known = sorted(row["detectable"] for row in rows if row["detectable"] is not None)
    if not known:
        return (
            "The smallest overhead that this sweep could detect is not known: no cell has two "
            "replicates that are paired with bare metal and differ."
        )
    least, most = (_overhead(ratio) for ratio in (known[0], known[-1]))
    span = (
        least if least == most else f"{least} in the steadiest cell and {most} in the least steady"
    )
    able = sum(row["more"] == 0 for row in rows)
    return (
        f"The smallest overhead that {POWER:.0%} of sweeps like this detect is about {span}. An "
        f"answer at the margin of {percent(margin)} can be expected in {able} of "
        f"{words.count(len(rows), 'cell')}."
    )


def _overhead(ratio: float) -> str:
    share = ratio - 1
    return f"{100 * share:.2g}%" if share < 1 else f"{ratio:.2g} times"


def _next_step(
    rows: list[Json], design: Design | None, name: str, margin: float, samples: Sequence[Json]
) -> Json:
    """Return `command`, the next one to type, `remedy` and `target`, its replicates."""
    unknown = [row for row in rows if row["detectable"] is None and row["replicates"] < 2]
    flat = sum(row["detectable"] is None for row in rows) - len(unknown)
    reached = [row["needed"] for row in rows if row["more"]]
    beyond = [row for row in rows if row["detectable"] is not None and row["needed"] is None]
    planned = _planned(design)
    target = max([*reached, *([FIRST] if unknown else [])], default=0)
    remedies = []
    precise = answering_precision(margin)
    if design and design.precision is not None and design.precision > precise and reached:
        return {
            "command": None,
            "remedy": (
                f"The plan stops a cell once its ratio is known within "
                f"{percent(design.precision)}, which does not always give an answer at the margin "
                f"of {percent(margin)}: precision: {math.floor(1000 * precise) / 10:.1f}% in the "
                "plan, under another name, always does."
            ),
        }
    if flat:
        remedies.append(
            f"{words.count(flat, 'cell')} with replicates alike to the last digit, which more "
            "replicates do not change: look for copies, or a clock that is too coarse."
        )
    if beyond:
        work = {(row["application"], row["scale"], row["scenario"]) for row in beyond}
        changes = ["tuning: true", *longer(samples, work), "a wider margin"]
        remedies.append(
            "Reduce other load on the host (virtbed doctor lists some causes): with its noise "
            f"{words.count(len(beyond), 'cell')} would need more than {MOST_RECOMMENDED} "
            f"replicates. Or change the plan, under another name: {', '.join(changes)}."
        )
    if 0 < target <= planned:
        enough = (
            f"Whether the plan's {planned} replicates are enough is not known yet, because not"
            if unknown
            else f"The plan's {planned} replicates are enough, but not"
        )
        remedies.append(f"{enough} all have a result: finish or repeat what is missing.")
    command = f"virtbed sweep {name}"
    if target > planned:
        command += f" --replicates {target}"
    return {
        "command": command if target else None,
        "remedy": " ".join(remedies) or None,
        "target": target,
    }
