"""Speed-up by cores, and the dependence of a platform's cost on its size.

All functions work on `effects.Units`; the intervals of one curve (one subject on one platform in
one mode, over cores) are simultaneous 95% intervals (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, takewhile

import numpy as np

from virtbed_analysis import doubts, words
from virtbed_analysis.cells import CURVE, Cell
from virtbed_analysis.effects import Units
from virtbed_analysis.engine import Effect, Floats, effects, shared, together
from virtbed_analysis.findings import PENALTY
from virtbed_analysis.margin import CANNOT_TELL
from virtbed_analysis.platforms import METAL, PROCESS
from virtbed_analysis.trust import Json

# The least speed-up at which a doubling of cores pays.
PAYS = 1.1
# The least number of sizes for the fit: its two parameters fit any two sizes exactly.
SIZES_TO_FIT = 3
# The least number of replicates for a test of the fit: intervals of fewer are too wide.
REPLICATES_TO_TEST = 3
# A misfit below this share is accepted, even if it is significant.
NEGLIGIBLE = 0.01
# The fit is accepted only if a misfit above this share is excluded.
TOLERATED = 0.1
# Exponents of alternative models, a + b / cores^exponent. If one of them is not rejected and has
# another limit, the limit is not identified by the measured sizes.
OTHERS = {0.5: "the root of the cores", 2.0: "the square of the cores"}
PARTS = ("type", "size")
FITS, MISFIT, UNDECIDED = "fits", "does not fit", "cannot tell"


def _curves(units: Units) -> Iterator[list[Cell]]:
    """Yield the cells of each curve, sorted by cores."""
    cells = sorted(units.cells(), key=lambda cell: units.order(cell._replace(cores=0)))
    for _, curve in groupby(cells, key=_of):
        yield list(curve)


def _of(cell: Cell) -> Json:
    return {part: cell.value(part) for part in CURVE}


def scale_up(units: Units) -> list[Json]:
    """Return the speed-up of each doubling of cores: time at `cores` over time at twice as many.

    Returns:
        One row per doubling: the columns of a `Cell`, `speed_up`, `low`, `high` (None with fewer
        than two replicates; simultaneous for one curve), `n` (replicates that have both sizes), and
        the columns of `doubts.marked`.
    """
    rows = []
    for curve in _curves(units):
        speed_ups = together(
            (cell.application, [units.over(cell, cell._replace(cores=2 * cell.cores))])
            for cell in curve
        )
        rows += [
            {
                **_of(cell), "cores": cell.cores, "speed_up": effect.value,
                "low": effect.low, "high": effect.high, "n": effect.n,
                **_doubling(units, cell),
            }
            for cell, effect in zip(curve, speed_ups, strict=True)
            if effect
        ]  # fmt: skip
    return doubts.marked(rows)


def _doubling(units: Units, cell: Cell) -> Json:
    """Return the per-replicate logarithms of a doubling's speed-up, as `doubts` takes them."""
    of, (one, two) = shared(units.logs[cell], units.logs[cell._replace(cores=2 * cell.cores)])
    return {"ratio_logs": (one - two).tolist(), "ratio_of": list(of), "ratio_replicates": len(of)}


def efficient_range(doublings: list[Json]) -> list[Json]:
    """Return the range of cores in which doubling pays, one row per curve.

    The range ends at the first size whose doubling does not clearly give a speed-up of `PAYS` (the
    lower end of its interval is not above it). Sizes beyond a missing doubling are not considered.

    Args:
        doublings: The rows of `scale_up`.

    Returns:
        The columns of the doubling that ends the range (or of the last one), with `cores` (the end
        of the range), `open` (whether even the largest size is within the range), and `beyond`:
        "does not pay" if the whole interval of the ending doubling is at most `PAYS`, "cannot tell"
        if not, None for an open range.
    """
    rows = []
    for _, group in groupby(doublings, key=lambda row: [row[part] for part in CURVE]):
        curve: list[Json] = []
        for row in group:
            if curve and row["cores"] != 2 * curve[-1]["cores"]:
                break
            curve.append(row)
        over = next((r for r in curve if r["low"] is None or r["low"] <= PAYS), None)
        last = over or curve[-1]
        rows.append(
            {
                **last,
                "cores": last["cores"] if over else 2 * last["cores"],
                "open": over is None,
                "beyond": _beyond(over),
            }
        )
    return rows


