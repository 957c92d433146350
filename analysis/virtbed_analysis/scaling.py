"""What more cores give, and how a platform's cost depends on its size.

Both work on `effects.Units`: intervals within one curve are simultaneous.
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

# A doubling pays where it makes a request at least this many times faster.
PAYS = 1.1
# Two parameters of a line through two sizes would fit whatever was measured.
SIZES_TO_FIT = 3
# With fewer, an interval of a residual says next to nothing.
REPLICATES_TO_TEST = 3
# A form that is wrong by less than this is right enough, however sure it is that it is wrong.
NEGLIGIBLE = 0.01
# A form that may be wrong by more than this is not shown to be right.
TOLERATED = 0.1
# Other forms that a part may fall by: if one of them fits as well, and leaves another limit, then
# these sizes do not tell the limit.
OTHERS = {0.5: "the root of the cores", 2.0: "the square of the cores"}
PARTS = ("type", "size")
FITS, MISFIT, UNDECIDED = "fits", "does not fit", "cannot tell"


def _curves(units: Units) -> Iterator[list[Cell]]:
    """Give the cells of each curve: one subject on one platform in one mode, by cores."""
    cells = sorted(units.cells(), key=lambda cell: units.order(cell._replace(cores=0)))
    for _, curve in groupby(cells, key=_of):
        yield list(curve)


def _of(cell: Cell) -> Json:
    return {part: cell.value(part) for part in CURVE}


def scale_up(units: Units) -> list[Json]:
    """Return what each doubling of cores gives: time at `cores` over time at twice as many.

    One row per doubling: the parts of a `Cell`, `speed_up`, `low`, `high` (None with fewer than
    two replicates), `n` replicates, and what `doubts.marked` says of the interval.
    """
    rows = []
    for curve in _curves(units):
        found = together(
            (cell.application, [units.over(cell, cell._replace(cores=2 * cell.cores))])
            for cell in curve
        )
        rows += [
            {
                **_of(cell), "cores": cell.cores, "speed_up": effect.value,
                "low": effect.low, "high": effect.high, "n": effect.n,
                **_doubling(units, cell),
            }
            for cell, effect in zip(curve, found, strict=True)
            if effect
        ]  # fmt: skip
    return doubts.marked(rows)


def _doubling(units: Units, cell: Cell) -> Json:
    """Return the logarithms of a doubling's gain and their replicates, as `doubts` takes them."""
    of, (one, two) = shared(units.logs[cell], units.logs[cell._replace(cores=2 * cell.cores)])
    return {"ratio_logs": (one - two).tolist(), "ratio_of": list(of), "ratio_replicates": len(of)}


def efficient_range(doublings: list[Json]) -> list[Json]:
    """Return how far each curve of `scale_up` pays: up to `cores`, and why not further.

    The range ends at the first size whose doubling does not clearly give `PAYS`, and that doubling
    is shown with its interval; without one, nothing is known beyond. `open` says that the largest
    size reached by doublings is still within it: sizes beyond a gap are not looked at. `beyond`
    says what is known of the doubling that ends it: "does not pay" (its whole interval is at most
    `PAYS`) or "cannot tell"; None where none does.
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
    """Return each platform's overhead as a part that stays and a part that falls with size.

    The logarithm of the ratio to bare metal is fitted, by least squares in each replicate, as
    a + b / cores; `type` is exp(a), the limit of ever larger instances, and `size` is exp(b), what
    one core pays on top: the platform-type and platform-size overheads, named by
    arXiv 2006.02055; the form of the fit is ours. Needs `SIZES_TO_FIT` sizes.

    The form is tested by what is measured over what is fitted at each size: simultaneous intervals
    on the replicates' residuals, which need no equal spread at all sizes. `fit` is "fits" where
    each interval lies within `TOLERATED` of 1 and none is clear of 1 by more than `NEGLIGIBLE`,
    "does not fit" where one is, else "cannot tell". No size measured the limit, so it is "cannot
    tell", too, where one of `OTHERS` is not shown to be wrong and ends more than `NEGLIGIBLE` away.
    Only what fits has `type` and `size`, else null.
    `deviation` (`_low`, `_high`, `_cores`) is the largest, `because` says it in words.
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
    """Return the weights of a + b / cores^power's parts, and whether that form fits."""
    design = np.column_stack([np.ones(len(sizes)), [cell.cores**-power for cell in sizes]])
    fits = np.linalg.pinv(design)
    deviations = effects(
        (str(cell.cores), [_combined(units, sizes, row)])
        for cell, row in zip(sizes, np.eye(len(sizes)) - design @ fits, strict=True)
    )
    return fits, _fit(deviations)


def _rival(units: Units, sizes: list[Cell], fits: Floats) -> str:
    """Return which other form may be right, and where it ends; empty if none of them matters."""
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
        f"a part that falls with {apart[1]} is not shown to be wrong, and leaves "
        f"{np.exp(apart[0]):.3f} where this form leaves {np.exp(own[0]):.3f}"
    )


def _combined(units: Units, sizes: list[Cell], weights: Floats) -> Floats | None:
    """Return a weighted sum over sizes of the logarithms of the ratio, one per replicate."""
    return units.contrast(
        *(
            (sign * float(weight), which)
            for weight, cell in zip(weights, sizes, strict=True)
            for sign, which in ((1, cell), (-1, units.baseline(cell)))
        )
    )


def _fit(deviations: list[Effect]) -> Json:
    """Return the answer to whether a curve fits; `about` of each deviation is its size."""
    if not deviations:
        return _answer(UNDECIDED, None, "no replicate has all of its sizes")
    worst = max(deviations, key=lambda effect: abs(np.log(effect.value)))
    if worst.n < REPLICATES_TO_TEST:
        few = f"{worst.n} replicates have all sizes, {REPLICATES_TO_TEST} needed to test the fit"
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
        return _answer(UNDECIDED, worst, f"{measured}: {TOLERATED:.0%} off is not ruled out")
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
    """Return what containers cost by their share of the host: its container-to-host ratio (CHR).

    A container's CHR is its cores over the host's online CPUs, as in arXiv 2006.02055, which finds
    that its overhead falls with it. Containers in guests are left out: their host is the guest.

    Returns:
        `host_cpus`; `rows`, one per size: the parts of a `Cell`, `chr`, `ratio` to bare metal,
        `low`, `high` (simultaneous for one curve), `n`; and `enough`, one per curve: the least
        `cores` and `chr` from which on every measured size is clearly under `penalty` times bare
        metal, None where not even the largest is. Without `host_cpus` there is nothing to tell.
    """
    table: Json = {"host_cpus": host_cpus, "penalty": PENALTY, "rows": [], "enough": []}
    if not host_cpus:
        return table
    for curve in _curves(units):
        machine, enclosure = units.platforms.parts(curve[0].platform)
        if machine != METAL or enclosure == PROCESS:
            continue
        found = together((cell.application, [units.cost(cell)]) for cell in curve)
        rows = [
            {
                **_of(cell), "cores": cell.cores, "chr": cell.cores / host_cpus,
                "ratio": effect.value, "low": effect.low, "high": effect.high, "n": effect.n,
            }
            for cell, effect in zip(curve, found, strict=True)
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