def _beyond(over: Json | None) -> str | None:
    if over is None:
        return None
    clear = over["high"] is not None and over["high"] <= PAYS
    return "does not pay" if clear else CANNOT_TELL


def overhead_by_size(units: Units) -> list[Json]:
    """Return each platform's overhead split into a constant part and a part that falls with size.

    Model: log ratio to bare metal = a + b / cores, fitted by ordinary least squares in each
    replicate that has all sizes. `type` = exp(a) is the limit for large instances, `size` = exp(b)
    the additional factor of an instance of one core. The names platform-type and platform-size
    overhead are from arXiv 2006.02055; the form of the model is ours.

    Test of the model: simultaneous intervals of measured over fitted at each size, from the
    replicates' residuals, so the variance may differ between sizes. `fit` is "does not fit" if an
    interval excludes 1 and the deviation is above `NEGLIGIBLE`, "fits" if all intervals are within
    `TOLERATED` of 1, else "cannot tell". The limit is an extrapolation, so the answer is also
    "cannot tell" if an alternative exponent of `OTHERS` is not rejected and its limit differs by
    more than `NEGLIGIBLE`.

    Returns:
        One row per curve with at least `SIZES_TO_FIT` sizes: the columns of the curve, `sizes`,
        `fit`, `because` (in words), `deviation` with `_low`, `_high`, `_cores` (the largest
        deviation of measured over fitted), and `type` and `size` with `_low`, `_high` (None unless
        `fit` is "fits").
    """
    rows = []
    for curve in _curves(units):
        sizes = [] if units.is_bare(curve[0]) else [c for c in curve if units.cost(c) is not None]
        if len(sizes) < SIZES_TO_FIT:
            continue
        fits, fit = _fitted(units, sizes, 1.0)
        if fit["fit"] == FITS and (rival := _rival(units, sizes, fits)):
            fit |= {"fit": UNDECIDED, "because": f"{fit['because']}; but {rival}"}
        row = _of(curve[0]) | {"sizes": [cell.cores for cell in sizes]} | fit
        parts = together(
            (part, [_combined(units, sizes, weights) if row["fit"] == FITS else None])
            for part, weights in zip(PARTS, fits, strict=True)
        )
        for part, effect in zip(PARTS, parts, strict=True):
            row[part] = effect.value if effect else None
            row[f"{part}_low"] = effect.low if effect else None
            row[f"{part}_high"] = effect.high if effect else None
        rows.append(row)
    return rows


def _fitted(units: Units, sizes: list[Cell], power: float) -> tuple[Floats, Json]:
    """Return the least-squares weights of a and b in a + b / cores^power, and the test of the fit.

    The weights have shape (2, sizes): each parameter is a weighted sum over sizes.
    """
    design = np.column_stack([np.ones(len(sizes)), [cell.cores**-power for cell in sizes]])
    fits = np.linalg.pinv(design)
    deviations = effects(
        (str(cell.cores), [_combined(units, sizes, row)])
        for cell, row in zip(sizes, np.eye(len(sizes)) - design @ fits, strict=True)
    )
    return fits, _fit(deviations)


def _rival(units: Units, sizes: list[Cell], fits: Floats) -> str:
    """Return a sentence on an alternative model with another limit; "" if there is none."""
    limits = []
    for power, words_of in {1.0: "", **OTHERS}.items():
        weights, fit = (fits, {"fit": FITS}) if power == 1 else _fitted(units, sizes, power)
        logs = _combined(units, sizes, weights[0])
        if logs is not None and fit["fit"] != MISFIT:
            limits.append((float(logs.mean()), words_of))
    own, *others = limits
    apart = max(others, key=lambda one: abs(one[0] - own[0]), default=own)
    if abs(apart[0] - own[0]) <= np.log1p(NEGLIGIBLE):
        return ""
    return (
        f"a part that falls with {apart[1]} is not excluded, and its limit is "
        f"{np.exp(apart[0]):.3f} instead of {np.exp(own[0]):.3f}"
    )


def _combined(units: Units, sizes: list[Cell], weights: Floats) -> Floats | None:
    """Return the weighted sum over sizes of the log ratios, one value per replicate."""
    return units.contrast(
        *(
            (sign * float(weight), which)
            for weight, cell in zip(weights, sizes, strict=True)
            for sign, which in ((1, cell), (-1, units.baseline(cell)))
        )
    )


def _fit(deviations: list[Effect]) -> Json:
    """Return the test of a fit from the deviations; the name of each is its number of cores."""
    if not deviations:
        return _answer(UNDECIDED, None, "no replicate has all of its sizes")
    worst = max(deviations, key=lambda effect: abs(np.log(effect.value)))
    if worst.n < REPLICATES_TO_TEST:
        found = words.count(worst.n, "replicate")
        few = f"{found} with all sizes found, {REPLICATES_TO_TEST} needed for the test"
        return _answer(UNDECIDED, worst, few)
    spans = [(effect.low or 0.0, effect.high or np.inf) for effect in deviations]
    clear = [
        (low > 1 or high < 1) and abs(np.log(effect.value)) > np.log1p(NEGLIGIBLE)
        for effect, (low, high) in zip(deviations, spans, strict=True)
    ]
    size = words.count(int(worst.about), "core")
    measured = f"measured {worst.value:.3f} times the fit at {size}"
    if worst.low is not None:
        measured += f" ({worst.low:.3f} to {worst.high:.3f})"
    if any(clear):
        return _answer(MISFIT, worst, measured)
    most = 1 + TOLERATED
    if any(low < 1 / most or high > most for low, high in spans):
        return _answer(UNDECIDED, worst, f"{measured}: {TOLERATED:.0%} off is not excluded")
    return _answer(FITS, worst, measured)


def _answer(answer: str, worst: Effect | None, because: str) -> Json:
    return {
        "fit": answer,
        "because": because,
        "deviation": worst.value if worst else None,
        "deviation_low": worst.low if worst else None,
        "deviation_high": worst.high if worst else None,
        "deviation_cores": int(worst.about) if worst else None,
    }


def container_to_host(units: Units, host_cpus: int | None) -> Json:
    """Return the cost of containers by their container-to-host ratio (CHR).

    The CHR is a container's cores over the host's online CPUs, as in arXiv 2006.02055, which finds
    that overhead falls with it. Containers in guests are left out, since their host is the guest.

    Args:
        units: The units of a sweep.
        host_cpus: The number of online CPUs of the host; None if not known, for an empty table.

    Returns:
        `host_cpus`; `penalty`; `rows`, one per container cell: the columns of a `Cell`, `chr`,
        `ratio` to bare metal, `low`, `high` (simultaneous for one curve), `n`; and `enough`, one
        per curve: the least `cores` and `chr` from which on the interval of every measured size is
        below `penalty` (None if that of the largest is not), and `sizes` (their number).
    """
    table: Json = {"host_cpus": host_cpus, "penalty": PENALTY, "rows": [], "enough": []}
    if not host_cpus:
        return table
    for curve in _curves(units):
        machine, enclosure = units.platforms.parts(curve[0].platform)
        if machine != METAL or enclosure == PROCESS:
            continue
        costs = together((cell.application, [units.cost(cell)]) for cell in curve)
        rows = [
            {
                **_of(cell), "cores": cell.cores, "chr": cell.cores / host_cpus,
                "ratio": effect.value, "low": effect.low, "high": effect.high, "n": effect.n,
            }
            for cell, effect in zip(curve, costs, strict=True)
            if effect
        ]  # fmt: skip
        cheap = list(
            takewhile(lambda row: row["high"] is not None and row["high"] < PENALTY, rows[::-1])
        )
        if rows:
            least = cheap[-1] if cheap else {"cores": None, "chr": None}
            table["enough"].append(
                {**_of(curve[0]), "cores": least["cores"], "chr": least["chr"], "sizes": len(rows)}
            )
        table["rows"] += rows
    return table
